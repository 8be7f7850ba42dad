//! Who speaks first: ports that declare nothing make nobody wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh_proto::workload::Protocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    time::Instant,
};

use super::stage::{App, SOON, Side, Stage, soon};

/// What the server says.
pub(crate) const BANNER: &[u8] = b"220 ready\r\n";

/// Speaks first, then echoes.
pub(crate) async fn greet(mut socket: TcpStream) {
    socket.write_all(BANNER).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
}

/// Hears the banner of [`greet`], then speaks. How long until it was heard.
pub(crate) async fn hear(mut socket: TcpStream) -> Duration {
    let begun = Instant::now();
    let mut read = vec![0; BANNER.len()];
    soon(socket.read_exact(&mut read)).await.unwrap();
    let took = begun.elapsed();
    assert_eq!(read, BANNER);
    socket.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut echo = [0; 16];
    soon(socket.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"GET / HTTP/1.1\r\n", "once it is TCP, nothing is looked at");
    took
}

pub(crate) async fn a_server_that_speaks_first_is_heard_within_100_ms(stage: &impl Stage) {
    for ip in stage.families() {
        for protocol in [Protocol::Detect, Protocol::Opaque] {
            let (listener, way) = stage.open(protocol, ip);
            let _app = App::on(listener, greet);
            // Once is enough: a machine that is busy with other tests makes it take longer, and nothing makes it take less.
            let (mut best, begun) = (Duration::MAX, Instant::now());
            while best >= Duration::from_millis(100) {
                assert!(begun.elapsed() < SOON, "{protocol:?} {ip}: {best:?} at best");
                best = best.min(hear(way.connect()).await);
            }
        }
    }
}

pub(crate) async fn a_client_that_hesitates_and_then_speaks_http_is_routed_per_request(stage: &impl Stage) {
    for ip in stage.families() {
        let (listener, way) = stage.open(Protocol::Detect, ip);
        let (connections, opened) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, opening) = (Arc::clone(&connections), Arc::clone(&opened));
        let _app = App::on(listener, move |mut socket| {
            counted.fetch_add(1, Ordering::Relaxed);
            opening.notify_one();
            async move {
                let mut read = Vec::new();
                while socket.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
                    if read.ends_with(b"\r\n\r\n") {
                        read.clear();
                        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    }
                }
            }
        });
        let mut socket = way.connect();
        // Until the way is open: the application sees a connection before the client has spoken.
        soon(opened.notified()).await;
        for _ in 0..3 {
            socket.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"ok") {
                assert!(soon(socket.read_buf(&mut answer)).await.unwrap() > 0);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200"));
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1, "what was opened early was used, {ip}");
        let edge = [r#"direction="outbound""#, &format!(r#"dst_port="{}""#, way.destination.port()), r#"tls="true""#];
        way.counted(Side::Client, "request_total", &edge, 3).await;
    }
}
