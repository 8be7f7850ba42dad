//! Who ended a connection, as both proxies tell it afterwards.

use mesh_proto::{admin::Closed, workload::Protocol};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{App, Authority, Pair, Pod, answering, client, closed_port, exchange, pair, plain, soon, until};

/// What the application does once a client has sent a byte.
#[derive(Clone, Copy)]
enum Then {
    Ends,
    Resets,
    ReadsOn,
}

async fn greeting(then: Then) -> App {
    App::new(move |mut socket| async move {
        let greeted = socket.write_all(b"hi").await.is_ok() && socket.read_exact(&mut [0]).await.is_ok();
        match then {
            Then::Ends => assert!(greeted && socket.shutdown().await.is_ok()),
            Then::Resets => return reset(socket),
            Then::ReadsOn => {}
        }
        let _ = socket.read(&mut [0]).await;
    })
    .await
}

fn reset(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

/// A client that was greeted, through both proxies.
async fn greeted(app: &App) -> (Pair, TcpStream) {
    let pair = pair(app.address, Protocol::Opaque);
    let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    soon(socket.read_exact(&mut [0; 2])).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    (pair, socket)
}

/// The link to the other proxy broke off; whether as a reset depends on what was still to be read.
async fn broken_off(pod: &Pod) {
    let closed = closed(pod).await;
    assert!(closed.by == "peer-proxy" && ["cut", "reset"].contains(&closed.reason.as_str()), "{closed:?}");
}

/// The one connection that has ended at this proxy is of this kind, and counted so.
async fn ended(pod: &Pod, by: &str, reason: &str) -> Closed {
    let closed = closed(pod).await;
    assert_eq!((closed.by.as_str(), closed.reason.as_str()), (by, reason), "{closed:?}");
    let direction = &closed.connection.direction;
    let counted = format!("connection_close_total{{direction=\"{direction}\",by=\"{by}\",reason=\"{reason}\"}} 1");
    pod.counted(&counted).await;
    closed
}

async fn closed(pod: &Pod) -> Closed {
    until(async || {
        let mut page = pod.inspect.connections().await.unwrap();
        assert!(page.closed.len() < 2 && page.forgotten == 0, "{page:?}");
        page.closed.pop().ok_or_else(|| format!("none has ended: {page:?}"))
    })
    .await
}

#[tokio::test]
async fn an_end_of_bytes_is_the_applications_whose_it_was_and_passed_on() {
    let app = greeting(Then::ReadsOn).await;
    let (pair, socket) = greeted(&app).await;
    drop(socket);
    let near = ended(&pair.client, "app", "end").await;
    assert_eq!((near.connection.bytes_in, near.connection.bytes_out), (1, 2));
    ended(&pair.server, "peer-app", "end").await;

    let app = greeting(Then::Ends).await;
    let (pair, mut socket) = greeted(&app).await;
    soon(socket.read_to_end(&mut Vec::new())).await.unwrap();
    drop(socket);
    ended(&pair.client, "peer-app", "end").await;
    ended(&pair.server, "app", "end").await;
}

#[tokio::test]
async fn a_reset_is_told_where_it_happened_and_a_cut_link_at_the_other_end() {
    let app = greeting(Then::ReadsOn).await;
    let (pair, socket) = greeted(&app).await;
    reset(socket);
    ended(&pair.client, "app", "reset").await;
    broken_off(&pair.server).await;

    let app = greeting(Then::Resets).await;
    let (pair, _socket) = greeted(&app).await;
    broken_off(&pair.client).await;
    ended(&pair.server, "app", "reset").await;
}

#[tokio::test]
async fn the_end_of_the_drain_is_ours() {
    let app = greeting(Then::ReadsOn).await;
    let (pair, _socket) = greeted(&app).await;
    pair.server.drain.abort();
    broken_off(&pair.client).await;
    pair.server.counted(r#"connection_close_total{direction="inbound",by="us",reason="drain-over"} 1"#).await;
}

const GET: &str = "GET / HTTP/1.1\r\nhost: web\r\n\r\n";

async fn asked(pod: &Pod) -> TcpStream {
    let mut socket = TcpStream::connect(pod.outbound).await.unwrap();
    socket.write_all(GET.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        assert!(soon(socket.read_buf(&mut answer)).await.unwrap() > 0);
    }
    socket
}

#[tokio::test]
async fn an_http_connection_that_its_client_leaves_ends_there_and_the_pooled_one_lives_on() {
    let app = answering().await;
    let pair = pair(app.address, Protocol::Http1);
    let socket = asked(&pair.client).await;
    drop(socket);
    let near = ended(&pair.client, "app", "end").await;
    assert_eq!((near.connection.protocol.as_str(), near.connection.requests), ("http/1", 1));
    let page = pair.server.inspect.connections().await.unwrap();
    assert_eq!((page.items.len(), page.closed), (1, vec![]));
}

#[tokio::test]
async fn a_client_that_resets_or_asks_for_the_end_is_told_apart() {
    let app = answering().await;
    let first = pair(app.address, Protocol::Http1);
    reset(asked(&first.client).await);
    ended(&first.client, "app", "reset").await;

    let second = pair(app.address, Protocol::Http1);
    let answer = exchange(second.client.outbound, "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("ok"), "{answer}");
    ended(&second.client, "us", "done").await;
}

#[tokio::test]
async fn a_drain_ends_an_idle_connection() {
    let app = answering().await;
    let pair = pair(app.address, Protocol::Http1);
    let mut socket = asked(&pair.client).await;
    pair.client.drain.start();
    assert_eq!(soon(socket.read(&mut [0])).await.unwrap(), 0);
    ended(&pair.client, "us", "drain").await;
}

#[tokio::test]
async fn what_is_refused_is_ended_by_us_with_the_code() {
    let authority = Authority::new();
    let pod = client(&authority, Protocol::Opaque, vec![plain(closed_port().await)]);
    // It may be reset before it is known to be open.
    let _refused = TcpStream::connect(pod.outbound).await;
    ended(&pod, "us", "connect-failed").await;

    let app = answering().await;
    let pod = pair(app.address, Protocol::Http1).client;
    let answer = exchange(pod.outbound, "GET / HTTP/1.1\r\nhost: web\r\ncontent-length: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    ended(&pod, "us", "bad-request").await;
}
