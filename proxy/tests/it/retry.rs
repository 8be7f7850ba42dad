//! The second attempt of a request: made where nothing can have happened, and nowhere else.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mesh_proto::{names, workload::Protocol};
use mesh_runtime::tls;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{App, Authority, allow, client, exchange, identity, meshed, server};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn request(method: &str) -> String {
    format!("{method} /pay HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

/// Reads one head; false at the end.
async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        if !matches!(socket.read_buf(&mut read).await, Ok(1..)) {
            return false;
        }
    }
    true
}

/// Applications that answer `ok` while `left` is above zero, then do `last` instead; requests are counted.
async fn app<F: Future<Output = ()> + Send + 'static>(
    answers: usize,
    seen: &Arc<AtomicUsize>,
    last: impl Fn(TcpStream) -> F + Send + Sync + Copy + 'static,
) -> App {
    let seen = Arc::clone(seen);
    App::new(move |mut socket| {
        let seen = Arc::clone(&seen);
        async move {
            while read_head(&mut socket).await {
                if seen.fetch_add(1, Ordering::SeqCst) + 1 > answers {
                    return last(socket).await;
                }
                socket.write_all(OK).await.unwrap();
            }
        }
    })
    .await
}

/// The greeting of a peer that serves channels: each may be sent 16 KiB at first, and there may be 100.
const GREETING: [u8; 16] = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 100];

#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_again_when_tls_breaks() {
    for (alpn, greeting) in [(names::ALPN_HTTP1, &[][..]), (names::ALPN_MUX, &GREETING)] {
        sent_once_when_tls_breaks(alpn, greeting).await;
    }
}

/// The peer speaks this and greets so.
async fn sent_once_when_tls_breaks(alpn: &'static [u8], greeting: &'static [u8]) {
    let authority = Authority::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let mut config = ServerConfig::clone(&authority.credentials(&identity("server")).server().unwrap());
    config.alpn_protocols = vec![alpn.to_vec()];
    let (config, counted) = (Arc::new(config), Arc::clone(&seen));
    // A proxy of the mesh that takes the request; then a record comes that does not decrypt.
    let breaking = move |socket: TcpStream| {
        let (counted, acceptor) = (Arc::clone(&counted), TlsAcceptor::from(Arc::clone(&config)));
        async move {
            let mut stream = acceptor.accept(socket).await.unwrap();
            stream.write_all(greeting).await.unwrap();
            // Frames end where a head does.
            if read_head(&mut stream).await {
                counted.fetch_add(1, Ordering::SeqCst);
                let record = [&[0x17, 3, 3, 0, 32][..], &[0; 32]].concat();
                stream.get_mut().0.write_all(&record).await.unwrap();
                let _ = stream.read_u8().await;
            }
        }
    };
    let (one, two) = (App::new(breaking.clone()).await, App::new(breaking).await);
    for method in ["POST", "GET"] {
        seen.store(0, Ordering::SeqCst);
        let endpoints = vec![meshed(one.address, "server"), meshed(two.address, "server")];
        let pod = client(&authority, Protocol::Http1, endpoints);
        let answer = exchange(pod.outbound, &request(method)).await;
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("mesh-error: upstream-reset\r\n"), "{answer}");
        assert_eq!(seen.load(Ordering::SeqCst), 1, "{method}");
    }
}

/// Trusts nobody that this mesh vouches for.
fn refusing(authority: &Authority, alpn: &[u8]) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    for root in Authority::new().bundle().roots {
        roots.add(root.to_vec().into()).unwrap();
    }
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), tls::provider()).build().unwrap();
    let (chain, key) = authority.leaf(&identity("server"));
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(tls::TLS13)
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config).into()
}

#[tokio::test]
async fn a_peer_that_refuses_our_certificate_has_seen_nothing_and_another_one_answers() {
    let (authority, seen) = (Authority::new(), Arc::new(AtomicUsize::new(0)));
    let app = app(usize::MAX, &seen, |_| async {}).await;
    let live = server(&authority, app.address, Some(allow(Protocol::Http1)));
    let refused = Arc::new(AtomicUsize::new(0));
    let (counted, acceptor) = (Arc::clone(&refused), refusing(&authority, names::ALPN_HTTP1));
    let strict = App::new(move |socket| {
        let (counted, acceptor) = (Arc::clone(&counted), acceptor.clone());
        async move {
            assert!(acceptor.accept(socket).await.is_err());
            counted.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let both = || vec![meshed(strict.address, "server"), meshed(live.inbound, "server")];
    for n in 1..=40 {
        let pod = client(&authority, Protocol::Http1, both());
        let answer = exchange(pod.outbound, &request("POST")).await;
        assert!(answer.ends_with("ok"), "{answer}");
        assert_eq!(seen.load(Ordering::SeqCst), n);
        if refused.load(Ordering::SeqCst) > 1 {
            break;
        }
    }
    assert!(refused.load(Ordering::SeqCst) > 1, "it was never tried");
    let pod = client(&authority, Protocol::Http1, vec![meshed(strict.address, "server")]);
    let answer = exchange(pod.outbound, &request("POST")).await;
    assert!(answer.contains("mesh-error: tls-failed\r\n"), "{answer}");
}
