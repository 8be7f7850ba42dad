//! Opaque connections through both proxies.

use mesh_proto::workload::Protocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{App, Authority, allow, client, closed_port, meshed, pair, server, soon};

#[tokio::test]
async fn a_server_that_ends_first_still_reads() {
    let app = App::new(|mut socket| async move {
        socket.write_all(b"bye").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"after");
    })
    .await;
    let pair = pair(app.address, Protocol::Opaque);
    let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    let mut read = Vec::new();
    soon(socket.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"bye");
    socket.write_all(b"after").await.unwrap();
    socket.shutdown().await.unwrap();
    let app_port = app.address.port();
    let edge = format!(
        r#"direction="inbound",dst_namespace="shop",dst_service="",dst_port="{app_port}",dst_workload="",client_id="spiffe://cluster.local/ns/shop/sa/client",tls="true""#
    );
    pair.server.counted(&format!("tcp_read_bytes_total{{{edge}}} 5")).await;
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_end_for_the_other_side() {
    // Says something, then resets.
    let app = App::new(|mut socket| async move {
        socket.write_all(b"half").await.unwrap();
        let mut first = [0; 1];
        socket.read_exact(&mut first).await.unwrap();
        let _ = socket2_reset(&socket);
    })
    .await;
    let pair = pair(app.address, Protocol::Opaque);
    let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    let mut read = [0; 4];
    soon(socket.read_exact(&mut read)).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    let error = soon(socket.read(&mut read)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

fn socket2_reset(socket: &TcpStream) -> std::io::Result<()> {
    socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO))
}

#[tokio::test]
async fn a_connection_that_one_application_refuses_goes_to_the_other() {
    let app = App::new(|mut socket| async move {
        let (mut reader, mut writer) = socket.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await;
    let authority = Authority::new();
    let dead = server(&authority, closed_port().await, Some(allow(Protocol::Opaque)));
    let live = server(&authority, app.address, Some(allow(Protocol::Opaque)));
    for _ in 0..40 {
        let endpoints = vec![meshed(dead.inbound, "server"), meshed(live.inbound, "server")];
        let pod = client(&authority, Protocol::Opaque, endpoints);
        let mut socket = TcpStream::connect(pod.outbound).await.unwrap();
        socket.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        soon(socket.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"ping");
        if dead.metrics().contains(r#"mesh_error_total{direction="inbound",code="app-refused"}"#) {
            return;
        }
    }
    panic!("the dead endpoint was never tried");
}
