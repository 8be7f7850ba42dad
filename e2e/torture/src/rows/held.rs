//! L: load that is held.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use mesh_proto::names;
use mesh_testbed::{Settings, member::Pod};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use crate::{
    load::{self, Load, Tally},
    oracle::{
        backend::{BYTES, HTTP, HTTP2},
        client::Version,
        hash, mix,
    },
    outcome::Findings,
    party::Party,
    process,
    rig::{Plan, Rig, RigOf},
    row::Stage,
};

/// Resident MiB of a proxy under load.
const MEMORY: f64 = 26.0;
const MIB: f64 = 1_048_576.0;

fn judge(findings: &mut Findings, name: &str, tally: &Tally) {
    findings.none(format!("{name}: errors of {}{}", tally.all(), tally.examples()), tally.failed);
    findings.never(&format!("{name}: wrong answers"), tally.wrong);
}

fn wait(length: Duration) -> impl FnOnce(&dyn Fn() -> u64) -> anyhow::Result<()> {
    move |_| {
        thread::sleep(length);
        Ok(())
    }
}

pub(crate) fn a_fixed_rate<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let length = stage.pick(Duration::from_secs(30), Duration::from_secs(5));
    let rate = stage.pick(2000.0, 200.0);
    for (name, version, port) in
        [("HTTP/1.1", Version::Http1, HTTP), ("HTTP/2", Version::Http2, HTTP2), ("gRPC", Version::Grpc, HTTP2)]
    {
        let loads = [Load { version, ..Load::new(Rig::web(port), 100, rate) }];
        let ((), mut tally) = load::during(&rig.client, &rig.oracle, &loads, wait(length))?;
        judge(findings, name, &tally);
        findings.timed_at_least(format!("{name}: requests/s"), tally.good as f64 / length.as_secs_f64(), 0.95 * rate);
        findings.told(format!("{name}: p50 ms"), tally.percentile(50));
        findings.told(format!("{name}: p99 ms"), tally.percentile(99));
    }
    findings.none("seen twice", rig.oracle.repeated());
    for (name, member) in [("client's", &rig.client), ("server's", rig.server())] {
        let resident = process::resident(member.pid())? as f64 / MIB;
        findings.timed_at_most(format!("{name} proxy MiB"), resident, MEMORY);
    }
    Ok(())
}

pub(crate) fn as_fast_as_it_goes<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let length = stage.pick(Duration::from_secs(5), Duration::from_secs(1));
    for connections in [1, 8, 64] {
        for (name, version, port) in [("h1", Version::Http1, HTTP), ("h2", Version::Http2, HTTP2)] {
            let loads = [Load { version, ..Load::new(Rig::web(port), connections, None) }];
            let ((), tally) = load::during(&rig.client, &rig.oracle, &loads, wait(length))?;
            judge(findings, &format!("{name} × {connections}"), &tally);
            findings.told(format!("{name} × {connections}: requests/s"), tally.good as f64 / length.as_secs_f64());
        }
    }
    findings.none("seen twice", rig.oracle.repeated());
    let size = stage.pick(256 << 20, 8 << 20);
    let begun = Instant::now();
    let equal = rig.client.enter(|| transfer(size))??;
    findings.never("transfers with other bytes", usize::from(!equal));
    let gigabits = 2.0 * 8.0 * f64::from(size) / begun.elapsed().as_secs_f64() / 1e9;
    findings.told(format!("TCP, {} MiB there and back: Gbit/s", size >> 20), gigabits);
    Ok(())
}

/// So many bytes to the application and back; whether they are the same.
pub(super) fn transfer(size: u32) -> std::io::Result<bool> {
    const BLOCK: u32 = 64 * 1024;
    let block = |nth: u32| -> Vec<u8> {
        (0..u64::from(BLOCK) / 8).flat_map(|word| mix(word ^ (u64::from(nth) << 32)).to_le_bytes()).collect()
    };
    let blocks = size.div_ceil(BLOCK);
    let mut reader = TcpStream::connect(Rig::web(BYTES))?;
    reader.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut writer = reader.try_clone()?;
    thread::scope(|scope| {
        let written = scope.spawn(move || (0..blocks).try_for_each(|nth| writer.write_all(&block(nth))));
        let mut back = vec![0; BLOCK as usize];
        let mut equal = true;
        for nth in 0..blocks {
            reader.read_exact(&mut back)?;
            equal &= hash(&back) == hash(&block(nth));
        }
        written.join().map_err(|_| std::io::Error::other("the writer panicked"))??;
        Ok(equal)
    })
}

pub(crate) fn idle_connections<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    // Three quarters of what a proxy's descriptors allow, two for each; here both ends are this process's.
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    let allowed = usize::try_from(hard).unwrap_or(usize::MAX) / 10 * 8 / 2 / 4 * 3;
    let count = stage.pick(8000, 300).min(allowed.saturating_sub(300));
    let before = [&rig.client, rig.server()].map(|member| process::resident(member.pid()));
    let length = stage.pick(Duration::from_mins(1), Duration::from_secs(2));
    let (rig, findings_) = (&rig, &mut *findings);
    let (opened, alive) = rig.client.block_on(move || async move {
        let mut sockets = Vec::new();
        for _ in 0..count {
            let mut socket = tokio::net::TcpStream::connect(Rig::web(BYTES)).await?;
            socket.write_all(b"a").await?;
            socket.read_u8().await?;
            sockets.push(socket);
        }
        tokio::time::sleep(length).await;
        let mut alive = 0;
        for socket in &mut sockets {
            let asked = async {
                socket.write_all(b"b").await?;
                socket.read_u8().await
            };
            let asked = tokio::time::timeout(Duration::from_secs(10), asked).await;
            alive += usize::from(matches!(asked, Ok(Ok(b'b'))));
        }
        // The sockets are open while memory is read.
        for (before, (name, member)) in before.into_iter().zip([("client's", &rig.client), ("server's", rig.server())])
        {
            let grown = process::resident(member.pid())?.saturating_sub(before?) as f64 / 1024.0 / count as f64;
            findings_.timed_at_most(format!("KiB each at the {name} proxy"), grown, 64.0);
        }
        let fresh = [Load { fresh: true, ..Load::new(Rig::web(HTTP), 1, 50.0) }];
        let ((), mut tally) = load::during(&rig.client, &rig.oracle, &fresh, wait(Duration::from_secs(4)))?;
        judge(findings_, "beside them", &tally);
        findings_.timed_at_most("p99 ms of a new request", tally.percentile(99), 10.0);
        Ok((sockets.len(), alive))
    })?;
    findings.told("connections", opened as f64);
    findings.none("of which are dead", opened - alive);
    Ok(())
}

pub(crate) fn new_connections<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let (count, parallel) = (stage.pick(20_000, 500), 50);
    let begun = Instant::now();
    let failed = rig.client.block_on(|| async {
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let one = || async {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                // Bytes are never pooled: each connection is a handshake between the proxies.
                let talk = async {
                    let mut socket = tokio::net::TcpStream::connect(Rig::web(BYTES)).await?;
                    socket.write_all(b"torture\n").await?;
                    let mut back = [0; 8];
                    socket.read_exact(&mut back).await?;
                    std::io::Result::Ok(&back == b"torture\n")
                };
                let talked = tokio::time::timeout(Duration::from_secs(15), talk).await;
                if !matches!(talked, Ok(Ok(true))) {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        futures_util::future::join_all((0..parallel).map(|_| one())).await;
        Ok(failed.into_inner())
    })?;
    findings.none(format!("failed of {count}"), failed);
    findings.told("connections with a handshake each, per second", count as f64 / begun.elapsed().as_secs_f64());
    findings.none("panics", rig.server().log().matches("panicked").count());
    Ok(())
}

pub(crate) fn soak(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let settings = Settings { leaf_lifetime: Duration::from_secs(30), ..Plan::new(stage).settings };
    let log = [(names::ENV_LOG, "info")];
    let plan = Plan { servers: 3, settings, client_environment: &log, ..Plan::new(stage) };
    let mut rig = Rig::start(&plan)?;
    let rate = stage.pick(125.0, 20.0);
    let loads = [
        Load::new(Rig::web(HTTP), 8, rate),
        Load { version: Version::Http2, ..Load::new(Rig::web(HTTP2), 4, rate) },
        Load { version: Version::Grpc, ..Load::new(Rig::web(HTTP2), 4, rate) },
        Load { fresh: true, ..Load::new(Rig::web(HTTP), 2, rate) },
    ];
    let (warm, length) = (stage.pick(40, 3), stage.pick(200, 4));
    let (over, lost) = (AtomicBool::new(false), AtomicUsize::new(0));
    let Rig { servers, client, oracle, mesh, .. } = &mut rig;
    let look = |client: &mesh_testbed::Member| -> anyhow::Result<[f64; 3]> {
        let threads = client.gauge("process_threads", &[])?;
        Ok([process::resident(client.pid())? as f64 / MIB, client.gauge("process_open_fds", &[])?, threads])
    };
    let ((before, after), tally) = thread::scope(|scope| {
        scope.spawn(|| {
            client.run(|| {
                while !over.load(Ordering::Relaxed) {
                    if !transfer(1 << 16).unwrap_or(false) {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_millis(50));
                }
            })
        });
        let result = load::during(&*client, oracle, &loads, |_| {
            // One endpoint goes, or comes, each second: a pod that is not ready is none, and its application runs on.
            let churn = |seconds: u64| -> anyhow::Result<()> {
                for second in 0..seconds {
                    let pod = Pod::new("web-3", "web", 3);
                    mesh.control.apply(&pod.file(), &pod.manifest(second % 2 == 1))?;
                    thread::sleep(Duration::from_secs(1));
                }
                Ok(())
            };
            churn(warm)?;
            let before = look(client)?;
            churn(length)?;
            Ok((before, look(client)?))
        });
        over.store(true, Ordering::Relaxed);
        result
    })?;
    judge(findings, "soak", &tally);
    findings.none("lost TCP transfers", lost.load(Ordering::Relaxed));
    findings.none("seen twice", oracle.repeated());
    // A slope per hour of what is seen in minutes is noise of one page: so the growth itself is judged.
    findings.timed_at_most("MiB more, at the end", after[0] - before[0], 1.0);
    findings.timed_at_most("descriptors more", after[1] - before[1], 8.0);
    findings.at_most("threads more", after[2] - before[2], 0.0);
    let renewed = client.count("control_identity_cert_refreshes_total", &[])?;
    findings.timed_at_least("certificates", renewed as f64, 6.0);
    findings.told("server pods", servers.len() as f64);
    Ok(())
}
