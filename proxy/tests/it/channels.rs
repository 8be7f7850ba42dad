//! Requests that share connections between proxies, and those that do not.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::TokioIo;
use mesh_proto::{names, workload::Protocol};
use mesh_proxy::{
    config::{DataConfig, Limits},
    policy::Policies,
};
use mesh_runtime::tasks::Tasks;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    App, Authority, Pod, SERVICE, allow, answering, client, config, exchange, identity, meshed, pair, server, service,
    soon, until,
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";
const CLIENTS: usize = 32;
const ROUNDS: usize = 20;

/// Asks so many times on one connection; every answer ends so.
async fn ask(pod: &Pod, rounds: usize, end: &[u8], len: usize) {
    let mut socket = TcpStream::connect(pod.outbound).await.unwrap();
    for round in 0..rounds {
        socket.write_all(GET).await.unwrap();
        let mut answer = Vec::new();
        while answer.len() < len || !answer.ends_with(end) {
            let read = soon(socket.read_buf(&mut answer)).await.unwrap();
            assert!(read > 0 && answer.starts_with(b"HTTP/1.1 200"), "round {round}: {} bytes", answer.len());
        }
    }
}

/// Requests of each connection that the server's proxy has, and of those that it had.
async fn requests(pod: &Pod) -> (Vec<u64>, Vec<u64>) {
    let page = pod.inspect.connections().await.unwrap();
    let open = page.items.iter().map(|it| it.requests).collect();
    (open, page.closed.iter().map(|it| it.connection.requests).collect())
}

#[tokio::test]
async fn requests_of_many_clients_share_one_connection_between_the_proxies() {
    let app = answering().await;
    let pair = pair(app.address, Protocol::Http1);
    join_all((0..CLIENTS).map(|_| ask(&pair.client, ROUNDS, b"ok", 0))).await;
    assert_eq!(requests(&pair.server).await, (vec![(CLIENTS * ROUNDS) as u64], vec![]));
}

#[tokio::test]
async fn few_requests_at_once_have_connections_of_their_own_and_many_share_one() {
    // Answers all when there are enough.
    let (seen, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Barrier::new(CLIENTS)));
    let app = App::new(move |mut socket| {
        let (seen, enough) = (Arc::clone(&seen), Arc::clone(&enough));
        async move {
            let mut read = Vec::new();
            while socket.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
                if read.ends_with(b"\r\n\r\n") {
                    read.clear();
                    if seen.fetch_add(1, Ordering::SeqCst) >= ROUNDS {
                        enough.wait().await;
                    }
                    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                }
            }
        }
    })
    .await;
    let authority = Authority::new();
    let server = server(&authority, app.address, Some(allow(Protocol::Http1)));
    let few = DataConfig::new(identity("client"), Vec::new()).share_from;
    let destination = SERVICE.parse().unwrap();
    let to_server = service(Protocol::Http1, vec![meshed(server.inbound, "server")]);
    let config = DataConfig { share_from: few, ..config("client", "10.9.9.9", destination) };
    let policies = Policies::fixed(None, [(destination, to_server)]);
    let pod = Pod::start(config, policies, authority.credentials(&identity("client")));
    let few = usize::try_from(few).unwrap();
    ask(&pod, ROUNDS, b"ok", 0).await;
    assert_eq!(requests(&server).await, (vec![ROUNDS as u64], vec![]));
    join_all((0..CLIENTS).map(|_| ask(&pod, 1, b"ok", 0))).await;
    let mut open = requests(&server).await.0;
    open.sort_unstable();
    // Those of the few, one of which is kept from before; and all others on one.
    let others = (CLIENTS - few) as u64;
    assert_eq!(open.len(), few + 1, "{open:?}");
    assert!(open.contains(&others), "{open:?}");
}

#[tokio::test]
async fn a_draining_server_asks_for_the_end_of_a_shared_connection_and_no_request_is_lost() {
    let app = answering().await;
    let pair = pair(app.address, Protocol::Http1);
    join_all((0..CLIENTS).map(|_| ask(&pair.client, ROUNDS, b"ok", 0))).await;
    let asks = join_all((0..CLIENTS).map(|_| ask(&pair.client, 5 * ROUNDS, b"ok", 0)));
    let drains = async {
        // In the midst of them.
        while requests(&pair.server).await.0 < vec![(2 * CLIENTS * ROUNDS) as u64] {
            tokio::task::yield_now().await;
        }
        pair.server.drain.start();
    };
    tokio::join!(asks, drains);
    // Asked for, it ends when nothing is under way on it.
    let (open, closed) = until(async || {
        let (open, closed) = requests(&pair.server).await;
        if closed.iter().any(|requests| *requests >= (2 * CLIENTS * ROUNDS) as u64) {
            Ok((open, closed))
        } else {
            Err(format!("open {open:?}, closed {closed:?}"))
        }
    })
    .await;
    assert_eq!(closed.iter().chain(&open).sum::<u64>(), (6 * CLIENTS * ROUNDS) as u64);
}

#[tokio::test]
async fn a_peer_that_knows_no_channels_is_asked_on_connections_of_its_own() {
    let (authority, accepted) = (Authority::new(), Arc::new(AtomicUsize::new(0)));
    let mut config = ServerConfig::clone(&authority.credentials(&identity("server")).server().unwrap());
    config.alpn_protocols.retain(|alpn| alpn != names::ALPN_MUX);
    let (acceptor, counted) = (TlsAcceptor::from(Arc::new(config)), Arc::clone(&accepted));
    let older = App::new(move |socket| {
        let (counted, acceptor) = (Arc::clone(&counted), acceptor.clone());
        async move {
            let mut stream = acceptor.accept(socket).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(names::ALPN_HTTP1));
            counted.fetch_add(1, Ordering::SeqCst);
            let mut read = Vec::new();
            while stream.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
                if read.ends_with(b"\r\n\r\n") {
                    read.clear();
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                }
            }
        }
    })
    .await;
    let pod = client(&authority, Protocol::Http1, vec![meshed(older.address, "server")]);
    ask(&pod, ROUNDS, b"ok", 0).await;
    assert_eq!(accepted.load(Ordering::SeqCst), 1, "the first one is kept");
    join_all((0..CLIENTS).map(|_| ask(&pod, ROUNDS, b"ok", 0))).await;
    assert!((2..=CLIENTS).contains(&accepted.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn a_request_for_whose_channel_there_is_no_room_is_sent_again_and_fails_with_a_code() {
    let (authority, seen) = (Authority::new(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&seen);
    // Never answers.
    let app = App::new(move |mut socket| {
        let counted = Arc::clone(&counted);
        async move {
            let _ = socket.read_u8().await;
            counted.fetch_add(1, Ordering::SeqCst);
            while socket.read_u8().await.is_ok() {}
        }
    })
    .await;
    let mut config = config("server", "127.0.0.1", app.address);
    // Of which one direction may have three: the connection and two channels.
    config.limits = Limits { connections: 4, ..Limits::default() };
    let policies = Policies::fixed(Some(allow(Protocol::Http1)), []);
    let server = Pod::start(config, policies, authority.credentials(&identity("server")));
    let pod = client(&authority, Protocol::Http1, vec![meshed(server.inbound, "server")]);
    let mut waiting = Vec::new();
    for n in 1..=2 {
        let mut socket = TcpStream::connect(pod.outbound).await.unwrap();
        socket.write_all(GET).await.unwrap();
        waiting.push(socket);
        until(async || (seen.load(Ordering::SeqCst) == n).then_some(()).ok_or_else(|| format!("{n} have not come")))
            .await;
    }
    let request = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let answer = exchange(pod.outbound, request).await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("mesh-error: upstream-reset\r\n"), "{answer}");
    server.counted("mesh_error_total{direction=\"inbound\",code=\"overloaded\"} 2").await;
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn long_answers_are_whole_and_get_connections_of_their_own() {
    const LEN: usize = 300_000;
    let text: Arc<[u8]> = (b'a'..=b'w').cycle().take(LEN).collect();
    let sent = Arc::clone(&text);
    let app = App::new(move |mut socket| {
        let text = Arc::clone(&sent);
        async move {
            let mut read = Vec::new();
            while socket.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
                if read.ends_with(b"\r\n\r\n") {
                    read.clear();
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LEN}\r\n\r\n");
                    socket.write_all(&[head.as_bytes(), &text].concat()).await.unwrap();
                }
            }
        }
    })
    .await;
    let pair = pair(app.address, Protocol::Http1);
    for n in 1..=3 {
        ask(&pair.client, n, &text, LEN).await;
    }
    let (open, closed) = requests(&pair.server).await;
    assert!(open.len() == 2 && closed.is_empty() && open.iter().sum::<u64>() == 6, "{open:?} {closed:?}");
    assert!(open[1] > open[0], "most by the second one: {open:?}");
}

/// Answers by HTTP/2 with the path that was asked for.
async fn answer_paths(tasks: &Tasks, socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
        let path = Bytes::from(request.uri().path().to_owned());
        Ok::<_, std::convert::Infallible>(Response::new(Full::new(path)))
    });
    let server = hyper::server::conn::http2::Builder::new(tasks.executor("app"));
    let _ = server.serve_connection(TokioIo::new(socket), service).await;
}

/// Asks by HTTP/2, so many times at once.
async fn ask_paths(pod: &Pod, tasks: &Tasks, times: usize) {
    let socket = TcpStream::connect(pod.outbound).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(tasks.executor("client"), TokioIo::new(socket)).await.unwrap();
    tasks.spawn("client", async move { drop(connection.await) });
    join_all((0..times).map(|n| {
        let mut sender = sender.clone();
        async move {
            let request = Request::get(format!("http://web/{n}")).body(Empty::<Bytes>::new()).unwrap();
            let answer = soon(sender.send_request(request)).await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), format!("/{n}"));
        }
    }))
    .await;
}

#[tokio::test]
async fn requests_of_http2_share_one_connection_between_the_proxies() {
    let tasks = Tasks::new();
    let of_app = tasks.clone();
    let app = App::new(move |socket| {
        let tasks = of_app.clone();
        async move { answer_paths(&tasks, socket).await }
    })
    .await;
    let pair = pair(app.address, Protocol::Http2);
    join_all((0..4).map(|_| ask_paths(&pair.client, &tasks, ROUNDS))).await;
    let (open, closed) = requests(&pair.server).await;
    assert_eq!((open, closed), (vec![4 * ROUNDS as u64], vec![]));
}

#[tokio::test]
async fn a_peer_that_knows_no_channels_is_asked_by_http2() {
    let (authority, accepted) = (Authority::new(), Arc::new(AtomicUsize::new(0)));
    let mut config = ServerConfig::clone(&authority.credentials(&identity("server")).server().unwrap());
    config.alpn_protocols.retain(|alpn| alpn != names::ALPN_MUX);
    let (acceptor, counted) = (TlsAcceptor::from(Arc::new(config)), Arc::clone(&accepted));
    let tasks = Tasks::new();
    let of_peer = tasks.clone();
    let older = App::new(move |socket| {
        let (counted, acceptor, tasks) = (Arc::clone(&counted), acceptor.clone(), of_peer.clone());
        async move {
            let mut stream = acceptor.accept(socket).await.unwrap();
            if stream.get_ref().1.alpn_protocol() == Some(names::ALPN_H2) {
                counted.fetch_add(1, Ordering::SeqCst);
                answer_paths(&tasks, stream).await;
            } else {
                // Dialled for channels, and kept for requests of HTTP/1, of which there are none.
                assert!(stream.read_u8().await.is_err(), "a request");
            }
        }
    })
    .await;
    let pod = client(&authority, Protocol::Http2, vec![meshed(older.address, "server")]);
    join_all((0..4).map(|_| ask_paths(&pod, &tasks, ROUNDS))).await;
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}
