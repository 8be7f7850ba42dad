//! Bodies of some megabytes, both ways: what arrives is what was sent, by its hash.

use bytes::Bytes;
use http::HeaderValue;
use mesh_proto::workload::Protocol;
use mesh_runtime::tasks::Tasks;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::{
    h2app::{H2App, connect, next, ok, post, send_all, trailers},
    stage::{App, Side, Stage, noise, soon},
};

pub(crate) async fn bodies_of_http1_arrive_byte_for_byte_both_ways_whatever_their_framing(stage: &impl Stage) {
    let body = noise(2_000_000);
    for ip in stage.families() {
        for protocol in [Protocol::Http1, Protocol::Detect] {
            let (listener, way) = stage.open(protocol, ip);
            let _app = App::on(listener, send_back_in_chunks);
            for is_chunked in [false, true] {
                let mut request = b"POST / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n".to_vec();
                if is_chunked {
                    request.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                    request.extend(chunked(&body, 100_003));
                } else {
                    request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
                    request.extend_from_slice(&body);
                }
                let mut socket = way.connect();
                let (mut reader, mut writer) = socket.split();
                let mut answer = Vec::new();
                let both = async { tokio::join!(writer.write_all(&request), reader.read_to_end(&mut answer)) };
                let (written, read) = soon(both).await;
                written.unwrap();
                read.unwrap();
                let mut answer = BufReader::new(answer.as_slice());
                assert!(read_head(&mut answer).await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
                let back = unchunked(&mut answer).await;
                assert_eq!(Sha256::digest(back), Sha256::digest(&body), "chunked: {is_chunked}, {protocol:?} {ip}");
            }
        }
    }
}

/// Reads one request, whatever the framing of its body, and answers with it in chunks of another size.
async fn send_back_in_chunks(socket: TcpStream) {
    let mut socket = BufReader::new(socket);
    let head = read_head(&mut socket).await.unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|n| n.parse().ok());
    let body = match length {
        Some(length) => {
            let mut body = vec![0; length];
            socket.read_exact(&mut body).await.unwrap();
            body
        }
        None => unchunked(&mut socket).await,
    };
    let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    answer.extend(chunked(&body, 7919));
    socket.get_mut().write_all(&answer).await.unwrap();
}

async fn read_head(reader: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for chunk in body.chunks(size) {
        text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        text.extend_from_slice(chunk);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}

async fn unchunked(reader: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).await.unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).await.unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

pub(crate) async fn bodies_of_http2_arrive_byte_for_byte_both_ways_with_their_trailers(stage: &impl Stage) {
    let body = noise(3_000_000);
    for ip in stage.families() {
        for protocol in [Protocol::Http2, Protocol::Grpc, Protocol::Http1, Protocol::Detect] {
            let (listener, way) = stage.open(protocol, ip);
            // Sends the body back as it comes.
            let _app = H2App::on(listener, |_, request, mut answer| async move {
                let mut response = ok();
                let authority = request.uri().authority().unwrap().as_str();
                response.headers_mut().insert("x-authority", HeaderValue::from_str(authority).unwrap());
                let mut stream = answer.send_response(response, false).unwrap();
                let mut body = request.into_body();
                let mut all = Vec::new();
                while let Some(data) = next(&mut body).await {
                    all.extend_from_slice(&data.unwrap());
                }
                let mut rest = Bytes::from(all);
                while !rest.is_empty() {
                    stream.reserve_capacity(rest.len());
                    let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
                    stream.send_data(rest.split_to(capacity.min(rest.len())), false).unwrap();
                }
                stream.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
            });
            let tasks = Tasks::new();
            let mut sender = connect(&way, &tasks).await;
            let (answer, mut stream) = sender.send_request(post("/echo"), false).unwrap();
            let sending = send_all(&mut stream, body.clone().into(), |_| {});
            let reading = async {
                let answer = answer.await.unwrap();
                assert_eq!((answer.status().as_u16(), answer.headers()["x-authority"].as_bytes()), (200, &b"web"[..]));
                let mut body = answer.into_body();
                let mut back = Sha256::new();
                while let Some(data) = next(&mut body).await {
                    back.update(data.unwrap());
                }
                (back.finalize(), body.trailers().await.unwrap().unwrap())
            };
            let ((back, last), sent) = soon(async { tokio::join!(reading, sending) }).await;
            sent.unwrap();
            assert_eq!(back, Sha256::digest(&body), "{protocol:?} {ip}");
            assert_eq!(last, trailers(&[("grpc-status", "0")]), "{protocol:?} {ip}");
        }
    }
}

pub(crate) async fn bytes_of_tcp_arrive_as_they_were_sent_both_ways(stage: &impl Stage) {
    const LENGTH: u32 = 5_000_000;
    let sent = noise(LENGTH);
    for ip in stage.families() {
        let (listener, way) = stage.open(Protocol::Opaque, ip);
        // Reads to the end, then answers with what it got, backwards.
        let _app = App::on(listener, |mut socket| async move {
            let mut bytes = Vec::new();
            socket.read_to_end(&mut bytes).await.unwrap();
            bytes.reverse();
            socket.write_all(&bytes).await.unwrap();
        });
        let mut socket = way.connect();
        socket.write_all(&sent).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut back = Vec::new();
        soon(socket.read_to_end(&mut back)).await.unwrap();
        back.reverse();
        assert_eq!((back.len(), Sha256::digest(&back)), (sent.len(), Sha256::digest(&sent)), "{ip}");
        let edge = [r#"direction="outbound""#, &format!(r#"dst_port="{}""#, way.destination.port()), r#"tls="true""#];
        way.counted(Side::Client, "tcp_read_bytes_total", &edge, LENGTH.into()).await;
        way.counted(Side::Client, "tcp_write_bytes_total", &edge, LENGTH.into()).await;
        way.counted(Side::Client, "tcp_close_total", &[&edge[..], &[r#"classification="success""#]].concat(), 1).await;
        way.counted(Side::Server, "tcp_open_total", &[super::FROM_CLIENT], 1).await;
    }
}
