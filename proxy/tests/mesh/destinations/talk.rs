//! Clients of the applications; each runs in the network of the calling thread.

use std::{
    future::Future,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use mesh_runtime::tasks::Tasks;

/// Far more than anything takes.
const DEADLINE: Duration = Duration::from_mins(2);

/// `length` bytes without a pattern.
pub(super) fn body(length: u32) -> Vec<u8> {
    (0..length).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await.expect("it takes too long") })
}

/// Posts the bytes as HTTP/1.1 and returns the answer's body.
pub(super) fn http1(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let bytes = Bytes::copy_from_slice(bytes);
    block_on(async move {
        let tasks = Tasks::new();
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
        tasks.spawn("client", async move {
            let _ = connection.await;
        });
        let request = Request::post("/").header(HOST, "server").body(Full::new(bytes)).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200, "{:?}", response.headers());
        response.into_body().collect().await.unwrap().to_bytes().to_vec()
    })
}

/// The same as HTTP/2.
pub(super) fn http2(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let bytes = Bytes::copy_from_slice(bytes);
    block_on(async move {
        let tasks = Tasks::new();
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let executor = tasks.executor("client");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(socket)).await.unwrap();
        tasks.spawn("client", async move {
            let _ = connection.await;
        });
        let request = Request::post("http://server/").body(Full::new(bytes)).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200, "{:?}", response.headers());
        response.into_body().collect().await.unwrap().to_bytes().to_vec()
    })
}

/// Sends the bytes, ends its side, and returns what comes back, turned around.
pub(super) fn reversed(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = connect(address);
    socket.write_all(bytes).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    socket.read_to_end(&mut back).unwrap();
    back.reverse();
    back
}

/// What the server says by itself, to its end.
pub(super) fn read_banner(address: SocketAddr) -> String {
    let mut text = String::new();
    connect(address).read_to_string(&mut text).unwrap();
    text
}

/// Expects a reset instead of an answer.
pub(super) fn is_reset(address: SocketAddr, text: &[u8]) {
    let mut read = Vec::new();
    let result = TcpStream::connect_timeout(&address, DEADLINE).and_then(|mut socket| {
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.write_all(text)?;
        socket.read_to_end(&mut read)
    });
    let error = result.expect_err("a reset");
    assert!(matches!(error.raw_os_error(), Some(104 | 32)), "{error} after {read:?}");
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}
