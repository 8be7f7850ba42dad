//! Requests that are not to be forwarded: each is answered with its status and code, counted and shown, and the application
//! has not seen a byte of it.

mod http2;

use std::{net::SocketAddr, sync::Arc};

use mesh_proto::{server::TapService as _, tap::TapFilter, workload::Protocol};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{App, Pair, pair, soon};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An application that answers every head, and remembers all bytes of each connection.
struct Oracle {
    app: App,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Oracle {
    async fn new() -> Self {
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let all = Arc::clone(&seen);
        let app = App::new(move |mut socket| {
            let all = Arc::clone(&all);
            async move {
                let connection = {
                    let mut all = all.lock();
                    all.push(Vec::new());
                    all.len() - 1
                };
                let mut read = [0; 16 * 1024];
                while let Ok(n @ 1..) = socket.read(&mut read).await {
                    let whole = {
                        let bytes = &mut all.lock()[connection];
                        bytes.extend_from_slice(&read[..n]);
                        bytes.ends_with(b"\r\n\r\n")
                    };
                    if whole && socket.write_all(OK).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { app, seen }
    }

    fn text(&self) -> String {
        self.seen.lock().iter().map(|bytes| String::from_utf8_lossy(bytes)).collect()
    }
}

/// What must not be forwarded, and the answer to it.
fn table() -> Vec<(&'static str, Vec<u8>, u16)> {
    let chunked = |chunks: &str| format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
    let get = |headers: &str| format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
    let post = |headers: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\nhello0\r\n\r\n");
    let text: [(&'static str, String, u16); 33] = [
        ("length and chunks", post("content-length: 5\r\ntransfer-encoding: chunked\r\n"), 400),
        ("chunks and length", post("transfer-encoding: chunked\r\ncontent-length: 5\r\n"), 400),
        ("two lengths that differ", post("content-length: 5\r\ncontent-length: 6\r\n"), 400),
        ("two lengths that are the same", post("content-length: 5\r\ncontent-length: 5\r\n"), 400),
        ("a list of lengths", post("content-length: 5, 5\r\n"), 400),
        ("a length with a sign", post("content-length: +5\r\n"), 400),
        ("a length beyond 64 bits", post("content-length: 18446744073709551621\r\n"), 400),
        ("another coding", post("transfer-encoding: gzip, chunked\r\n"), 400),
        ("a coding that is hidden", post("transfer-encoding: \x0bchunked\r\n"), 400),
        ("chunks in HTTP/1.0", "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400),
        ("a bare LF in the first line", "GET / HTTP/1.1\nhost: a\r\n\r\n".to_owned(), 400),
        ("a bare LF after a header", get("a: b\nc: d\r\n"), 400),
        ("a bare LF at the end", "GET / HTTP/1.1\r\nhost: a\r\n\n".to_owned(), 400),
        ("a bare CR in a value", get("a: b\rc: d\r\n"), 400),
        ("a folded header", get("a: b\r\n c\r\n"), 400),
        ("NUL in a value", get("a: b\0c\r\n"), 400),
        ("NUL in a name", get("a\0: b\r\n"), 400),
        ("a space before the colon", get("content-length : 5\r\n"), 400),
        ("no colon", get("a\r\n"), 400),
        ("no name", get(": b\r\n"), 400),
        ("two hosts", get("host: b\r\nconnection: close\r\n"), 400),
        ("two hosts that are the same", get("host: a\r\nconnection: close\r\n"), 400),
        ("no host", "GET / HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 400),
        ("a tunnel", "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n".to_owned(), 400),
        ("a chunk near the end of 64 bits", chunked("fffffffffffffff0\r\nhello\r\n0\r\n\r\n"), 400),
        ("a chunk beyond 64 bits", chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), 400),
        ("a chunk with a sign", chunked("+5\r\nhello\r\n0\r\n\r\n"), 400),
        ("a chunk whose line ends in LF", chunked("5;a\nhello\r\n0\r\n\r\n"), 400),
        ("a chunk without its end", chunked("5\r\nhello0\r\n\r\n"), 400),
        ("a folded trailer", chunked("0\r\na: b\r\n c\r\n\r\n"), 400),
        ("101 headers", get(&"a: b\r\n".repeat(100)), 431),
        ("64 KiB of headers", get(&format!("a: {}\r\n", "b".repeat(64 * 1024))), 431),
        ("a target of 64 KiB", format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(64 * 1024)), 431),
    ];
    text.map(|(what, text, status)| (what, text.into_bytes(), status)).into()
}

/// What only a declared port takes for HTTP at all.
fn table_of_lines() -> Vec<(&'static str, Vec<u8>, u16)> {
    [
        ("a method that is no token", &b"G(T / HTTP/1.1\r\nhost: a\r\n\r\n"[..]),
        ("two spaces", b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("no version", b"GET /\r\nhost: a\r\n\r\n"),
        ("an unknown version", b"GET / HTTP/1.2\r\nhost: a\r\n\r\n"),
        ("NUL in the target", b"GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("a target that is no URI", b"GET http://[::1/ HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("a space at the beginning", b" GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("an LF at the beginning", b"\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ]
    .map(|(what, bytes)| (what, bytes.to_vec(), 400))
    .into()
}

/// Sends the parts one after the other and returns the answers.
async fn send(address: SocketAddr, parts: impl IntoIterator<Item = &[u8]>) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = socket.split();
    let mut answer = Vec::new();
    let written = async {
        for part in parts {
            // May have been answered, and closed, in the middle.
            if writer.write_all(part).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (read, ()) = soon(async { tokio::join!(reader.read_to_end(&mut answer), written) }).await;
    read.unwrap();
    String::from_utf8(answer).unwrap()
}

#[track_caller]
fn is_refused(what: &str, answer: &str, status: u16) {
    let code = if status == 431 { "head-too-large" } else { "bad-request" };
    assert_eq!(answer.get(9..12), Some(status.to_string().as_str()), "{what}: {answer}");
    assert!(answer.contains(&format!("mesh-error: {code}\r\n")), "{what}: {answer}");
}

async fn nothing_gets_through(pair: &Pair, oracle: &Oracle, table: Vec<(&'static str, Vec<u8>, u16)>) {
    for (what, bytes, status) in table {
        for (by, address) in [("both proxies", pair.client.outbound), ("inbound", pair.server.inbound)] {
            let what = format!("{what}, by {by}");
            is_refused(&what, &send(address, [&bytes[..]]).await, status);
            // A chunk comes after a head that has been forwarded by then.
            if bytes.len() < 1024 && !what.contains("chunk ") && !what.contains("trailer") {
                is_refused(&format!("{what}, byte by byte"), &send(address, bytes.chunks(1)).await, status);
            }
        }
        assert_eq!(oracle.text(), "", "{what}");
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_with_a_code_and_never_forwarded() {
    for protocol in [Protocol::Http1, Protocol::Detect] {
        let oracle = Oracle::new().await;
        let pair = pair(oracle.app.address, protocol);
        nothing_gets_through(&pair, &oracle, table()).await;
        if protocol == Protocol::Http1 {
            nothing_gets_through(&pair, &oracle, table_of_lines()).await;
        }
        assert!(!pair.server.metrics().contains(r#"tls="true""#), "a meshed client's proxy forwarded one");
    }
}

#[tokio::test]
async fn what_came_before_a_malformed_request_is_answered_and_what_comes_after_it_is_not() {
    let oracle = Oracle::new().await;
    let pair = pair(oracle.app.address, Protocol::Http1);
    let bytes = b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\nhost: a\r\n\r\nGET /3 HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = send(pair.client.outbound, [&bytes[..]]).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\n\r\nokHTTP/1.1 400"), "{answer}");
    assert_eq!((answer.matches("HTTP/1.1 ").count(), oracle.text().matches("HTTP/1.1").count()), (2, 1));
    pair.client.ended_with("outbound", "bad-request").await;
}

#[tokio::test]
async fn a_chunk_that_breaks_a_request_on_its_way_never_ends_it() {
    let oracle = Oracle::new().await;
    let pair = pair(oracle.app.address, Protocol::Http1);
    let parts = [
        &b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"[..],
        b"fffffffffffffff0\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    socket.write_all(parts[0]).await.unwrap();
    soon(async {
        while !oracle.text().contains("abc") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    socket.write_all(parts[1]).await.unwrap();
    let mut answer = String::new();
    let _ = soon(socket.read_to_string(&mut answer)).await;
    // The application of this test answers early; whatever comes, it is one answer.
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{answer}");
    let seen = oracle.text();
    assert!(seen.ends_with("3\r\nabc\r\n") && !seen.contains("/2"), "{seen}");
}

#[tokio::test]
async fn a_refused_request_is_shown_with_its_line_and_code() {
    let oracle = Oracle::new().await;
    let pair = pair(oracle.app.address, Protocol::Http1);
    let mut tap = pair.client.tap.watch(TapFilter::default()).await.unwrap();
    for (line, method, path) in [("PUT /a?b HTTP/1.1", "PUT", "/a"), ("PUT /a?b HTTP/1.5", "-", "*")] {
        send(pair.client.outbound, [format!("{line}\r\na : b\r\n\r\n").as_bytes()]).await;
        let event = soon(tap.recv()).await.unwrap();
        let request = event.request.as_ref().unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str(), request.status), (method, path, Some(400)));
        assert_eq!(event.outcome, "bad-request");
    }
}
