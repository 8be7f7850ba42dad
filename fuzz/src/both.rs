//! Two real workers of the proxy, one with the direct way of HTTP/1.1 and one without it, each with an application of its own:
//! what is said to both must come to the same.

mod heard;
mod puppet;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock,
        mpsc::{self, Receiver},
    },
};

use self::{
    heard::{Ending, Heard, same},
    puppet::{Puppet, Script},
};
use crate::inbound::{
    Proxy,
    oracle::{self, Seen},
    say_to,
};

/// What differs once may be a matter of moments; what differs every time is not.
const TRIES: usize = 5;

/// Longest head that is forwarded.
const MAX_HEAD: usize = 64 * 1024;

/// `bytes`, in which a zero and a number stand for so many times 256 bytes `a`, so that a small input can be a huge head.
pub fn expanded(bytes: &[u8]) -> Vec<u8> {
    let mut expanded = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        match (byte, rest.as_slice().first()) {
            (0, Some(times @ 1..)) => {
                rest.next();
                expanded.resize(expanded.len() + usize::from(*times) * 256, b'a');
            }
            _ => expanded.push(*byte),
        }
    }
    expanded
}

/// Says these requests, in pieces, to both ways. Panics where what comes of it is not the same.
pub fn requests(pieces: &[&[u8]]) {
    type Way = (Proxy, Receiver<Seen>);
    static WAYS: OnceLock<Mutex<[Way; 2]>> = OnceLock::new();
    let ways = WAYS.get_or_init(|| {
        Mutex::new([true, false].map(|direct| {
            let (told, seen) = mpsc::channel();
            (Proxy::start(direct, |listener| oracle::serve(&listener, move |seen| drop(told.send(seen)))), seen)
        }))
    });
    let ways = ways.lock().expect("nothing panics and goes on");
    let one = |(proxy, seen): &Way| {
        let mut answers = Heard::all(&say_to(proxy.address, pieces));
        // Which of two things is wrong with what is too long, and no request either, is a matter of how much came at once.
        if pieces.iter().map(|piece| piece.len()).sum::<usize>() > MAX_HEAD {
            answers.iter_mut().for_each(Heard::forget_what_is_wrong);
        }
        // A host that HTTP/1.0 need not name is the address, and the two have different ones.
        let named = |seen: Seen| seen.with_host(&proxy.application.to_string(), "application");
        (seen.try_iter().map(named).collect::<Vec<_>>(), answers)
    };
    let said = || pieces.iter().map(|piece| String::from_utf8_lossy(piece)).collect::<Vec<_>>();
    for last in (0..TRIES).rev() {
        let [direct, hyper] = [one(&ways[0]), one(&ways[1])];
        let either_way = direct.0.starts_with(&hyper.0) || hyper.0.starts_with(&direct.0);
        if direct == hyper || (either_way && has_chunks(&pieces.concat())) {
            return;
        }
        assert!(last > 0, "{:?} comes to\n{direct:?}\nby the direct way, and to\n{hyper:?}", said());
    }
}

/// Chunks are hyper's either way. A malformed one is a refusal, or the end of a request that is on its way, by whether it was
/// read together with its head.
fn has_chunks(said: &[u8]) -> bool {
    const CHUNKED: &[u8] = b"chunked";
    said.windows(CHUNKED.len()).any(|word| word.eq_ignore_ascii_case(CHUNKED))
}

/// One request, and what a server says to it.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// A HEAD, not a GET.
    pub is_head: bool,
    /// The server ends its connection after it; otherwise it does so only when nothing comes of waiting.
    pub server_closes: bool,
    /// The client wants no more.
    pub client_closes: bool,
    /// The client wants errors as gRPC.
    pub is_grpc: bool,
    /// What is counted is compared, too; that takes some time.
    pub is_counted: bool,
    /// The answer, with a break in it.
    pub pieces: [&'a [u8]; 2],
}

impl std::fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { is_head, server_closes, client_closes, is_grpc, .. } = self;
        write!(f, "head {is_head}, server closes {server_closes}, client closes {client_closes}, gRPC {is_grpc}")
    }
}

/// Lets servers say this, both ways. Panics where the client does not hear the same, the next client does not hear its own answer,
/// or something else is counted.
pub fn answers(case: &Case<'_>) {
    type Way = (Proxy, Arc<Puppet>);
    static WAYS: OnceLock<Mutex<[Way; 2]>> = OnceLock::new();
    let ways = WAYS.get_or_init(|| {
        Mutex::new([true, false].map(|direct| {
            let puppet = Arc::new(Puppet::default());
            let of_server = Arc::clone(&puppet);
            (Proxy::start(direct, move |listener| of_server.serve(&listener)), puppet)
        }))
    });
    let ways = ways.lock().expect("nothing panics and goes on");
    let line = format!("{} / HTTP/1.1\r\nhost: web\r\n", if case.is_head { "HEAD" } else { "GET" });
    let close = if case.client_closes { "connection: close\r\n" } else { "" };
    let grpc = if case.is_grpc { "content-type: application/grpc\r\n" } else { "" };
    let request = format!("{line}{close}{grpc}\r\n");
    let shown = || format!("{case}: {:?}", case.pieces.map(String::from_utf8_lossy));
    let one = |(proxy, puppet): &Way| {
        let before = case.is_counted.then(|| counted(proxy));
        let number = puppet.next(Script { pieces: case.pieces.map(<[u8]>::to_vec), closes: case.server_closes });
        let bytes = say_to(proxy.address, &[request.as_bytes()]);
        puppet.over(number);
        let after = format!("GET {} HTTP/1.1\r\nhost: web\r\n\r\n", puppet::AFTER);
        let after = say_to(proxy.address, &[after.as_bytes()]);
        let expected = puppet::after(number);
        assert_eq!(String::from_utf8_lossy(&after), expected, "what the next client hears, after {}", shown());
        let counted = before.map(|before| between(&before, counted(proxy)));
        (Ending::of(&bytes, case.is_head), counted, String::from_utf8_lossy(&bytes).into_owned())
    };
    let script = case.pieces.concat();
    for last in (0..TRIES).rev() {
        let [direct, hyper] = [one(&ways[0]), one(&ways[1])];
        let both_refuse = matches!((&direct.0, &hyper.0), (Ending::Error(..), Ending::Error(..)));
        let may_differ = match &direct.0 {
            // Of a head that is too long, or has no end, hyper looks at the parts later, and may see the connection's end first.
            Ending::Error(..) if both_refuse => script.len() > MAX_HEAD || !has_whole_head(&script),
            Ending::Error(..) => may_be_refused(&script),
            // hyper looks at no byte of a chunk's extension.
            Ending::Broken => {
                has_chunks(&script) && script.iter().any(|byte| byte.is_ascii_control() && !b"\r\n\t".contains(byte))
            }
            _ => has_odd_connection(&script),
        };
        if may_differ || (same(&direct.0, &hyper.0) && direct.1 == hyper.1) {
            return;
        }
        assert!(last > 0, "{} comes to\n{direct:#?}\nby the direct way, and to\n{hyper:#?}", shown());
    }
}

/// Whether the direct way may refuse an answer that hyper's lets through: a coding given twice, which hyper takes as one, and a
/// length of more digits than anybody has bytes, or of none where there is no body.
fn may_be_refused(script: &[u8]) -> bool {
    const CODING: &[u8] = b"transfer-encoding";
    let codings = script.windows(CODING.len()).filter(|name| name.eq_ignore_ascii_case(CODING)).count();
    let mut lines = script.split(|byte| *byte == b'\n');
    let has_empty_length = lines.any(|line| line.trim_ascii().eq_ignore_ascii_case(b"content-length:"));
    codings > 1 || has_empty_length || script.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() > 18)
}

/// Whether there is the end of a head, of one that is not followed by the answer itself.
fn has_whole_head(mut script: &[u8]) -> bool {
    loop {
        let ends = [&b"\n\n"[..], b"\n\r\n"].map(|end| {
            let at = script.windows(end.len()).position(|here| here == end);
            at.map(|at| at + end.len())
        });
        let Some(end) = ends.into_iter().flatten().min() else { return false };
        if !matches!(script.get(..10), Some([b'H', .., b' ', b'1'])) {
            return true;
        }
        script = &script[end..];
    }
}

/// Whether there is a Connection header with bytes that are no ASCII: hyper's way sees nothing in it, the direct way what is
/// beside them.
fn has_odd_connection(script: &[u8]) -> bool {
    const CONNECTION: &[u8] = b"connection";
    let is_odd = |byte: &u8| !matches!(byte, b' '..=b'~' | b'\t' | b'\r');
    script.split(|byte| *byte == b'\n').any(|line| {
        line.get(..CONNECTION.len()).is_some_and(|name| name.eq_ignore_ascii_case(CONNECTION))
            && line.iter().any(is_odd)
    })
}

/// Requests, answers and errors so far. How connections ended is a matter of who is the first to say so.
fn counted(proxy: &Proxy) -> Counts {
    const COMPARED: [&str; 3] = ["request_total", "response_total", "mesh_error_total"];
    // The two applications listen on different ports.
    let port = format!("dst_port=\"{}\"", proxy.application.port());
    let text = proxy.metrics.encode();
    let compared = text.lines().filter(|line| COMPARED.iter().any(|name| line.starts_with(name)));
    let pairs = compared.filter_map(|line| line.rsplit_once(' '));
    let mut counts = Counts::new();
    for (name, value) in pairs {
        // Statuses beyond so many different ones are counted as others: with all statuses together, what is said of them is the same.
        let of_status =
            name.split_once("status_code=").and_then(|(name, rest)| Some((name, rest.split_once("classification")?.1)));
        let name = of_status.map_or_else(|| name.to_owned(), |(name, class)| format!("{name}{class}"));
        *counts.entry(name.replace(&port, "")).or_default() += value.parse::<u64>().expect("it is a counter");
    }
    counts
}

type Counts = BTreeMap<String, u64>;

/// What was counted between the two.
fn between(before: &Counts, after: Counts) -> Counts {
    let since = after.into_iter().map(|(name, value)| {
        let since = value - before.get(&name).copied().unwrap_or_default();
        (name, since)
    });
    since.filter(|(_, since)| *since > 0).collect()
}
