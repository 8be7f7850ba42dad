//! Ports that declare nothing: who speaks first, and what.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh_proto::{
    outbound::{OutboundPolicy, Route, WeightedBackend},
    workload::Protocol,
};
use mesh_proxy::{policy::Policies, tls::Alpn};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    matrix::first::{BANNER, greet, hear},
    support::{
        App, Authority, Pod, SERVICE, allow, client, config, identity, meshed, pair, plain, server, service, soon,
    },
};

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_by_clients_outside_the_mesh_and_by_meshed_ones_outside_it() {
    let app = App::new(greet).await;
    let authority = Authority::new();
    let pod = server(&authority, app.address, Some(allow(Protocol::Detect)));
    let mut socket = TcpStream::connect(pod.inbound).await.unwrap();
    let mut read = vec![0; BANNER.len()];
    soon(socket.read_exact(&mut read)).await.unwrap();
    assert_eq!(read, BANNER);

    let pod = client(&authority, Protocol::Detect, vec![plain(app.address)]);
    hear(TcpStream::connect(pod.outbound).await.unwrap()).await;
}

#[tokio::test]
async fn bytes_that_are_no_http_are_carried_as_they_are() {
    let app = App::new(|mut socket| async move {
        let (mut reader, mut writer) = socket.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await;
    let pair = pair(app.address, Protocol::Detect);
    // Redis, a TLS client of the application, half an HTTP request that never goes on.
    let hello = crate::refusals::hello(&[b"h2"]);
    for sent in [&b"*1\r\n$4\r\nPING\r\n"[..], &hello, b"GET /x"] {
        let mut socket = TcpStream::connect(pair.client.outbound).await.unwrap();
        socket.write_all(sent).await.unwrap();
        let mut back = vec![0; sent.len()];
        soon(socket.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, sent);
    }
}

#[tokio::test]
async fn nothing_gets_past_routes_as_bytes() {
    let app = App::new(greet).await;
    let authority = Authority::new();
    let far = server(&authority, app.address, Some(allow(Protocol::Detect)));
    let OutboundPolicy::Service(mut target) = service(Protocol::Detect, vec![meshed(far.inbound, "server")]) else {
        panic!("a service")
    };
    let backends = vec![WeightedBackend { backend: Some(0), weight: 1 }];
    target.routes = vec![Route { name: "shop/web#0".into(), matches: vec![], backends }];
    let destination = SERVICE.parse().unwrap();
    let policies = Policies::fixed(None, [(destination, OutboundPolicy::Service(target))]);
    let config = config("client", "10.9.9.9", destination);
    let pod = Pod::start(config, policies, authority.credentials(&identity("client")));
    let mut socket = TcpStream::connect(pod.outbound).await.unwrap();
    socket.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    let mut read = Vec::new();
    let error = soon(socket.read_to_end(&mut read)).await.unwrap_err();
    assert_eq!((error.kind(), read.as_slice()), (std::io::ErrorKind::ConnectionReset, &b""[..]));
    pod.ended_with("outbound", "protocol-refused").await;
}

#[tokio::test]
async fn a_proxy_that_is_late_with_its_hello_is_let_in_although_the_application_has_spoken() {
    // Later than anybody waits for a first word, and earlier than the application's is given to a client outside the mesh.
    const LATE: Duration = Duration::from_millis(20);
    let (spoke, mut has_spoken) = tokio::sync::mpsc::unbounded_channel();
    let app = App::new(move |mut socket| {
        let spoke = spoke.clone();
        async move {
            socket.write_all(BANNER).await.unwrap();
            spoke.send(()).unwrap();
            let _ = socket.read_u8().await;
        }
    })
    .await;
    let authority = Authority::new();
    let pod = server(&authority, app.address, Some(allow(Protocol::Detect)));
    let late = authority.credentials(&identity("client"));
    let connector = TlsConnector::from(late.client(Alpn::Tcp).unwrap());
    // Now and then a busy machine makes it too late; not every time.
    let let_in = async {
        loop {
            let socket = TcpStream::connect(pod.inbound).await.unwrap();
            has_spoken.recv().await.unwrap();
            tokio::time::sleep(LATE).await;
            if let Ok(stream) = connector.connect(late.server_name(), socket).await {
                return stream;
            }
        }
    };
    let mut stream = soon(let_in).await;
    let mut read = vec![0; 1 + BANNER.len()];
    soon(stream.read_exact(&mut read)).await.unwrap();
    assert_eq!(read, [&[0], BANNER].concat(), "the link carries, and the application's word comes over it");
}

#[tokio::test]
async fn a_peer_that_took_a_late_hello_for_a_client_outside_the_mesh_is_tried_once_more() {
    let app = App::new(greet).await;
    let authority = Authority::new();
    for protocol in [Protocol::Opaque, Protocol::Detect] {
        let far = server(&authority, app.address, Some(allow(protocol)));
        let (tried, inbound) = (Arc::new(AtomicUsize::new(0)), far.inbound);
        let counted = Arc::clone(&tried);
        // As that peer does: it passes on what its application says.
        let peer = App::new(move |mut socket| {
            let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if first {
                    socket.write_all(BANNER).await.unwrap();
                    let _ = socket.read(&mut [0; 4096]).await;
                    return;
                }
                let mut far = TcpStream::connect(inbound).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut socket, &mut far).await;
            }
        })
        .await;
        let pod = client(&authority, protocol, vec![meshed(peer.address, "server")]);
        hear(TcpStream::connect(pod.outbound).await.unwrap()).await;
        assert_eq!(tried.load(Ordering::SeqCst), 2, "{protocol:?}");
        assert!(!pod.metrics().contains("peer-not-meshed"), "the client was told");
    }
}

/// What the application reads after it has spoken first to a client that then sends `said` and ends.
async fn heard_by_a_server_that_spoke_first(said: Vec<u8>) -> (Vec<u8>, Pod) {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let app = App::new(move |mut socket| {
        let told = told.clone();
        async move {
            socket.write_all(BANNER).await.unwrap();
            let mut all = Vec::new();
            let _ = socket.read_to_end(&mut all).await;
            told.send(all).unwrap();
        }
    })
    .await;
    let pod = server(&Authority::new(), app.address, Some(allow(Protocol::Detect)));
    let mut socket = TcpStream::connect(pod.inbound).await.unwrap();
    let mut banner = vec![0; BANNER.len()];
    soon(socket.read_exact(&mut banner)).await.unwrap();
    // Byte by byte, so that no single read decides.
    for byte in said {
        socket.write_all(&[byte]).await.unwrap();
    }
    socket.shutdown().await.unwrap();
    (soon(heard.recv()).await.unwrap(), pod)
}

#[tokio::test]
async fn a_late_hello_of_ours_whole_or_half_never_reaches_a_server_that_spoke_first() {
    let hello = crate::refusals::hello(&[b"mesh/1/tcp"]);
    for said in [hello.clone(), hello[..hello.len() / 2].to_vec(), vec![0x16]] {
        let (heard, pod) = heard_by_a_server_that_spoke_first(said).await;
        assert_eq!(heard.len(), 0, "the application got bytes of a hello of ours");
        pod.ended_with("inbound", "client-certificate-invalid").await;
    }
}

#[tokio::test]
async fn what_is_not_ours_reaches_a_server_that_spoke_first_unchanged() {
    for said in [b"EHLO there\r\n".to_vec(), crate::refusals::hello(&[b"h2"]), Vec::new()] {
        assert_eq!(heard_by_a_server_that_spoke_first(said.clone()).await.0, said);
    }
}
