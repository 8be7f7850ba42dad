//! Servers that keep to no rule: whatever they say, the client is told by status and code or sees that an answer broke, nobody
//! gets the answer of another, and the proxy serves on.

mod http2;

use std::{net::SocketAddr, sync::Arc};

use mesh_proto::workload::Protocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{App, Authority, Pod, SOON, allow, client, meshed, plain, server};

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What follows an answer, and then the server's silence.
#[derive(Clone, Copy)]
enum Then {
    Closes,
    Waits,
    /// The same, again and again.
    Repeats,
}

/// Answers a request for `/good` well, and any other with `bytes`.
async fn hostile(bytes: Vec<u8>, then: Then) -> App {
    let bytes = Arc::new(bytes);
    App::new(move |socket| answer(socket, Arc::clone(&bytes), then)).await
}

async fn answer(mut socket: TcpStream, bytes: Arc<Vec<u8>>, then: Then) {
    loop {
        let Some(path) = read_path(&mut socket).await else { return };
        let is_good = path == "/good";
        let answer = if is_good { GOOD.as_bytes() } else { &bytes[..] };
        let mut written = socket.write_all(answer).await;
        while matches!(then, Then::Repeats) && !is_good && written.is_ok() {
            written = socket.write_all(answer).await;
        }
        if written.is_err() || (!is_good && matches!(then, Then::Closes)) {
            return;
        }
    }
}

/// The path of the next request.
async fn read_path(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    String::from_utf8_lossy(&head).split(' ').nth(1).map(str::to_owned)
}

/// A client whose application is the hostile one, outside the mesh, and one whose application's own proxy has to bear it.
struct Both {
    plain: Pod,
    meshed: Pod,
    server: Pod,
}

impl Both {
    fn of(app: &App, protocol: Protocol) -> Self {
        let authority = Authority::new();
        let server = server(&authority, app.address, Some(allow(protocol)));
        Self {
            plain: client(&authority, protocol, vec![plain(app.address)]),
            meshed: client(&authority, protocol, vec![meshed(server.inbound, "server")]),
            server,
        }
    }

    /// By the client's proxy, by both, and by the server's alone.
    fn ways(&self) -> [(&'static str, SocketAddr); 3] {
        [("outside", self.plain.outbound), ("meshed", self.meshed.outbound), ("inbound", self.server.inbound)]
    }
}

/// One request; whatever came until the other side ended, or broke.
async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(SOON, socket.read_to_end(&mut answer)).await;
    let what = if ended.is_err() { " (and no end)" } else { "" };
    String::from_utf8_lossy(&answer).into_owned() + what
}

#[track_caller]
fn is_good(what: &str, answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{what}: {answer}");
}

#[tokio::test]
async fn an_answer_that_is_none_becomes_a_502_with_a_code() {
    use Then::{Closes, Repeats, Waits};
    let (not_http, reset) = ("upstream-protocol-error", "upstream-reset");
    let ok = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\nhello").into_bytes();
    let table: [(&str, Vec<u8>, Then, &str); 21] = [
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Waits, not_http),
        ("a banner", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), Waits, not_http),
        ("zeros", vec![0; 4096], Waits, not_http),
        ("HTTP/3.1", b"HTTP/3.1 200 OK\r\n\r\n".to_vec(), Waits, not_http),
        ("a status of two digits", b"HTTP/1.1 20 OK\r\n\r\n".to_vec(), Waits, not_http),
        ("nothing", Vec::new(), Closes, reset),
        ("half a head", b"HTTP/1.1 200 OK\r\ncontent-le".to_vec(), Closes, reset),
        ("64 KiB of headers", ok(&format!("a: {}\r\n", "b".repeat(64 * 1024))), Waits, not_http),
        ("a header without end", b"HTTP/1.1 200 OK\r\na: bbbbbbbbbbbbbbbbbbbbbbbbbbbbb".to_vec(), Repeats, not_http),
        ("101 headers", ok(&"a: b\r\n".repeat(101)), Waits, not_http),
        ("NUL in a value", ok("a: b\0c\r\n"), Waits, not_http),
        ("a space in a name", ok("a b: c\r\n"), Waits, not_http),
        ("two lengths that differ", ok("content-length: 5\r\ncontent-length: 4\r\n"), Waits, not_http),
        ("two lengths that are the same", ok("content-length: 5\r\ncontent-length: 5\r\n"), Waits, not_http),
        ("a list of lengths", ok("content-length: 5, 5\r\n"), Waits, not_http),
        ("a length with a sign", ok("content-length: +5\r\n"), Waits, not_http),
        ("a length beyond 64 bits", ok("content-length: 18446744073709551621\r\n"), Waits, not_http),
        ("length and chunks", ok("content-length: 5\r\ntransfer-encoding: chunked\r\n"), Waits, not_http),
        ("another coding", ok("transfer-encoding: gzip, chunked\r\n"), Waits, not_http),
        ("an upgrade", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n".to_vec(), Waits, not_http),
        ("103 without end", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec(), Repeats, not_http),
    ];
    for (what, bytes, then, code) in table {
        let app = hostile(bytes, then).await;
        let both = Both::of(&app, Protocol::Http1);
        for (by, address) in both.ways() {
            let what = format!("{what}, {by}");
            let answer = ask(address, "GET", "/").await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{what}: {}", &answer[..answer.len().min(1024)]);
            assert!(answer.contains(&format!("mesh-error: {code}\r\n")), "{what}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
            is_good(&what, &ask(address, "GET", "/good").await);
        }
        both.plain.ended_with("outbound", code).await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_in_its_body_is_seen_to_be_broken() {
    use Then::{Closes, Repeats, Waits};
    let chunks = |chunks: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}").into_bytes();
    let table: [(&str, Vec<u8>, Then); 6] = [
        ("fewer bytes than said", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello".to_vec(), Closes),
        ("a chunk that is none", chunks("5\r\nhello\r\nzz\r\nworld\r\n0\r\n\r\n"), Waits),
        ("a chunk beyond 64 bits", chunks("5\r\nhello\r\n10000000000000005\r\nworld\r\n0\r\n\r\n"), Waits),
        ("chunks without end", chunks("5\r\nhello\r\n"), Closes),
        ("an extension without end", chunks("5;a=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"), Repeats),
        ("trailers without end", chunks(&format!("0\r\na: {}", "b".repeat(1 << 20))), Waits),
    ];
    for (what, bytes, then) in table {
        let app = hostile(bytes, then).await;
        let both = Both::of(&app, Protocol::Http1);
        for (by, address) in both.ways() {
            let what = format!("{what}, {by}");
            let answer = ask(address, "GET", "/").await;
            let whole = answer.ends_with("\r\n0\r\n\r\n") || answer.ends_with("helloworld");
            assert!(!whole && !answer.contains("zz"), "{what}: {answer}");
            assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
            is_good(&what, &ask(address, "GET", "/good").await);
        }
    }
}

/// An answer that says the path.
type Answer = fn(&str) -> String;

/// An application that says the path it was asked for, and then, unasked, what nobody must ever get.
async fn poisoning(answer: Answer) -> App {
    App::new(move |mut socket| async move {
        while let Some(path) = read_path(&mut socket).await {
            let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
            if socket.write_all((answer(&path) + poison).as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_a_server_says_unasked_is_nobodys_answer() {
    let table: [(&str, &str, Answer); 6] = [
        ("two answers", "GET", |path| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())),
        ("an answer after chunks", "GET", |path| {
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{path}\r\n0\r\n\r\n", path.len())
        }),
        ("more bytes than said", "GET", |path| {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}poison", path.len())
        }),
        ("a body where there is none", "GET", |path| {
            format!("HTTP/1.1 204 No Content\r\nx-path: {path}\r\ncontent-length: 6\r\n\r\npoison")
        }),
        ("a body of 304", "GET", |path| {
            format!("HTTP/1.1 304 Not Modified\r\nx-path: {path}\r\ncontent-length: 6\r\n\r\npoison")
        }),
        ("a body of HEAD", "HEAD", |path| {
            format!("HTTP/1.1 200 OK\r\nx-path: {path}\r\ncontent-length: 6\r\n\r\npoison")
        }),
    ];
    for (what, method, said) in table {
        let app = poisoning(said).await;
        let both = Both::of(&app, Protocol::Http1);
        for (by, address) in both.ways() {
            // Each on a connection of its own, so that what follows is asked by somebody else; several at once.
            for round in 0..20 {
                let paths: Vec<String> = (0..4).map(|client| format!("/{round}-{client}")).collect();
                let answers = paths.iter().map(|path| ask(address, method, path));
                let answers = futures_util::future::join_all(answers).await;
                for (path, answer) in paths.iter().zip(answers) {
                    assert!(answer.contains(path.as_str()), "{what}, {by}, {path}: {answer}");
                    assert!(!answer.contains("poison"), "{what}, {by}, {path}: {answer}");
                    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}, {by}, {path}: {answer}");
                }
            }
        }
    }
}
