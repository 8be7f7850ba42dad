//! Endpoints and destinations that do not answer: each with its code, in the time that is promised.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use mesh_proto::{outbound::OutboundPolicy, workload::Protocol};
use mesh_proxy::policy::Policies;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::support::{
    App, Authority, Pod, allow, client, closed_port, config, exchange, identity, meshed, plain, server, soon,
};

/// What an attempt takes that nobody answers, at least.
const TRY: Duration = Duration::from_secs(1);
const GET: &str = "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";

/// A port whose queue of connections is full: the kernel drops what asks for one more.
pub(crate) struct Full {
    pub(crate) address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Full {
    pub(crate) async fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        // Full when one is not let in; twice as long as the kernel needs on a busy machine does no harm.
        while let Ok(socket) = tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
            queued.push(socket.unwrap());
        }
        Self { address, _listener: listener, _queued: queued }
    }
}

#[track_caller]
fn timed_out(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("mesh-error: connect-timeout\r\n"), "{answer}");
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_given_a_second_twice_and_then_fails_fast() {
    let full = Full::new().await;
    let authority = Authority::new();
    for endpoint in [plain(full.address), meshed(full.address, "server")] {
        let pod = client(&authority, Protocol::Http1, vec![endpoint]);
        let begun = Instant::now();
        timed_out(&exchange(pod.outbound, GET).await);
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
        let mut waited = 0;
        for _ in 0..10 {
            let begun = Instant::now();
            timed_out(&exchange(pod.outbound, GET).await);
            waited += u32::from(begun.elapsed() >= TRY);
        }
        // Now and then one of them is the one that tries.
        assert!(waited <= 5, "{waited} of 10");
        pod.counted(r#"mesh_error_total{direction="outbound",code="connect-timeout"} 11"#).await;
    }
}

#[tokio::test]
async fn an_application_that_does_not_answer_is_given_100_ms_and_told_by_its_own_proxy() {
    let full = Full::new().await;
    let authority = Authority::new();
    let far = server(&authority, full.address, Some(allow(Protocol::Http1)));
    let pod = client(&authority, Protocol::Http1, vec![meshed(far.inbound, "server")]);
    timed_out(&exchange(pod.outbound, GET).await);
    far.ended_with("inbound", "connect-timeout").await;

    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        timed_out(&exchange(far.inbound, GET).await);
        assert!(begun.elapsed() >= Duration::from_millis(100), "tried every time: {:?}", begun.elapsed());
        quickest = quickest.min(begun.elapsed());
    }
    assert!(quickest < TRY, "{quickest:?}, as long as an endpoint of the mesh is given");
}

#[tokio::test]
async fn with_another_endpoint_no_request_fails_and_few_wait() {
    let full = Full::new().await;
    let app = App::new(|mut socket| async move {
        let mut read = [0; 1024];
        let _ = socket.read(&mut read).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
    })
    .await;
    let pod = client(&Authority::new(), Protocol::Http1, vec![plain(full.address), plain(app.address)]);
    let mut waited = 0;
    for _ in 0..50 {
        let begun = Instant::now();
        let answer = exchange(pod.outbound, GET).await;
        assert!(answer.ends_with("ok"), "{answer}");
        waited += u32::from(begun.elapsed() >= TRY);
    }
    assert!(waited <= 10, "{waited} of 50");
}

#[tokio::test]
async fn connections_that_carry_no_requests_are_reset_with_the_same_codes() {
    let full = Full::new().await;
    let authority = Authority::new();
    let silent = client(&authority, Protocol::Opaque, vec![plain(full.address)]);
    let nobody = client(&authority, Protocol::Opaque, vec![]);
    let outside = closed_port().await;
    let policies = Policies::fixed(None, [(outside, OutboundPolicy::External)]);
    let external =
        Pod::start(config("client", "10.9.9.9", outside), policies, authority.credentials(&identity("client")));
    for (pod, code) in [(silent, "connect-timeout"), (nobody, "no-endpoints"), (external, "connect-failed")] {
        let result = soon(async {
            // May fail as soon as here.
            let mut socket = TcpStream::connect(pod.outbound).await?;
            socket.read(&mut [0]).await
        })
        .await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{code}");
        pod.ended_with("outbound", code).await;
    }
}

#[tokio::test]
async fn without_endpoints_a_request_fails_at_once() {
    let pod = client(&Authority::new(), Protocol::Http1, vec![]);
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        let answer = exchange(pod.outbound, GET).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("mesh-error: no-endpoints\r\n"), "{answer}");
        quickest = quickest.min(begun.elapsed());
    }
    assert!(quickest < TRY, "{quickest:?}");
}
