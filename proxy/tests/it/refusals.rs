//! Everything that must not go through, and what it is answered with.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh_proto::{
    inbound::{Action, ClientMatch, DefaultPolicy, InboundPolicy, PortPolicy, Rule},
    names,
    workload::Protocol,
};
use mesh_proxy::{
    config::DataConfig,
    policy::Policies,
    tls::{Alpn, Credentials},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use crate::support::{App, Authority, Pod, SERVICE, allow, client, config, exchange, identity, meshed, server, soon};

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// A ClientHello that offers `alpn`.
pub(crate) fn hello(alpn: &[&[u8]]) -> Vec<u8> {
    let config = tls_client(alpn, None);
    let mut connection = rustls::ClientConnection::new(config, "a.test".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

fn tls_client(alpn: &[&[u8]], own: Option<&Credentials>) -> Arc<rustls::ClientConfig> {
    let mut config = match own {
        Some(credentials) => (*credentials.client(Alpn::Tcp).unwrap()).clone(),
        None => rustls::ClientConfig::builder_with_provider(mesh_runtime::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
    Arc::new(config)
}

/// Answers any request, and counts the connections and bytes that reach it.
pub(crate) struct Witness {
    pub(crate) app: App,
    pub(crate) bytes: Arc<AtomicUsize>,
}

impl Witness {
    pub(crate) async fn new() -> Self {
        let bytes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&bytes);
        let app = App::new(move |mut socket| {
            let counted = Arc::clone(&counted);
            async move {
                let mut read = Vec::new();
                while let Ok(n @ 1..) = socket.read_buf(&mut read).await {
                    counted.fetch_add(n, Ordering::SeqCst);
                    if read.ends_with(b"\r\n\r\n") {
                        let _ = socket.write_all(OK).await;
                        return;
                    }
                }
            }
        })
        .await;
        Self { app, bytes }
    }

    pub(crate) fn untouched(&self) {
        assert_eq!(self.bytes.load(Ordering::SeqCst), 0, "bytes reached the application");
    }
}

pub(crate) fn code(answer: &str) -> (&str, Option<&str>) {
    let status = answer.get(9..12).unwrap_or_default();
    (status, answer.lines().find_map(|line| line.strip_prefix("mesh-error: ")))
}

pub(crate) async fn is_reset(address: SocketAddr, text: &str) {
    let mut read = Vec::new();
    let result = soon(async {
        // May fail as soon as here.
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(text.as_bytes()).await?;
        socket.read_to_end(&mut read).await
    })
    .await;
    assert!(result.is_err() && read.is_empty(), "{result:?} {}", String::from_utf8_lossy(&read));
}

#[tokio::test]
async fn a_meshed_endpoint_is_never_spoken_to_in_plain() {
    let authority = Authority::new();
    // Not a proxy at all: sees a ClientHello, never the request.
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let impostor = App::new(move |mut socket| {
        let kept = Arc::clone(&kept);
        async move {
            let mut read = Vec::new();
            let _ = socket.read_buf(&mut read).await;
            kept.lock().extend_from_slice(&read);
            let _ = socket.write_all(OK).await;
        }
    })
    .await;
    let pod = client(&authority, Protocol::Http1, vec![meshed(impostor.address, "server")]);
    let answer = exchange(pod.outbound, GET).await;
    assert_eq!(code(&answer), ("502", Some("peer-not-meshed")), "{answer}");
    assert!(!seen.lock().windows(3).any(|window| window == b"GET"));
    is_reset(client(&authority, Protocol::Opaque, vec![meshed(impostor.address, "server")]).outbound, "ping").await;

    // A proxy of the mesh, but another one than expected.
    let witness = Witness::new().await;
    let far = server(&authority, witness.app.address, Some(allow(Protocol::Http1)));
    let pod = client(&authority, Protocol::Http1, vec![meshed(far.inbound, "somebody-else")]);
    let answer = exchange(pod.outbound, GET).await;
    assert_eq!(code(&answer), ("502", Some("peer-identity-mismatch")), "{answer}");

    // A proxy of another mesh.
    let other = Authority::new();
    let far = server(&other, witness.app.address, Some(allow(Protocol::Http1)));
    let pod = client(&authority, Protocol::Http1, vec![meshed(far.inbound, "server")]);
    let answer = exchange(pod.outbound, GET).await;
    assert_eq!(code(&answer), ("502", Some("tls-failed")), "{answer}");

    // No certificate of our own.
    let destination = SERVICE.parse().unwrap();
    let policies = Policies::fixed(
        None,
        [(destination, crate::support::service(Protocol::Http1, vec![meshed(far.inbound, "server")]))],
    );
    let pod = Pod::start(config("client", "10.9.9.9", destination), policies, Credentials::new(identity("client")));
    let answer = exchange(pod.outbound, GET).await;
    assert_eq!(code(&answer), ("503", Some("identity-unavailable")), "{answer}");
    witness.untouched();
}

#[tokio::test]
async fn a_client_that_claims_to_be_ours_without_proof_never_reaches_the_application() {
    let witness = Witness::new().await;
    let (authority, other) = (Authority::new(), Authority::new());
    let pod = server(&authority, witness.app.address, Some(allow(Protocol::Detect)));
    let stranger = other.credentials(&identity("client"));
    for alpn in [names::ALPN_HTTP1, names::ALPN_H2, names::ALPN_TCP, names::ALPN_DETECT] {
        for own in [None, Some(&stranger)] {
            let socket = TcpStream::connect(pod.inbound).await.unwrap();
            let connector = TlsConnector::from(tls_client(&[alpn], own));
            // Fails in the handshake (the client does not know our root, either) or right after it.
            let result = soon(async {
                let mut stream = connector.connect("a.test".try_into().unwrap(), socket).await?;
                stream.write_all(GET.as_bytes()).await?;
                stream.read_u8().await
            })
            .await;
            assert!(result.is_err(), "{result:?}");
        }
        // Only the hello, and one that ends in the middle.
        let bytes = hello(&[b"h2", alpn]);
        for part in [&bytes[..], &bytes[..bytes.len() / 2]] {
            let mut socket = TcpStream::connect(pod.inbound).await.unwrap();
            socket.write_all(part).await.unwrap();
            socket.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _ = soon(socket.read_to_end(&mut answer)).await;
        }
    }
    witness.untouched();
}

#[tokio::test]
async fn tls_of_the_application_passes_through_unauthenticated() {
    let witness = Witness::new().await;
    let pod = server(&Authority::new(), witness.app.address, Some(allow(Protocol::Detect)));
    let mut socket = TcpStream::connect(pod.inbound).await.unwrap();
    let bytes = hello(&[b"h2"]);
    socket.write_all(&bytes).await.unwrap();
    soon(async {
        while witness.bytes.load(Ordering::SeqCst) < bytes.len() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn whom_authorization_refuses_gets_a_code_and_the_application_nothing() {
    let witness = Witness::new().await;
    let authority = Authority::new();
    let only_ops = PortPolicy {
        rules: vec![Rule {
            name: "shop/ops".into(),
            action: Action::Allow,
            clients: vec![ClientMatch::ServiceAccount { namespace: "shop".into(), name: "ops".into() }],
        }],
        ..PortPolicy::default()
    };
    let authenticated = PortPolicy { default: DefaultPolicy::Authenticated, ..PortPolicy::default() };
    let policy = |port: &PortPolicy| Some(InboundPolicy { ports: [].into(), default: port.clone() });

    let far = server(&authority, witness.app.address, policy(&only_ops));
    let pod = client(&authority, Protocol::Http1, vec![meshed(far.inbound, "server")]);
    let answer = exchange(pod.outbound, GET).await;
    assert_eq!(code(&answer), ("403", Some("denied")), "{answer}");
    far.ended_with("inbound", "denied").await;
    is_reset(client(&authority, Protocol::Opaque, vec![meshed(far.inbound, "server")]).outbound, "ping").await;
    is_reset(client(&authority, Protocol::Detect, vec![meshed(far.inbound, "server")]).outbound, "ping").await;

    let far = server(&authority, witness.app.address, policy(&authenticated));
    assert_eq!(code(&exchange(far.inbound, GET).await), ("403", Some("denied")));
    is_reset(far.inbound, "ping").await;
    witness.untouched();
    let pod = client(&authority, Protocol::Http1, vec![meshed(far.inbound, "server")]);
    assert!(exchange(pod.outbound, GET).await.ends_with("ok"));
}

#[tokio::test]
async fn nobody_gets_in_before_the_policy_is_there() {
    let witness = Witness::new().await;
    let authority = Authority::new();
    let far = server(&authority, witness.app.address, None);
    assert_eq!(code(&exchange(far.inbound, GET).await), ("503", Some("policy-unavailable")));
    let pod = client(&authority, Protocol::Http1, vec![meshed(far.inbound, "server")]);
    assert_eq!(code(&exchange(pod.outbound, GET).await), ("503", Some("policy-unavailable")));
    is_reset(client(&authority, Protocol::Opaque, vec![meshed(far.inbound, "server")]).outbound, "ping").await;
    witness.untouched();
}

#[tokio::test]
async fn a_request_head_must_come_in_time_but_a_connection_may_be_idle() {
    let witness = App::new(|mut socket| async move {
        let mut read = Vec::new();
        while socket.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
            if read.ends_with(b"\r\n\r\n") {
                read.clear();
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let limit = Duration::from_millis(150);
    let config = DataConfig { head_timeout: limit, ..config("server", "127.0.0.1", witness.address) };
    let policies = Policies::fixed(Some(allow(Protocol::Http1)), []);
    let pod = Pod::start(config, policies, Authority::new().credentials(&identity("server")));
    let request = "GET / HTTP/1.1\r\nhost: web\r\n\r\n";
    let mut idle = said_within(limit, pod.inbound, request).await;
    for round in 0..2 {
        if round > 0 {
            idle.write_all(request.as_bytes()).await.unwrap();
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok") {
            assert!(soon(idle.read_buf(&mut answer)).await.unwrap() > 0);
        }
        // Meanwhile the others are told, and cut off: several times the limit passes for the first, too.
        for begun in ["GET / HTTP/1.1\r\nhost", "GET / HT", "G"] {
            let mut slow = said_within(limit, pod.inbound, begun).await;
            let mut answer = String::new();
            soon(slow.read_to_string(&mut answer)).await.unwrap();
            assert_eq!(code(&answer), ("408", Some("head-timeout")), "{begun:?}: {answer}");
        }
        // Who never asks for anything is not told anything.
        let mut silent = TcpStream::connect(pod.inbound).await.unwrap();
        assert_eq!(soon(silent.read(&mut [0])).await.unwrap(), 0);
    }
}

/// A connection on which this was said so soon after it began. Another one where the machine had other things to do: that one
/// was late, and is treated so.
async fn said_within(limit: Duration, address: SocketAddr, words: &str) -> TcpStream {
    loop {
        let begun = Instant::now();
        let mut socket = TcpStream::connect(address).await.unwrap();
        if socket.write_all(words.as_bytes()).await.is_ok() && begun.elapsed() < limit {
            return socket;
        }
    }
}
