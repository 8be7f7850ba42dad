//! The second attempt of a request whose kept connection the application closes just when it is used again: made where the
//! method says that twice is the same as once, and nowhere else.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;
use mesh_proto::workload::Protocol;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::stage::{App, Stage, soon};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What the application does when it has a request.
#[derive(Debug, Clone, Copy)]
enum Act {
    Answer,
    /// And ends the connection without having said that it would.
    AnswerAndEnd,
    End,
    AnswerHalfAndEnd,
}

/// How often each request was seen, by its path.
type Seen = Arc<Mutex<BTreeMap<String, usize>>>;

/// Does as `acts` says with the first, the second, … request of each connection; the last is for all that follow.
fn acting(acts: &'static [Act], seen: &Seen) -> impl Fn(TcpStream) -> BoxFuture<'static, ()> + use<> {
    let seen = Arc::clone(seen);
    move |mut socket| {
        let seen = Arc::clone(&seen);
        Box::pin(async move {
            for number in 0.. {
                let Some(path) = read_path(&mut socket).await else { return };
                *seen.lock().entry(path).or_default() += 1;
                match acts[number.min(acts.len() - 1)] {
                    Act::Answer => socket.write_all(OK).await.unwrap(),
                    Act::AnswerAndEnd => return socket.write_all(OK).await.unwrap(),
                    Act::End => return,
                    Act::AnswerHalfAndEnd => return socket.write_all(&OK[..OK.len() / 2]).await.unwrap(),
                }
            }
        })
    }
}

/// Of a body.
const END: &[u8] = b"hello";

/// The path of the next request, which ends with [`END`] where it has a body; none at the end.
async fn read_path(socket: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let whole = if read.starts_with(b"PUT") { END } else { b"\r\n\r\n" };
        if read.ends_with(whole) {
            return String::from_utf8(read).ok()?.split(' ').nth(1).map(str::to_owned);
        }
        if !matches!(socket.read_buf(&mut read).await, Ok(1..)) {
            return None;
        }
    }
}

fn request(method: &str, path: &str, body: usize) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: web\r\ncontent-length: {body}\r\n\r\n").into_bytes();
    if body > 0 {
        request.resize(request.len() + body - END.len(), b'a');
        request.extend_from_slice(END);
    }
    request
}

/// Asks on a connection of the client, and returns the whole answer.
async fn ask(client: &mut TcpStream, method: &str, path: &str, body: usize) -> String {
    client.write_all(&request(method, path, body)).await.unwrap();
    let mut answer = Vec::new();
    soon(async {
        // The answers of the mesh end with their reason, which is a sentence.
        while !answer.ends_with(b"ok") && !answer.ends_with(b".") {
            assert!(client.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
    })
    .await;
    String::from_utf8(answer).unwrap()
}

pub(crate) async fn a_request_on_a_stale_connection_is_sent_once_more_where_twice_is_once(stage: &impl Stage) {
    use Act::{Answer, AnswerHalfAndEnd, End};
    const STALE: &[Act] = &[Answer, End];
    const BROKEN: &[Act] = &[Answer, AnswerHalfAndEnd];
    for ip in stage.families() {
        for (acts, method, body, answered, times) in [
            (STALE, "GET", 0, true, 2),
            (STALE, "DELETE", 0, true, 2),
            (STALE, "POST", 0, false, 1),
            (STALE, "PUT", 5, true, 2),
            (STALE, "PUT", 16 * 1024, true, 2),
            // Its body is gone.
            (STALE, "PUT", 16 * 1024 + 1, false, 1),
            (STALE, "PUT", 100_000, false, 1),
            (BROKEN, "GET", 0, false, 1),
            (BROKEN, "POST", 0, false, 1),
        ] {
            let (listener, way) = stage.open(Protocol::Http1, ip);
            let seen = Seen::default();
            let _app = App::on(listener, acting(acts, &seen));
            let mut client = way.connect();
            assert!(ask(&mut client, "GET", "/first", 0).await.ends_with("ok"));
            let answer = ask(&mut client, method, "/again", body).await;
            let what = format!("{method} {body} {acts:?} {ip}: {answer}");
            assert_eq!(answer.ends_with("ok"), answered, "{what}");
            assert!(answered || answer.contains("mesh-error: upstream-reset\r\n"), "{what}");
            assert_eq!(seen.lock()["/again"], times, "{what}");
        }
    }
}

pub(crate) async fn a_connection_that_was_never_used_is_not_stale(stage: &impl Stage) {
    for ip in stage.families() {
        let (listener, way) = stage.open(Protocol::Http1, ip);
        let seen = Seen::default();
        let _app = App::on(listener, acting(&[Act::End], &seen));
        let answer = ask(&mut way.connect(), "GET", "/fresh", 0).await;
        assert!(answer.contains("mesh-error: upstream-reset\r\n"), "{answer}");
        assert_eq!(seen.lock()["/fresh"], 1, "{ip}");
    }
}

pub(crate) async fn an_application_that_ends_its_connections_whenever_it_likes_costs_no_idempotent_request(
    stage: &impl Stage,
) {
    const EACH: usize = 200;
    for ip in stage.families() {
        let (listener, way) = stage.open(Protocol::Http1, ip);
        let seen = Seen::default();
        let _app = App::on(listener, acting(&[Act::Answer, Act::Answer, Act::AnswerAndEnd], &seen));
        let mut client = way.connect();
        for n in 0..EACH {
            let answer = ask(&mut client, "GET", &format!("/get/{n}"), 0).await;
            assert!(answer.ends_with("ok"), "{n}, {ip}: {answer}");
            // The end of the connection and this request may cross: then it fails, and was seen once at most.
            let answer = ask(&mut client, "POST", &format!("/post/{n}"), 0).await;
            assert!(answer.ends_with("ok") || answer.contains("mesh-error: upstream-reset\r\n"), "{n}, {ip}: {answer}");
        }
        for (path, times) in seen.lock().iter() {
            let most = if path.starts_with("/get") { 2 } else { 1 };
            assert!(*times <= most, "{path} was seen {times} times, {ip}");
        }
    }
}
