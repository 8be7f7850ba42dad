//! What the admin port shows of open connections and of endpoints.

use std::sync::Arc;

use mesh_proto::{admin::Connection, workload::Protocol};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
};

use crate::support::{App, Pod, SERVICE, identity, pair, soon};

/// The one open connection, once it is as `wanted`.
async fn connection(pod: &Pod, wanted: impl Fn(&Connection) -> bool) -> Connection {
    soon(async {
        loop {
            let page = pod.inspect.connections().await.unwrap();
            assert_eq!((page.kind.as_str(), page.left_out), ("Connections", 0));
            if let [only] = &page.items[..]
                && wanted(only)
            {
                return only.clone();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn an_open_connection_is_shown_with_peer_protocol_bytes_and_requests_in_flight() {
    let go = Arc::new(Notify::new());
    let may_go = Arc::clone(&go);
    let app = App::new(move |mut socket| {
        let may_go = Arc::clone(&may_go);
        async move {
            let mut read = Vec::new();
            while !read.ends_with(b"ping") {
                assert!(socket.read_buf(&mut read).await.unwrap() > 0);
            }
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await.unwrap();
            may_go.notified().await;
            socket.write_all(b"world").await.unwrap();
            let _ = socket.read_u8().await;
        }
    })
    .await;
    let pair = pair(app.address, Protocol::Http1);
    let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    let silent = connection(&pair.client, |_| true).await;
    assert_eq!((silent.protocol.as_str(), silent.requests), ("detecting", 0));

    socket.write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nping").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        assert!(soon(socket.read_buf(&mut answer)).await.unwrap() > 0);
    }
    let near = connection(&pair.client, |it| it.bytes_out == 5).await;
    assert_eq!((near.direction.as_str(), near.protocol.as_str()), ("outbound", "http/1"));
    assert_eq!((near.peer.as_deref(), near.destination), (Some("shop/web:80"), SERVICE.parse().unwrap()));
    assert_eq!((near.endpoint, near.tls), (Some(pair.server.inbound), true));
    assert_eq!((near.requests, near.in_flight, near.bytes_in), (1, 1, 4));
    assert_eq!(near.source, socket.local_addr().unwrap());

    let far = connection(&pair.server, |it| it.bytes_out == 5).await;
    assert_eq!((far.direction.as_str(), far.tls, far.in_flight), ("inbound", true, 1));
    assert_eq!(far.peer.as_deref(), Some(identity("client").as_str()));

    let loads = pair.client.inspect.loads().await.unwrap();
    let (endpoint, load) = loads.into_iter().next().unwrap();
    assert_eq!((endpoint.address, load.in_flight), (pair.server.inbound, 1));
    assert!(load.latency_ms > 0.0);

    go.notify_one();
    soon(socket.read_exact(&mut [0; 5])).await.unwrap();
    let idle = connection(&pair.client, |it| it.in_flight == 0).await;
    assert_eq!((idle.requests, idle.bytes_out), (1, 10));
    drop(socket);
    soon(async {
        while !pair.client.inspect.connections().await.unwrap().items.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_opaque_connection_counts_every_byte() {
    let app = App::new(|mut socket| async move {
        socket.write_all(b"welcome").await.unwrap();
        let mut read = [0; 3];
        socket.read_exact(&mut read).await.unwrap();
        let _ = socket.read_u8().await;
    })
    .await;
    let pair = pair(app.address, Protocol::Opaque);
    let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    let mut read = [0; 7];
    soon(socket.read_exact(&mut read)).await.unwrap();
    socket.write_all(b"abc").await.unwrap();
    for pod in [&pair.client, &pair.server] {
        let shown = connection(pod, |it| it.bytes_in == 3).await;
        assert_eq!((shown.protocol.as_str(), shown.bytes_out, shown.requests), ("tcp", 7, 0));
    }
}
