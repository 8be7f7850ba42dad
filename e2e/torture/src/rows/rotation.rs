//! F7: certificates are renewed again and again under requests, a stream, an upgraded connection and bytes that live on.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use mesh_testbed::{Settings, until};
use tokio::time::Instant;

use crate::{
    load::{self, Load},
    oracle::{
        backend::{BYTES, HTTP, HTTP2},
        client::Version,
    },
    outcome::Findings,
    rig::{Plan, Rig},
    row::Stage,
};

/// As short as a certificate's life can be without gaps, so that there are many renewals.
const LIFE: Duration = Duration::from_secs(16);
/// Between two words on a connection that lives on.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn under_load(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let settings = Settings { leaf_lifetime: LIFE, ..Plan::new(stage).settings };
    let rig = Rig::start(&Plan { settings, ..Plan::new(stage) })?;
    let renewals = stage.pick(14, 2);
    let rate = stage.pick(200.0, 50.0);
    let loads = [
        Load::new(Rig::web(HTTP), 8, rate),
        Load { version: Version::Grpc, ..Load::new(Rig::web(HTTP2), 4, rate) },
        Load { fresh: true, ..Load::new(Rig::web(HTTP), 2, rate / 2.0) },
    ];
    let (over, broken, words) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (renewed, mut tally) = thread::scope(|scope| {
        for (port, upgrade) in [(BYTES, false), (BYTES, false), (HTTP, true), (HTTP, true)] {
            let (rig, over, broken, words) = (&rig, &over, &broken, &words);
            scope.spawn(move || {
                let talked = rig.client.run(|| talk(Rig::web(port), upgrade, over, words));
                if !matches!(talked, Ok(Ok(()))) {
                    broken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let result = load::during(&rig.client, &rig.oracle, &loads, |_| {
            let mut serial = rig.client.serial()?;
            let mut seen = 0;
            while seen < renewals {
                serial = until("a certificate is renewed", || rig.client.serial().ok().filter(|now| *now != serial))?;
                seen += 1;
            }
            Ok(seen)
        });
        over.store(true, Ordering::Relaxed);
        result
    })?;
    findings.at_least("renewals", f64::from(renewed), f64::from(renewals));
    findings.none(format!("errors of {}{}", tally.all(), tally.examples()), tally.failed);
    findings.never("wrong answers", tally.wrong);
    findings.none("broken of 4 long connections", broken.load(Ordering::Relaxed));
    findings.told("words on them", words.load(Ordering::Relaxed) as f64);
    findings.told("p99 ms", tally.percentile(99));
    let failures = rig.client.count("control_identity_cert_failures_total", &[])?;
    findings.none("failed renewals", usize::try_from(failures)?);
    Ok(())
}

/// Words that come back, on one connection until it is over.
fn talk(address: SocketAddr, upgrade: bool, over: &AtomicBool, words: &AtomicUsize) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.set_nodelay(true)?;
    if upgrade {
        socket.write_all(b"GET /upgrade HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: torture\r\n\r\n")?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        if !head.starts_with(b"HTTP/1.1 101") {
            return Err(std::io::Error::other(String::from_utf8_lossy(&head).into_owned()));
        }
    }
    let begun = Instant::now();
    let mut count = 0_u64;
    while !over.load(Ordering::Relaxed) {
        let word = count.to_be_bytes();
        socket.write_all(&word)?;
        let mut back = [0; 8];
        socket.read_exact(&mut back)?;
        if back != word {
            return Err(std::io::Error::other(format!("another word came back after {:?}", begun.elapsed())));
        }
        count += 1;
        words.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
    Ok(())
}
