//! The end of a proxy: what is open and what still arrives is served, and clients are asked to go elsewhere.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use mesh_proto::workload::Protocol;
use mesh_proxy::drain::Drained;
use mesh_runtime::tasks::Tasks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{App, SOON, answering, pair, soon};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";

#[tokio::test]
async fn a_draining_proxy_serves_what_arrives_and_ends_when_clients_have_let_go() {
    let app = answering().await;
    let pair = pair(app.address, Protocol::Http1);
    let mut open = TcpStream::connect(pair.client.outbound).await.unwrap();
    open.write_all(GET).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        soon(open.read_buf(&mut answer)).await.unwrap();
    }
    pair.client.drain.start();
    pair.server.drain.start();
    // A connection that was open, and one that comes only now.
    for mut socket in [open, TcpStream::connect(pair.client.outbound).await.unwrap()] {
        socket.write_all(GET).await.unwrap();
        let mut answer = String::new();
        soon(socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("ok"), "{answer}");
    }
    for pod in [&pair.client, &pair.server] {
        assert_eq!(pod.drain.finish(SOON).await, Drained::Idle);
    }
}

#[tokio::test]
async fn streams_are_finished_after_goaway() {
    let tasks = Tasks::new();
    let executor = tasks.executor("app");
    let (begun, has_begun) = tokio::sync::mpsc::unbounded_channel();
    let (go, may_go) = tokio::sync::watch::channel(false);
    let app = App::new(move |socket| {
        let (executor, begun, may_go) = (executor.clone(), begun.clone(), may_go.clone());
        async move {
            let service = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
                let (begun, mut may_go) = (begun.clone(), may_go.clone());
                async move {
                    begun.send(()).unwrap();
                    may_go.wait_for(|go| *go).await.unwrap();
                    Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<Bytes>::new()))
                }
            });
            let server = hyper::server::conn::http2::Builder::new(executor);
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        }
    })
    .await;
    let pair = pair(app.address, Protocol::Http2);
    let socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(tasks.executor("client"), TokioIo::new(socket)).await.unwrap();
    let (ended, connection_ended) = tokio::sync::oneshot::channel();
    tasks.spawn("client", async move {
        let _ = ended.send(connection.await);
    });
    let answer = sender.send_request(Request::get("http://web/").body(Empty::<Bytes>::new()).unwrap());
    let talk = async {
        let response = answer.await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
    };
    let conduct = async {
        let mut has_begun = has_begun;
        has_begun.recv().await.unwrap();
        pair.client.drain.start();
        pair.server.drain.start();
        go.send_replace(true);
    };
    soon(async { tokio::join!(talk, conduct) }).await;
    // The pod's own application may ask others for as long as it lives: its connection ends with the proxy.
    let (ended, drained) = soon(async { tokio::join!(connection_ended, pair.client.drain.finish(SOON)) }).await;
    ended.unwrap().unwrap();
    assert_eq!(drained, Drained::Idle);
}

#[tokio::test]
async fn what_is_left_at_the_deadline_is_cut_and_seen_to_be_cut() {
    let app = App::new(|mut socket| async move {
        let _ = socket.write_all(b"hi").await;
        let _ = socket.read_u8().await;
    })
    .await;
    let pair = pair(app.address, Protocol::Opaque);
    let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    let mut read = [0; 2];
    soon(socket.read_exact(&mut read)).await.unwrap();
    pair.client.drain.start();
    assert_eq!(pair.client.drain.finish(std::time::Duration::from_millis(1)).await, Drained::Cut(1));
    let error = soon(socket.read(&mut read)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn no_request_is_lost_while_the_servers_proxy_drains() {
    let app = answering().await;
    let pair = pair(app.address, Protocol::Http1);
    let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    for sent in 0..300 {
        if sent == 20 {
            pair.server.drain.start();
        }
        socket.write_all(GET).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok") {
            let read = soon(socket.read_buf(&mut answer)).await.unwrap();
            assert!(
                read > 0 && !answer.starts_with(b"HTTP/1.1 5"),
                "request {sent}: {}",
                String::from_utf8_lossy(&answer)
            );
        }
    }
}

#[tokio::test]
async fn who_comes_by_http2_while_it_drains_is_served() {
    let tasks = Tasks::new();
    let executor = tasks.executor("app");
    let app = App::new(move |socket| {
        let executor = executor.clone();
        async move {
            let service = hyper::service::service_fn(async |_: Request<hyper::body::Incoming>| {
                Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<Bytes>::new()))
            });
            let server = hyper::server::conn::http2::Builder::new(executor);
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        }
    })
    .await;
    let pair = pair(app.address, Protocol::Http2);
    pair.client.drain.start();
    pair.server.drain.start();
    // A connection each: which of two things a task looks at first was left to chance once.
    for _ in 0..16 {
        let socket = TcpStream::connect(pair.client.outbound).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(tasks.executor("client"), TokioIo::new(socket)).await.unwrap();
        tasks.spawn("client", async move { drop(connection.await) });
        let request = Request::get("http://web/").body(Empty::<Bytes>::new()).unwrap();
        let response = soon(sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}
