//! B3, B4: clients that are slow, silent, or stop in the middle.

use std::{net::SocketAddr, time::Duration};

use mesh_proto::names;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::{
    invariants::{self, Spent},
    load::Place as _,
    oracle::{NUMBER, SIZE, backend::HTTP},
    outcome::Findings,
    party::Party,
    process,
    rig::{Plan, Rig, RigOf},
    row::Stage,
};

/// Longest that anybody is watched.
const LATE: Duration = Duration::from_secs(30);

/// Slow clients that come in a second, as slowhttptest sends them; those that are silent come all at once.
const RATE: f64 = 200.0;
const AT_ONCE: f64 = f64::INFINITY;

/// A slow client: what it says at once, and then byte by byte.
#[derive(Debug, Clone)]
struct Slow {
    name: &'static str,
    first: Vec<u8>,
    then: &'static [u8],
    /// Between two bytes of that.
    pause: Duration,
    reads: bool,
}

impl Slow {
    /// How long it was let stay; none: it was still there in the end.
    async fn stay(&self, address: SocketAddr) -> Option<Duration> {
        let begun = Instant::now();
        let mut socket = TcpStream::connect(address).await.ok()?;
        if socket.write_all(&self.first).await.is_err() {
            return Some(begun.elapsed());
        }
        let (mut read, mut write) = socket.split();
        let hear = async {
            if !self.reads {
                return std::future::pending().await;
            }
            let mut part = [0; 4096];
            while let Ok(1..) = read.read(&mut part).await {}
        };
        let say = async {
            for byte in self.then.iter().cycle() {
                tokio::time::sleep(self.pause).await;
                if write.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        let over = async {
            tokio::select! {
                () = hear => {}
                () = say => {}
            }
        };
        tokio::time::timeout(LATE, over).await.ok().map(|()| begun.elapsed())
    }
}

fn slow(name: &'static str, first: impl AsRef<[u8]>, then: &'static [u8], reads: bool) -> Slow {
    Slow { name, first: first.as_ref().to_vec(), then, pause: Duration::from_secs(1), reads }
}

/// `count` of each at once; how long each was let stay.
/// So many of each kind; they come at this rate.
async fn all(address: SocketAddr, kinds: &[Slow], count: usize, rate: f64) -> Vec<(&'static str, Option<Duration>)> {
    let one = |(nth, kind): (usize, &Slow)| {
        let kind = kind.clone();
        async move {
            tokio::time::sleep(Duration::from_secs_f64(nth as f64 / rate)).await;
            (kind.name, kind.stay(address).await)
        }
    };
    let all = std::iter::repeat_n(kinds, count).flatten().enumerate().map(one);
    futures_util::future::join_all(all).await
}

fn longest(stays: &[(&str, Option<Duration>)], name: &str) -> f64 {
    let of = stays.iter().filter(|(known, _)| *known == name);
    of.map(|(_, stay)| stay.map_or(f64::INFINITY, |stay| stay.as_secs_f64())).fold(0.0, f64::max)
}

pub(crate) fn requests<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let count = stage.pick(250, 20);
    let body = format!("POST / HTTP/1.1\r\nhost: web\r\n{NUMBER}: 1\r\ncontent-length: 100000\r\n\r\n");
    let chunks = format!("POST / HTTP/1.1\r\nhost: web\r\n{NUMBER}: 1\r\ntransfer-encoding: chunked\r\n\r\n");
    let large = format!("GET / HTTP/1.1\r\nhost: web\r\n{NUMBER}: 1\r\n{SIZE}: {}\r\n\r\n", 1 << 20);
    let bad = "GET / HTTP/1.1\r\nhost : web\r\n\r\n".repeat(200);
    let kinds = [
        slow("slow head", "GET / HTTP/1.1\r\nhost: web\r\n", b"x-a: b\r\n", true),
        slow("slow body", body, b"b", true),
        slow("chunks of a byte", chunks, b"1\r\nb\r\n", true),
        slow("answer that is not read", large, b"", false),
        slow("malformed requests, answers not read", bad, b"", false),
    ];
    let stays = invariants::around(&rig, rig.server(), &Rig::victim(), findings, || {
        let (stays, cpu) = rig.outsider.block_on(|| async {
            let stays = all(rig.direct(HTTP), &kinds, count, RATE).await;
            Ok((stays, process::own_cpu()))
        })?;
        let bytes = kinds.iter().map(|kind| kind.first.len() + 30).sum::<usize>() * count;
        // What they ask for is part of what they cost: a MiB each.
        Ok((stays, Spent { cpu, bytes: (bytes + count * (1 << 20) / 10) as u64 }))
    })?;
    findings.told("slow clients", stays.len() as f64);
    findings.timed_at_most("s until a head without end is closed", longest(&stays, "slow head"), 15.0);
    Ok(())
}

pub(crate) fn silent<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let count = stage.pick(400, 20);
    let hello = hello();
    let half = &hello[..hello.len() / 2];
    let kinds = [
        slow("silent", "", b"", true),
        slow("one byte", "G", b"", true),
        slow("half a ClientHello", half, b"", true),
        Slow { pause: Duration::from_secs(1), ..slow("a ClientHello byte by byte", &hello[..20], b"\0", true) },
        slow("a ClientHello and nothing else", &hello, b"", true),
    ];
    let memory = process::resident(rig.server().pid())?;
    let ((), peak) = {
        let (result, peak) = process::peak_during(rig.server().pid(), || {
            let stays = invariants::around(&rig, rig.server(), &Rig::victim(), findings, || {
                let (stays, cpu) = rig.outsider.block_on(|| async {
                    let stays = all(rig.direct(HTTP), &kinds, count, AT_ONCE).await;
                    Ok((stays, process::own_cpu()))
                })?;
                // Each may cost 16 KiB, whatever it said.
                Ok((stays, Spent { cpu, bytes: (5 * count * 16 * 1024 / 10) as u64 }))
            })?;
            findings.told("sockets", stays.len() as f64);
            for kind in &kinds {
                let what = format!("s until it is closed: {}", kind.name);
                findings.timed_at_most(what, longest(&stays, kind.name), 10.5);
            }
            anyhow::Ok(())
        });
        (result?, peak)
    };
    let each = peak.saturating_sub(memory) as f64 / 1024.0 / (5 * count) as f64;
    findings.timed_at_most("KiB each", each, 16.0);
    Ok(())
}

/// A ClientHello that offers an ALPN of the mesh: version 1.3, no key share, as far as anybody reads who waits for the rest.
fn hello() -> Vec<u8> {
    let alpn = names::ALPN_TCP;
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes();
    let name = [&[u8::try_from(alpn.len()).unwrap_or_default()][..], alpn].concat();
    let list = [&length(&name)[..], &name].concat();
    let alpn = [&[0, 16][..], &length(&list), &list].concat();
    let versions = [0, 43, 0, 3, 2, 3, 4];
    let groups = [0, 10, 0, 4, 0, 2, 0, 29];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let share = [&[0, 51, 0, 38, 0, 36, 0, 29, 0, 32][..], &[9; 32]].concat();
    let extensions = [&alpn[..], &versions, &groups, &signatures, &share].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &length(&extensions), &extensions].concat();
    let [high, low] = length(&body);
    let message = [&[1, 0, high, low][..], &body].concat();
    [&[22, 3, 1][..], &length(&message), &message].concat()
}
