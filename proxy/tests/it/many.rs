//! Many clients at once, of every kind: nothing is lost, mixed up, or left open.

use futures_util::future::{join, join_all};
use mesh_proto::workload::Protocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{App, pair, soon};

const CLIENTS: usize = 40;
const ROUNDS: usize = 25;

/// Answers each request with its path, by HTTP or, where it is none, by sending it back.
async fn mirror() -> App {
    App::new(|mut socket| async move {
        let mut read = Vec::new();
        while socket.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
            if !read.starts_with(b"GET ") {
                socket.write_all(&read).await.unwrap();
                read.clear();
            } else if read.ends_with(b"\r\n\r\n") {
                let path = String::from_utf8(read.split(|byte| *byte == b' ').nth(1).unwrap().to_vec()).unwrap();
                read.clear();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len());
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await
}

async fn request_repeatedly(address: std::net::SocketAddr, client: usize) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    for round in 0..ROUNDS {
        let path = format!("/{client}/{round}");
        socket.write_all(format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(path.as_bytes()) {
            let read = socket.read_buf(&mut answer).await.unwrap();
            assert!(read > 0 && answer.starts_with(b"HTTP/1.1 2"), "{path}: {}", String::from_utf8_lossy(&answer));
        }
    }
}

async fn send_repeatedly(address: std::net::SocketAddr, client: usize) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    for round in 0..ROUNDS {
        let text = format!("*{client} {round}\n");
        socket.write_all(text.as_bytes()).await.unwrap();
        let mut back = vec![0; text.len()];
        socket.read_exact(&mut back).await.unwrap();
        assert_eq!(String::from_utf8(back).unwrap(), text);
    }
}

#[tokio::test]
async fn every_client_gets_its_own_answers_and_nothing_stays_open() {
    let app = mirror().await;
    let pair = pair(app.address, Protocol::Detect);
    let requests = join_all((0..CLIENTS).map(|client| request_repeatedly(pair.client.outbound, client)));
    let bytes = join_all((0..CLIENTS).map(|client| send_repeatedly(pair.client.outbound, client)));
    soon(join(requests, bytes)).await;
    let edge = r#"direction="outbound",dst_namespace="shop",dst_service="web",dst_port="80",dst_workload="",client_id="",tls="true""#;
    pair.client
        .counted(&format!(
            "response_total{{{edge},status_code=\"200\",grpc_status=\"\",classification=\"success\"}} {}",
            CLIENTS * ROUNDS
        ))
        .await;
    pair.client.counted(&format!("tcp_close_total{{{edge},classification=\"success\"}} {CLIENTS}")).await;
    pair.client.counted(&format!("tcp_open_connections{{{edge}}} 0")).await;
    pair.client.counted("proxy_connections 0").await;
}
