//! Ports that declare nothing: who speaks first, and what.

use mesh_proto::{
    outbound::{OutboundPolicy, Route, WeightedBackend},
    workload::Protocol,
};
use mesh_proxy::policy::Policies;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

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
