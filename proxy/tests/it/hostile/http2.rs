//! The same of HTTP/2, frame by frame.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mesh_proto::workload::Protocol;
use mesh_runtime::tasks::Tasks;
use mesh_testbed::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Both;
use crate::support::{App, soon};

/// `:status: 200`, by its index.
const OK: &[u8] = b"\x88";

/// What the server says to a request on this stream.
type Says = fn(u32) -> Vec<u8>;

/// Speaks HTTP/2 well until the first request, then says `says` and nothing more.
async fn hostile(says: Says) -> App {
    let says = Arc::new(says);
    App::new(move |socket| serve(socket, Arc::clone(&says))).await
}

async fn serve(mut socket: TcpStream, says: Arc<Says>) {
    let mut preface = [0; 24];
    if socket.read_exact(&mut preface).await.is_err() || socket.write_all(&frame(SETTINGS, 0, 0, &[])).await.is_err() {
        return;
    }
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).await.is_err() {
            return;
        }
        let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        if socket.read_exact(&mut payload).await.is_err() {
            return;
        }
        let answer = match head[3] {
            SETTINGS if head[4] & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
            HEADERS => says(stream),
            _ => continue,
        };
        if socket.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The answer to one request, or the reason of the reset of its stream.
async fn ask(address: std::net::SocketAddr) -> Result<Response<Incoming>, hyper::Error> {
    let tasks = Tasks::new();
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(tasks.executor("client"), TokioIo::new(socket)).await.unwrap();
    tasks.spawn("client", async move {
        let _ = connection.await;
    });
    let request = Request::get("http://web/").body(Empty::<Bytes>::new()).unwrap();
    soon(sender.send_request(request)).await
}

#[tokio::test]
async fn frames_that_are_no_answer_become_a_502_with_a_code() {
    let table: [(&str, Says); 13] = [
        ("HTTP/1", |_| b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n".to_vec()),
        ("a frame of 16 MiB", |n| [&[0xff; 3][..], &frame(DATA, 0, n, &[])[3..]].concat()),
        ("no status", |n| frame(HEADERS, END_HEADERS | END_STREAM, n, b"\x00\x01x\x01y")),
        ("an index that does not exist", |n| frame(HEADERS, END_HEADERS | END_STREAM, n, b"\xff\x80\x01")),
        ("DATA before the head", |n| frame(DATA, 0, n, b"hello")),
        ("an answer to nobody's request", |_| frame(HEADERS, END_HEADERS, 99, OK)),
        ("a promise", |n| frame(PUSH_PROMISE, END_HEADERS, n, b"\x00\x00\x00\x02\x82\x86\x84")),
        ("CONTINUATION of nothing", |n| frame(CONTINUATION, END_HEADERS, n, OK)),
        ("CONTINUATION without end", |n| {
            let mut frames = frame(HEADERS, 0, n, OK);
            for _ in 0..10_000 {
                frames.extend(frame(CONTINUATION, 0, n, b"\x00\x01x\x01y"));
            }
            frames
        }),
        ("a window of more than 31 bits", |_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("a window of zero", |n| frame(WINDOW_UPDATE, 0, n, &[0; 4])),
        ("padding longer than the frame", |n| frame(HEADERS, END_HEADERS | 8, n, b"\xff\x88")),
        ("settings of five bytes", |_| frame(SETTINGS, 0, 0, &[0; 5])),
    ];
    for (what, says) in table {
        let app = hostile(says).await;
        let both = Both::of(&app, Protocol::Http2);
        for (by, address) in both.ways() {
            let answer = ask(address).await.unwrap_or_else(|error| panic!("{what}, {by}: {error:?}"));
            let code = answer.headers().get("mesh-error").map(|code| code.to_str().unwrap().to_owned());
            let expected = (502, Some("upstream-protocol-error"));
            assert_eq!((answer.status().as_u16(), code.as_deref()), expected, "{what}, {by}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_the_server_gives_up_is_reset_and_not_answered() {
    let table: [(&str, Says, h2::Reason); 2] = [
        ("reset", |n| frame(RST_STREAM, 0, n, &[0, 0, 0, 0xb]), h2::Reason::ENHANCE_YOUR_CALM),
        ("all of them", |_| frame(GOAWAY, 0, 0, &[0; 8]), h2::Reason::REFUSED_STREAM),
    ];
    for (what, says, reason) in table {
        let app = hostile(says).await;
        let both = Both::of(&app, Protocol::Http2);
        for (by, address) in both.ways() {
            let error = ask(address).await.expect_err(what);
            let h2 = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<h2::Error>());
            assert_eq!(h2.and_then(h2::Error::reason), Some(reason), "{what}, {by}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_gone_without_a_word_is_noticed_by_its_silence() {
    // Takes the request and then not even a PING; sent after 10 s, waited for 3 s.
    let app = App::new(|mut socket| async move {
        let mut preface = [0; 24];
        let _ = socket.write_all(&frame(SETTINGS, 0, 0, &[])).await;
        let _ = socket.read_exact(&mut preface).await;
        std::future::pending::<()>().await;
    })
    .await;
    let both = Both::of(&app, Protocol::Http2);
    let begun = tokio::time::Instant::now();
    let asked = both.ways().map(|(by, address)| async move { (by, ask(address).await) });
    for (by, answer) in futures_util::future::join_all(asked).await {
        let answer = answer.unwrap_or_else(|error| panic!("{by}: {error:?}"));
        let code = answer.headers().get("mesh-error").map(http::HeaderValue::as_bytes);
        assert_eq!((answer.status().as_u16(), code), (502, Some(&b"upstream-reset"[..])), "{by}");
    }
    assert!(begun.elapsed() >= std::time::Duration::from_secs(12), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_stream_that_breaks_in_its_body_is_seen_to_be_broken() {
    let table: [(&str, Says); 4] = [
        ("more DATA than said", |n| {
            // `content-length: 1`, by the index of its name.
            [frame(HEADERS, END_HEADERS, n, b"\x88\x0f\x0d\x011"), frame(DATA, END_STREAM, n, b"hello")].concat()
        }),
        ("less DATA than said", |n| {
            [frame(HEADERS, END_HEADERS, n, b"\x88\x0f\x0d\x019"), frame(DATA, END_STREAM, n, b"hello")].concat()
        }),
        ("a second head", |n| {
            [frame(HEADERS, END_HEADERS, n, OK), frame(DATA, 0, n, b"hello"), frame(HEADERS, END_HEADERS, n, OK)]
                .concat()
        }),
        ("padding longer than the frame", |n| {
            [frame(HEADERS, END_HEADERS, n, OK), frame(DATA, 8, n, b"\xff")].concat()
        }),
    ];
    for (what, says) in table {
        let app = hostile(says).await;
        let both = Both::of(&app, Protocol::Http2);
        for (by, address) in both.ways() {
            match ask(address).await {
                Ok(answer) if answer.status() == 200 => {
                    let body = soon(answer.into_body().collect()).await;
                    assert!(body.is_err(), "{what}, {by}: {body:?}");
                }
                Ok(answer) => assert_eq!(answer.status(), 502, "{what}, {by}"),
                Err(_reset) => {}
            }
        }
    }
}
