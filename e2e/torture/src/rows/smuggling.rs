//! B6: one request to a proxy that is two to somebody else.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use mesh_testbed::frames::{self, END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame};
use parking_lot::Mutex;

use crate::{
    invariants::{self, Spent},
    load::Place,
    oracle::backend::HTTP2,
    outcome::Findings,
    party::Party,
    process,
    raw::{self, Seen, Witness},
    rig::{Plan, Rig, RigOf, WITNESS},
    row::Stage,
};

/// What no client ever asked for: it stands where only a second reading finds a request.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nhost: web\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(1);
/// At once.
const ATTACKERS: usize = 8;

pub(crate) fn every_case<P: Party>(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = RigOf::<P>::start(&Plan::new(stage))?;
    let witness = Witness::start(rig.server(), rig.direct(WITNESS), by_path)?;
    let cases = cases();
    let heard = invariants::around(&rig, rig.server(), &Rig::victim(), findings, || {
        let (mut spent, mut heard) = (Spent::default(), Vec::new());
        // Unmeshed at the server's proxy, and an application behind both proxies.
        let ways: [(&dyn Way, SocketAddr); 2] =
            [(&rig.outsider, rig.direct(WITNESS)), (&rig.client, Rig::web(WITNESS))];
        for (place, address) in ways {
            let (said, cpu) = place.send_all(address, &cases)?;
            heard.extend(said);
            let bytes: usize = cases.iter().map(|(_, bytes)| bytes.len()).sum();
            spent = Spent { cpu: spent.cpu + cpu, bytes: spent.bytes + bytes as u64 };
        }
        rig.outsider.enter(|| http2(rig.direct(HTTP2)))??;
        rig.client.enter(|| http2(Rig::web(HTTP2)))??;
        Ok((heard, spent))
    })?;
    let seen = witness.seen();
    let hidden: Vec<_> = seen.iter().filter(|seen| seen.target.contains("smuggled")).collect();
    findings.told("cases, each by two ways", (cases.len() + http2_cases().len()) as f64);
    findings.never(&format!("smuggled requests{}", shown(&hidden)), hidden.len());
    let odd = witness.odd();
    findings.never(&format!("requests passed on with two readings{}", shown(&odd)), odd.len());
    // An answer tells the path it belongs to.
    let foreign = heard.iter().filter(|(name, said)| {
        String::from_utf8_lossy(said).split("path=").skip(1).any(|path| !path.starts_with(&path_of(*name)))
    });
    let foreign: Vec<_> = foreign.map(|(name, _)| String::from_utf8_lossy(&cases[*name].1)).collect();
    findings.never(&format!("foreign answers{}", shown(&foreign)), foreign.len());
    let strangers: Vec<_> =
        rig.oracle.strangers().into_iter().filter(|stranger| stranger.contains("smuggled")).collect();
    findings.never(&format!("malformed HTTP/2 requests passed on{}", shown(&strangers)), strangers.len());
    let refused = heard.iter().filter(|(_, said)| raw::statuses(said).contains(&400)).count();
    findings.told("answered 400", refused as f64);
    Ok(())
}

fn shown(what: &[impl std::fmt::Debug]) -> String {
    what.first().map(|first| format!(" ({first:?})")).unwrap_or_default()
}

fn by_path(seen: &Seen) -> Vec<u8> {
    let body = format!("path={} ", seen.target);
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A number and what is sent.
type Case = (usize, Vec<u8>);

/// What came back, by the number of the case, and what it cost.
type Answers = (Vec<Case>, Duration);

/// Sends every case, several at once.
trait Way {
    fn send_all(&self, address: SocketAddr, cases: &[Case]) -> anyhow::Result<Answers>;
}

impl<P: Place> Way for P {
    fn send_all(&self, address: SocketAddr, cases: &[Case]) -> anyhow::Result<Answers> {
        let (next, heard) = (AtomicUsize::new(0), Mutex::new((Vec::new(), Duration::ZERO)));
        thread::scope(|scope| {
            for _ in 0..ATTACKERS {
                scope.spawn(|| {
                    self.enter(|| {
                        while let Some((name, bytes)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                            let said = raw::exchange(address, bytes, PATIENCE).unwrap_or_default();
                            heard.lock().0.push((*name, said));
                        }
                        heard.lock().1 += process::own_cpu();
                    })
                });
            }
        });
        Ok(heard.into_inner())
    }
}

fn path_of(name: usize) -> String {
    format!("/case/{name} ")
}

/// Every case by its number, which is in its path.
fn cases() -> Vec<Case> {
    let number = |(name, text): (usize, String)| (name, text.replace("/case", &format!("/case/{name}")).into_bytes());
    texts().into_iter().enumerate().map(number).collect()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn texts() -> Vec<String> {
    let post = |headers: &str, body: &str| format!("POST /case HTTP/1.1\r\nhost: web\r\n{headers}\r\n{body}");
    let hidden_after_zero = format!("0\r\n\r\n{HIDDEN}");
    let mut all = Vec::new();
    let codings = [
        "chunked",
        "Chunked",
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "\tchunked",
        "\x0bchunked",
        "chunked\x0b",
        "chunked;q=1",
        "\"chunked\"",
        "chunked, chunked",
        "identity",
        "",
        "chunked,",
        ",chunked",
        "chun ked",
        "chunked\u{a0}",
    ];
    let length = hidden_after_zero.len();
    for coding in codings {
        all.push(post(&format!("content-length: {length}\r\ntransfer-encoding: {coding}\r\n"), &hidden_after_zero));
        all.push(post(&format!("transfer-encoding: {coding}\r\ncontent-length: {length}\r\n"), &hidden_after_zero));
        if coding != "chunked" && coding != "\tchunked" && coding != "Chunked" {
            all.push(post(&format!("transfer-encoding: {coding}\r\n"), &hidden_after_zero));
        }
    }
    for name in [
        "Transfer_Encoding",
        "transfer-encoding ",
        "transfer-encoding\t",
        " transfer-encoding",
        "x\r\ntransfer-encoding",
    ] {
        all.push(post(&format!("content-length: {length}\r\n{name}: chunked\r\n"), &hidden_after_zero));
    }
    let short = format!("hello{HIDDEN}");
    for value in
        ["+5", "-5", "0x5", "5,5", "5, 6", "5;", "5.0", "5e0", "\u{ff15}", "", "5 5", "5\x0b", "18446744073709551621"]
    {
        all.push(post(&format!("content-length: {value}\r\n"), &short));
    }
    let whole = short.len();
    for (one, two) in [(5, whole), (whole, 5), (5, 5), (0, whole)] {
        all.push(post(&format!("content-length: {one}\r\ncontent-length: {two}\r\n"), &short));
        all.push(post(&format!("Content-Length: {one}\r\ncontent_length: {two}\r\nCONTENT-LENGTH: {two}\r\n"), &short));
    }
    for headers in [
        "a: b\ncontent-length: 0\r\n",
        "a: b\rcontent-length: 0\r\n",
        "a: b\0\r\n",
        "a\0: b\r\n",
        "a: b\r\n c\r\n",
        "a: b\r\n\tcontent-length: 0\r\n",
        "a b: c\r\n",
        "content-length : 0\r\n",
        "a\r\n",
        ": b\r\n",
        "(a): b\r\n",
        "a\x7f: b\r\n",
        "a: b\r\r\n",
        "host: b\r\n",
        "Host: web\r\n",
        "host : b\r\n",
        "a: b\n\r\n",
    ] {
        all.push(format!(
            "GET /case HTTP/1.1\r\nhost: web\r\n{headers}content-length: {}\r\n\r\n{HIDDEN}",
            HIDDEN.len()
        ));
    }
    for size in
        ["+5", "-5", "0x5", " 5", "5\n", "5\r", "", "5;a\n", "fffffffffffffff0", "10000000000000005", "5_", "\u{ff15}"]
    {
        all.push(post("transfer-encoding: chunked\r\n", &format!("{size}\r\nhello\r\n0\r\n\r\n{HIDDEN}")));
    }
    // With one reading to all who read it: five bytes, and nothing behind them.
    all.push(post("transfer-encoding: chunked\r\nconnection: close\r\n", "5 \r\nhello\r\n0\r\n\r\n"));
    // Who bears this extension reads five bytes, and nothing behind them, either.
    let long = "b".repeat(16 * 1024);
    all.push(post(
        "transfer-encoding: chunked\r\nconnection: close\r\n",
        &format!("5;a={long}\r\nhello\r\n0\r\n\r\n{HIDDEN}"),
    ));
    for trailer in ["content-length: 5", "transfer-encoding: chunked", "host: b", "a : b", "a: b\r\n c", "a: b\nc: d"] {
        let close = "transfer-encoding: chunked\r\nconnection: close\r\n";
        all.push(post(close, &format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n{HIDDEN}")));
    }
    all.push(format!("POST /case HTTP/1.0\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n{hidden_after_zero}"));
    all.push(format!("POST /case HTTP/1.0\r\nhost: web\r\n\r\n{HIDDEN}"));
    for line in [
        "GET /case",
        "GET /case HTTP/1.2",
        "GET /case HTTP/1.1 ",
        "GET  /case HTTP/1.1",
        "GET\t/case HTTP/1.1",
        " GET /case HTTP/1.1",
        "G(T /case HTTP/1.1",
        "GET /case\0 HTTP/1.1",
        "GET http://[::1/case HTTP/1.1",
        "GET /case HTTP/1.1\n",
        "CONNECT web:80 HTTP/1.1",
        "GET /case http/1.1",
        "GET /case HTTP/11",
        "PRI * HTTP/2.0",
    ] {
        let close = "host: web\r\nconnection: close\r\n";
        all.push(format!("{line}\r\n{close}content-length: {}\r\n\r\n{HIDDEN}", HIDDEN.len()));
    }
    // Early bytes of a change that the server does not agree to: they are a body of nobody.
    for headers in [
        "upgrade: websocket\r\nconnection: upgrade\r\n",
        "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
    ] {
        all.push(post(&format!("{headers}content-length: {}\r\n", HIDDEN.len()), HIDDEN));
    }
    all.push(post(
        &format!("expect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n", HIDDEN.len()),
        HIDDEN,
    ));
    all
}

/// Heads that HTTP/2 forbids, each field as a literal without an index.
fn http2_cases() -> Vec<Vec<(&'static str, &'static str)>> {
    let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "web"), (":path", "/smuggled")];
    let with = |field| usual.into_iter().chain([field]).collect::<Vec<_>>();
    let mut all: Vec<Vec<_>> = [
        ("a", "b\r\nhost: c"),
        ("a", "b\nc: d"),
        ("a", "b\0"),
        ("a\r\nb", "c"),
        ("a b", "c"),
        ("A", "b"),
        ("a:", "b"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("upgrade", "websocket"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("host", "other"),
        (":path", "/smuggled-too"),
        (":status", "200"),
        (":unknown", "a"),
        ("content-length", "5"),
    ]
    .map(with)
    .into();
    let replaced = |name, value| usual.map(|(known, old)| (known, if known == name { value } else { old })).to_vec();
    all.extend([
        replaced(":path", "/smuggled HTTP/1.1"),
        replaced(":path", "/smuggled\r\na: b"),
        replaced(":method", "GET /smuggled HTTP/1.1\r\na:"),
        replaced(":authority", "web\r\na: b"),
        usual[1..].to_vec(),
        usual[..3].iter().copied().chain([("smuggled", "1")]).collect(),
    ]);
    all
}

/// Each by a connection of its own; what comes back is not looked at, only what comes through.
fn http2(address: SocketAddr) -> std::io::Result<()> {
    for fields in http2_cases() {
        let literal = |text: &str| [&[u8::try_from(text.len()).unwrap_or(126)][..], text.as_bytes()].concat();
        let block: Vec<u8> =
            fields.iter().flat_map(|(name, value)| [vec![0], literal(name), literal(value)].concat()).collect();
        let bytes = [
            frames::opening(),
            frame(SETTINGS, frames::ACK, 0, &[]),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &block),
        ];
        raw::exchange(address, &bytes.concat(), PATIENCE / 5)?;
    }
    Ok(())
}
