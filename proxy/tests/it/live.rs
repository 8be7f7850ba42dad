//! What a tap shows.

use mesh_proto::{
    server::TapService as _,
    tap::{Direction, TapFilter, TapHeader},
    workload::Protocol,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{App, closed_port, exchange, identity, pair, soon};

const GET: &str = "GET /items/7?secret=1 HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn requests_are_shown_with_both_identities_and_without_their_query() {
    let app = App::new(|mut socket| async move {
        let mut read = [0; 4096];
        let _ = socket.read(&mut read).await;
        let _ = socket.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello").await;
    })
    .await;
    let pair = pair(app.address, Protocol::Http1);
    for (pod, direction) in [(&pair.client, Direction::Outbound), (&pair.server, Direction::Inbound)] {
        let mut events = pod.tap.watch(TapFilter::default()).await.unwrap();
        exchange(pair.client.outbound, GET).await;
        let event = soon(events.recv()).await.unwrap();
        let request = event.request.unwrap();
        assert_eq!((event.direction, event.tls, event.outcome.as_str()), (direction, true, ""));
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.authority.as_str()),
            ("GET", "/items/7", "web")
        );
        assert_eq!((request.status, request.http2, event.bytes_out), (Some(201), false, 5));
        assert_eq!(event.source_identity, Some(identity("client")));
        assert_eq!(event.destination_identity, Some(identity("server")));
        if direction == Direction::Outbound {
            assert_eq!(event.service.unwrap().to_string(), "shop/web:80");
        }
    }
}

#[tokio::test]
async fn headers_and_queries_are_shown_to_those_who_ask_for_them_by_name() {
    let app = App::new(|mut socket| async move {
        let mut read = [0; 4096];
        let _ = socket.read(&mut read).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nx-id: of-answer\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let pair = pair(app.address, Protocol::Http1);
    let asks = TapFilter { show_query: true, show_headers: vec!["x-id".into()], ..TapFilter::default() };
    let mut curious = pair.server.tap.watch(asks).await.unwrap();
    let mut plain = pair.server.tap.watch(TapFilter::default()).await.unwrap();
    let secret = GET.replacen("host", "x-id: mine\r\nauthorization: hidden\r\nhost", 1);
    exchange(pair.client.outbound, &secret).await;
    let event = soon(curious.recv()).await.unwrap();
    assert!(event.answered_us.unwrap() <= event.latency_us);
    let request = event.request.unwrap();
    let header = |value: &str| vec![TapHeader { name: "x-id".into(), value: value.into() }];
    assert_eq!((request.query.as_str(), request.request_headers), ("secret=1", header("mine")));
    assert_eq!(request.response_headers, header("of-answer"));
    let request = soon(plain.recv()).await.unwrap().request.unwrap();
    assert!(request.query.is_empty() && request.request_headers.is_empty() && request.response_headers.is_empty());
}

#[tokio::test]
async fn connections_and_failures_are_shown_with_their_code() {
    let pair = pair(closed_port().await, Protocol::Opaque);
    let mut events = pair.client.tap.watch(TapFilter::default()).await.unwrap();
    let _ = tokio::net::TcpStream::connect(pair.client.outbound).await;
    let event = soon(events.recv()).await.unwrap();
    assert_eq!((event.outcome.as_str(), event.request), ("app-refused", None));
}
