//! HTTP/1 through both proxies.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mesh_proto::workload::Protocol;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::support::{App, Authority, allow, client, exchange, meshed, pair, plain, server, soon};

/// Reads a head, then answers with `answer`, then reads the next, until the client ends.
async fn serve_text(socket: TcpStream, answer: &'static str) {
    let mut socket = BufReader::new(socket);
    loop {
        match read_head(&mut socket).await {
            Some(_) => socket.get_mut().write_all(answer.as_bytes()).await.unwrap(),
            None => return,
        }
    }
}

async fn read_head(socket: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    loop {
        if socket.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
        if head.ends_with("\r\n\r\n") {
            return Some(head);
        }
    }
}

const GET: &str = "GET /a?b HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-app: 1\r\n\r\nhello";

#[tokio::test]
async fn a_request_goes_through_both_proxies_and_its_answer_back() {
    let app = App::new(|socket| serve_text(socket, OK)).await;
    for protocol in [Protocol::Http1, Protocol::Detect] {
        let pair = pair(app.address, protocol);
        let answer = exchange(pair.client.outbound, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("x-app: 1\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
        let edge = r#"direction="outbound",dst_namespace="shop",dst_service="web",dst_port="80",dst_workload="",client_id="",tls="true""#;
        pair.client.counted(&format!("request_total{{{edge}}} 1")).await;
        let edge = format!(
            r#"direction="inbound",dst_namespace="shop",dst_service="",dst_port="{}",dst_workload="",client_id="spiffe://cluster.local/ns/shop/sa/client",tls="true",status_code="200",grpc_status="",classification="success""#,
            app.address.port()
        );
        pair.server.counted(&format!("response_total{{{edge}}} 1")).await;
    }
}

#[tokio::test]
async fn the_application_sees_the_request_as_it_was_but_for_the_connection() {
    let app = App::new(|socket| async move {
        let mut socket = BufReader::new(socket);
        let head = read_head(&mut socket).await.unwrap();
        let body = head.replace("\r\n", "|");
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        socket.get_mut().write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let pair = pair(app.address, Protocol::Http1);
    let request = "GET /a%20b?c=%2F HTTP/1.1\r\nHost: web:80\r\nVia: 1.0 x\r\nx-two: 1\r\nx-two: 2\r\nmesh-client-id: me\r\nconnection: close, x-hop\r\nx-hop: 1\r\n\r\n";
    let answer = exchange(pair.client.outbound, request).await;
    let seen = answer.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(seen, "GET /a%20b?c=%2F HTTP/1.1|Host: web:80|Via: 1.0 x|x-two: 1|x-two: 2||");
}

#[tokio::test]
async fn pipelined_and_kept_connections_are_reused_to_the_application() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let app = App::new(move |socket| {
        counted.fetch_add(1, Ordering::Relaxed);
        serve_text(socket, OK)
    })
    .await;
    let pair = pair(app.address, Protocol::Http1);
    let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    let two = "GET / HTTP/1.1\r\nhost: web\r\n\r\n".repeat(2);
    for _ in 0..10 {
        socket.write_all(two.as_bytes()).await.unwrap();
        for _ in 0..2 {
            let mut answer = Vec::new();
            while !answer.ends_with(b"hello") {
                soon(socket.read_buf(&mut answer)).await.unwrap();
            }
        }
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1, "20 requests over one connection");
}

#[tokio::test]
async fn a_client_that_ends_its_side_still_gets_its_answer() {
    let app = App::new(|socket| serve_text(socket, OK)).await;
    let pair = pair(app.address, Protocol::Http1);
    let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(socket.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_head() {
    let app = App::new(|socket| serve_text(socket, "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")).await;
    let pair = pair(app.address, Protocol::Http1);
    let answer = exchange(pair.client.outbound, "HEAD / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await;
    assert!(answer.contains("content-length: 1234\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");

    let app = App::new(|socket| serve_text(socket, "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n")).await;
    let pair = crate::support::pair(app.address, Protocol::Http1);
    let answer = exchange(pair.client.outbound, GET).await;
    assert!(answer.starts_with("HTTP/1.1 304") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_websocket_is_carried_both_ways() {
    let app = App::new(|socket| async move {
        let mut socket = BufReader::new(socket);
        let head = read_head(&mut socket).await.unwrap();
        assert!(head.contains("upgrade: websocket"), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        socket.get_mut().write_all(answer.as_bytes()).await.unwrap();
        let mut ping = [0; 4];
        socket.read_exact(&mut ping).await.unwrap();
        socket.get_mut().write_all(&ping).await.unwrap();
        let _ = socket.read(&mut ping).await;
    })
    .await;
    let pair = pair(app.address, Protocol::Http1);
    let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    socket
        .write_all(b"GET /ws HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert!(soon(socket.read_buf(&mut answer)).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    socket.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    soon(socket.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"ping");
}

#[tokio::test]
async fn a_code_that_the_application_sets_itself_is_removed() {
    let forged = "HTTP/1.1 503 x\r\nmesh-error: app-refused\r\ncontent-length: 0\r\n\r\n";
    let app = App::new(move |socket| serve_text(socket, forged)).await;
    let pair = pair(app.address, Protocol::Http1);
    let answer = exchange(pair.client.outbound, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503") && !answer.contains("mesh-error"), "{answer}");

    let authority = Authority::new();
    let outside = client(&authority, Protocol::Http1, vec![plain(app.address)]);
    let answer = exchange(outside.outbound, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503") && !answer.contains("mesh-error"), "{answer}");
}

#[tokio::test]
async fn a_request_that_one_application_refuses_goes_to_the_other() {
    // Answers what has come whole.
    let app = App::new(|mut socket| async move {
        let mut read = Vec::new();
        while matches!(socket.read_buf(&mut read).await, Ok(1..)) {
            let text = String::from_utf8_lossy(&read);
            let end = match text.starts_with("POST") {
                true if text.contains("chunked") => "hello\r\n0\r\n\r\n",
                true => "\r\n\r\nhello",
                false => "\r\n\r\n",
            };
            if text.ends_with(end) {
                socket.write_all(OK.as_bytes()).await.unwrap();
                read.clear();
            }
        }
    })
    .await;
    let authority = Authority::new();
    let dead = server(&authority, crate::support::closed_port().await, Some(allow(Protocol::Http1)));
    let live = server(&authority, app.address, Some(allow(Protocol::Http1)));
    let refused = || {
        let metrics = dead.metrics();
        let total = r#"mesh_error_total{direction="inbound",code="app-refused"} "#;
        metrics.lines().find_map(|line| line.strip_prefix(total)).map_or(0, |number| number.parse::<u64>().unwrap())
    };
    let small = "POST / HTTP/1.1\r\nhost: web\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    let in_chunks = "POST / HTTP/1.1\r\nhost: web\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    // A new client has no preference; one of a few tries the dead endpoint first.
    for request in [GET, small, in_chunks] {
        let before = refused();
        let tried = async {
            while refused() == before {
                let endpoints = vec![meshed(dead.inbound, "server"), meshed(live.inbound, "server")];
                let pod = client(&authority, Protocol::Http1, endpoints);
                let answer = exchange(pod.outbound, request).await;
                assert!(answer.ends_with("hello"), "{answer}");
            }
        };
        soon(tried).await;
    }
}

#[tokio::test]
async fn an_answer_that_does_not_wait_for_the_body_is_seen_by_whoever_still_sends_it() {
    let authority = Authority::new();
    let nobody = client(&authority, Protocol::Http1, vec![]);
    let dead = pair(crate::support::closed_port().await, Protocol::Http1);
    for (pod, code) in [(&nobody, "no-endpoints"), (&dead.client, "app-refused")] {
        for _ in 0..5 {
            let mut socket = TcpStream::connect(pod.outbound).await.unwrap();
            let head = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 8000000\r\n\r\n";
            socket.write_all(head.as_bytes()).await.unwrap();
            let (mut reader, mut writer) = socket.split();
            let sending = async {
                let part = vec![0; 100_000];
                for _ in 0..80 {
                    if writer.write_all(&part).await.is_err() {
                        return;
                    }
                }
            };
            let mut answer = String::new();
            let ((), read) = soon(async { tokio::join!(sending, reader.read_to_string(&mut answer)) }).await;
            read.unwrap();
            assert!(answer.contains(&format!("mesh-error: {code}\r\n")), "{answer}");
            assert!(answer.contains("connection: close\r\n"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_client_in_the_midst_of_a_body_is_told_that_the_server_ends_the_connection() {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let app = App::new(move |socket| async move {
        let mut socket = BufReader::new(socket);
        read_head(&mut socket).await;
        socket.write_all(answer).await.unwrap();
        // It neither reads on nor ends: only its word says that the rest is for nobody.
        std::future::pending::<()>().await;
    })
    .await;
    let pods = pair(app.address, Protocol::Http1);
    let head = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 8000000\r\n\r\n";
    let mut socket = TcpStream::connect(pods.client.outbound).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = soon(read_head(&mut BufReader::new(socket))).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("connection: close\r\n"), "{answer}");
}
