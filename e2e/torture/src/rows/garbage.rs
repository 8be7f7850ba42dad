//! B9, B13, B14: bytes without sense, names without end, names that break the log.

use std::{
    io::Write as _,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use mesh_proto::names;
use mesh_testbed::{Member, frames, until};

use crate::{
    invariants::{self, Spent},
    load::Place,
    oracle::{
        NUMBER,
        backend::{BYTES, HTTP, HTTP2},
        mix,
    },
    outcome::Findings,
    party::Party,
    process, raw,
    rig::{Plan, Rig, RigOf, WITNESS},
    row::Stage,
};

const PATIENCE: Duration = Duration::from_millis(100);
/// At once.
const ATTACKERS: usize = 4;

/// What is mutated: the beginnings of every protocol that a proxy reads.
fn seeds() -> Vec<Vec<u8>> {
    let head = frames::frame(frames::HEADERS, frames::END_HEADERS, 1, b"\x82\x86\x84\x41\x03web");
    let data = frames::frame(frames::DATA, frames::END_STREAM, 1, b"hello");
    vec![
        b"GET /a?b=c HTTP/1.1\r\nhost: web\r\naccept: */*\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\na: b\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\nhello".to_vec(),
        [frames::opening(), head, data].concat(),
        [
            &[22, 3, 1, 0, 60, 1, 0, 0, 56, 3, 3][..],
            &[7; 32],
            &[0, 0, 2, 0x13, 1, 1, 0, 0, 13, 0, 16, 0, 9, 0, 7, 6],
            b"mesh/1",
        ]
        .concat(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        Vec::new(),
    ]
}

/// One of the seeds, or nothing, with some bytes changed, doubled, left out or added: the same for the same number.
fn mutated(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut state = number;
    let mut random = |below: usize| {
        state = mix(state);
        usize::try_from(state >> 33).unwrap_or_default() % below.max(1)
    };
    let mut bytes = seeds[random(seeds.len())].clone();
    for _ in 0..random(12) {
        let (at, value) = (random(bytes.len() + 1), random(256).to_le_bytes()[0]);
        match random(5) {
            0 => bytes.insert(at, value),
            1 if at < bytes.len() => bytes[at] = value,
            2 if at < bytes.len() => bytes[at] ^= 1 << random(8),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            _ => {
                let part = bytes[at..].iter().take(random(64)).copied().collect::<Vec<_>>();
                bytes.extend(part);
            }
        }
    }
    if bytes.is_empty() {
        bytes = (0..random(600)).map(|_| random(256).to_le_bytes()[0]).collect();
    }
    bytes
}

pub(crate) fn bytes<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let count = stage.pick(20_000_usize, 600);
    let seeds = seeds();
    let ip = rig.server().addresses().v4;
    let direct = [HTTP, HTTP2, BYTES, names::PORT_INBOUND, names::PORT_OUTBOUND, names::PORT_PROXY_ADMIN];
    let ways: [(&dyn Sprays, Vec<SocketAddr>); 2] = [
        (&rig.outsider, direct.map(|port| (ip, port).into()).into()),
        (&rig.client, [HTTP, HTTP2, BYTES].map(Rig::web).into()),
    ];
    let client_start = process::started(rig.client.pid())?;
    invariants::around(&rig, rig.server(), &Rig::victim(), findings, || {
        let mut all = Spent::default();
        for (place, ports) in &ways {
            let spent = place.spray(ports, &seeds, count / 2);
            all = Spent { cpu: all.cpu + spent.cpu, bytes: all.bytes + spent.bytes };
        }
        Ok(((), all))
    })?;
    findings.told("streams", count as f64);
    findings.never("panics of the client's proxy", rig.client.log().matches("panicked").count());
    findings.never("other process at the client", usize::from(!process::is_still(rig.client.pid(), client_start)));
    Ok(())
}

/// Sends mutated streams to all of these, one after the other.
trait Sprays {
    fn spray(&self, to: &[SocketAddr], seeds: &[Vec<u8>], count: usize) -> Spent;
}

impl<P: Place> Sprays for P {
    fn spray(&self, to: &[SocketAddr], seeds: &[Vec<u8>], count: usize) -> Spent {
        let (next, sent, cpu) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..ATTACKERS {
                scope.spawn(|| {
                    self.enter(|| {
                        loop {
                            let nth = next.fetch_add(1, Ordering::Relaxed);
                            if nth >= count {
                                break;
                            }
                            let bytes = mutated(seeds, nth as u64);
                            sent.fetch_add(bytes.len(), Ordering::Relaxed);
                            let Ok(mut socket) =
                                TcpStream::connect_timeout(&to[nth % to.len()], Duration::from_secs(2))
                            else {
                                continue;
                            };
                            let _ = socket.set_read_timeout(Some(PATIENCE));
                            let _ = socket.write_all(&bytes);
                            let _ = socket.shutdown(Shutdown::Write);
                            let _ = std::io::Read::read(&mut socket, &mut [0; 4096]);
                        }
                        let spent = usize::try_from(process::own_cpu().as_millis()).unwrap_or_default();
                        cpu.fetch_add(spent, Ordering::Relaxed);
                    })
                });
            }
        });
        Spent { cpu: Duration::from_millis(cpu.into_inner() as u64), bytes: sent.into_inner() as u64 }
    }
}

pub(crate) fn names_without_end(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = Rig::start(&Plan::new(stage))?;
    let count = stage.pick(100_000_usize, 3000);
    let memory = [rig.server(), &rig.client].map(|member| process::resident(member.pid()));
    // Pipelined, so that they are many: hosts, paths, methods, agents, all of them new each time.
    let requests = |from: usize| -> Vec<u8> {
        let one = |nth| {
            format!(
                "M{nth} /p{nth}?q={nth} HTTP/1.1\r\nhost: h{nth}.test\r\n{NUMBER}: 1\r\nuser-agent: a{nth}\r\nx-{nth}: 1\r\n\r\n"
            )
        };
        (from..from + 50).map(one).collect::<String>().into_bytes()
    };
    let send = |address: SocketAddr| -> anyhow::Result<()> {
        for from in (0..count / 2).step_by(50) {
            raw::exchange_count(address, &requests(from), 50)?;
        }
        Ok(())
    };
    rig.outsider.enter(|| send(rig.direct(HTTP)))??;
    rig.client.enter(|| send(Rig::web(HTTP)))??;
    findings.told("names of each kind", count as f64);
    for ((name, member), before) in [("server's", rig.server()), ("client's", &rig.client)].into_iter().zip(memory) {
        let page = member.admin("/metrics")?.body;
        let series = page.lines().filter(|line| !line.starts_with('#')).count();
        findings.at_most(format!("series of the {name} proxy"), series as f64, 1000.0);
        findings.at_most(format!("KiB of its page ({name})"), page.len() as f64 / 1024.0, 1024.0);
        let grown = process::resident(member.pid())?.saturating_sub(before?) as f64 / f64::from(1 << 20);
        findings.at_most(format!("MiB more ({name})"), grown, 10.0);
    }
    Ok(())
}

pub(crate) fn names_that_break_lines(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let log = [(names::ENV_ACCESS_LOG, "json")];
    let rig = Rig::start(&Plan { server_environment: &log, client_environment: &log, ..Plan::new(stage) })?;
    let long = "l".repeat(60_000);
    let esc = "\x1b[31m";
    let mut requests = Vec::new();
    for text in [
        "%0d%0aINJECTED",
        "%1b[31m",
        "%s%n%x",
        "\u{2028}INJECTED",
        "\u{202e}",
        "\"}INJECTED{\"",
        "\\n",
        esc,
        "\x07",
        "\r\nINJECTED",
        "\nINJECTED",
        &long,
    ] {
        for (target, host, method) in [(text, "web", "GET"), ("a", text, "GET"), ("a", "web", text)] {
            requests.push(format!(
                "{method} /{target} HTTP/1.1\r\nhost: {host}\r\n{NUMBER}: 1\r\nconnection: close\r\n\r\n"
            ));
        }
    }
    let lines = |member: &Member| member.log().lines().filter(|line| line.starts_with('{')).count();
    let before = [lines(rig.server()), lines(&rig.client)];
    let send = |address: SocketAddr| {
        for request in &requests {
            let _ = raw::exchange(address, request.as_bytes(), Duration::from_secs(1));
        }
    };
    rig.outsider.enter(|| send(rig.direct(HTTP)))?;
    rig.outsider.enter(|| send(rig.direct(WITNESS)))?;
    rig.client.enter(|| send(Rig::web(HTTP)))?;
    until("the last are logged", || (lines(&rig.client) > before[1] + 10).then_some(()))?;
    let (mut all, mut unescaped, mut no_json, mut longest, mut forged) = (0, 0, 0, 0, 0);
    for member in [rig.server(), &rig.client] {
        for line in member.log().lines() {
            all += 1;
            unescaped += usize::from(!line.bytes().all(|byte| (b' '..127).contains(&byte)));
            no_json += usize::from(line.starts_with('{') && serde_json::from_str::<serde_json::Value>(line).is_err());
            forged += usize::from(line.starts_with("INJECTED"));
            longest = longest.max(line.len());
        }
    }
    findings.told("lines", f64::from(all));
    findings.none("with characters that are not printable ASCII", unescaped);
    findings.none("that begin as lines and are not JSON", no_json);
    findings.never("lines that a client wrote", forged);
    findings.at_most("bytes of the longest", longest as f64, 4096.0);
    findings.never("panics", rig.server().log().matches("panicked").count());
    Ok(())
}
