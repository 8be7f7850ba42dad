//! The admin server over real sockets: what it answers, whom it refuses, how it ends.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy exempts only test functions")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use mesh_runtime::admin::{self, Bound, guard};
use mesh_runtime::metrics::Metrics;
use mesh_runtime::readiness::Readiness;
use mesh_runtime::tasks::Tasks;
use mesh_runtime::telemetry::{self, Format, LogHandle};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(30);

/// The log of this test process, started once.
static LOG: OnceLock<LogHandle> = OnceLock::new();

#[tokio::test]
async fn live_ready_and_metrics_are_for_anyone() {
    let server = Server::start(Router::new()).await;
    for host in ["localhost", "10.0.0.7:4191", "evil.example"] {
        assert_eq!(server.get("/live", host).await, (200, "live\n".to_owned()));
        assert_eq!(server.get("/metrics", host).await.0, 200);
    }
    let (_, page) = server.get("/metrics", "localhost").await;
    assert!(page.contains("mesh_build_info{"), "{page}");
}

#[tokio::test]
async fn ready_names_what_it_waits_for_until_it_comes() {
    let server = Server::start(Router::new()).await;
    let identity = server.readiness.block("identity");
    let policy = server.readiness.block("policy");
    let (status, text) = server.get("/ready", "x").await;
    assert_eq!((status, text.as_str()), (503, "not ready, waiting for: identity, policy\n"));
    drop((identity, policy));
    assert_eq!(server.get("/ready", "x").await, (200, "ready\n".to_owned()));
}

#[tokio::test]
async fn an_answer_that_is_held_back_comes_when_ready_or_after_the_seconds_asked_for() {
    let server = Server::start(Router::new()).await;
    let identity = server.readiness.block("identity");
    let asked = tokio::time::Instant::now();
    assert_eq!(server.get("/ready?wait=1", "x").await.0, 503);
    assert!(asked.elapsed() >= Duration::from_millis(990), "{:?}", asked.elapsed());
    for foreign in ["/ready?wait=x", "/ready?wait=-1", "/ready?wait=99999999999999999999"] {
        assert_eq!(server.get(foreign, "x").await.0, 400, "{foreign}");
    }

    let asked = tokio::time::Instant::now();
    let becomes_ready = async {
        // Its connection comes after the one that is held.
        assert_eq!(server.get("/live", "x").await.0, 200);
        drop(identity);
    };
    let ((status, _), ()) = tokio::join!(server.get("/ready?wait=60", "x"), becomes_ready);
    assert_eq!(status, 200);
    assert!(asked.elapsed() < Duration::from_mins(1), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn an_answer_that_is_held_back_does_not_hold_up_the_end() {
    let server = Server::start(Router::new()).await;
    let _never = server.readiness.block("identity");
    let mut stream = server.connect().await;
    stream.write_all(b"GET /ready?wait=60 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let (stopped, answer) = tokio::join!(server.tasks.shutdown(SOON), read_all(stream));
    // Nothing, where the request had not been read yet.
    let answer = answer.unwrap_or_default();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(stopped.is_clean(), "{stopped}");
}

/// One test, since the log of a process is one: no other test may change or reset the filter.
#[tokio::test]
async fn the_log_level_changes_only_for_a_meant_change_from_localhost() {
    let server = Server::start(Router::new()).await;
    server.log.set("info").unwrap();
    let get = |host: &'static str| server.get("/log-level", host);
    assert_eq!(get("localhost:4191").await, (200, "info\n".to_owned()));
    assert_eq!(get("evil.example").await.0, 403);

    let admin = "mesh-admin: 1\r\n";
    let refused = [
        ("POST", "evil.example", admin, 403),
        ("POST", "127.0.0.1.evil.example", admin, 403),
        ("POST", "localhost", "", 403),
        ("PUT", "[::1]:4191", "", 403),
        ("POST", "localhost", "mesh-admin: 0\r\n", 403),
        ("POST", "localhost", "mesh-admin: true\r\n", 403),
        ("POST", "localhost", "mesh-admin:\r\n", 403),
        ("POST", "localhost", "mesh-admin: 1\r\nmesh-admin: 0\r\n", 403),
        ("POST", "localhost\r\nHost: evil.example", admin, 403),
        ("DELETE", "localhost", admin, 405),
    ];
    for (method, host, headers, expected) in refused {
        let (status, text) = server.send(method, "/log-level", host, headers, "debug").await;
        assert_eq!(status, expected, "{method} {host} {headers:?}: {text}");
        assert_eq!(server.log.current(), "info");
    }
    let (status, text) = server.send("POST", "http://evil.example/log-level", "localhost", admin, "debug").await;
    assert_eq!(status, 403, "{text}");

    let (status, text) = server.send("POST", "/log-level", "localhost", admin, "loud").await;
    assert_eq!(status, 400);
    assert!(text.contains("`loud=debug`"), "the answer says what to do: {text}");
    let (status, _) = server.send("POST", "/log-level", "localhost", admin, &"x".repeat(2000)).await;
    assert_eq!(status, 413);
    assert_eq!(server.log.current(), "info");

    for (method, host, filter) in [("POST", "localhost", "debug"), ("PUT", "[::1]:4191", "warn,mesh_runtime=trace")] {
        let answer = server.send(method, "/log-level", host, admin, filter).await;
        assert_eq!(answer, (200, format!("{filter}\n")));
        assert_eq!(server.log.current(), filter);
    }
}

#[tokio::test]
async fn a_guarded_router_lets_in_nobody_from_the_network() {
    let guarded = Router::new()
        .route("/secret", get(|| async { "secret" }))
        .route_layer(axum::middleware::from_extractor::<guard::Loopback>());
    // A layer outside the guard plays a peer on the network; the connection itself cannot leave this machine.
    let from_network = guarded.clone().layer(axum::Extension(ConnectInfo(SocketAddr::from(([10, 0, 0, 7], 1)))));
    let router = guarded.merge(Router::new().nest("/network", from_network));
    let server = Server::start(router).await;
    assert_eq!(server.get("/secret", "localhost").await, (200, "secret".to_owned()));
    let (status, text) = server.get("/network/secret", "localhost").await;
    assert_eq!(status, 403);
    assert!(text.contains("loopback only"), "{text}");
}

#[tokio::test]
async fn http2_in_clear_text_is_served_with_the_same_guards() {
    let server = Server::start(Router::new()).await;
    let stream = TokioIo::new(server.connect().await);
    let executor = server.tasks.executor("test client");
    let (mut client, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
    server.tasks.spawn("test client", async {
        let _ = connection.await;
    });
    for (uri, expected) in
        [("http://localhost/live", 200), ("http://evil.example/live", 200), ("http://evil.example/log-level", 403)]
    {
        let request = axum::http::Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), expected, "{uri}");
        response.into_body().collect().await.unwrap();
    }
}

#[tokio::test]
async fn shutdown_lets_a_request_under_way_finish_and_refuses_new_connections() {
    let (begun, has_begun) = tokio::sync::watch::channel(false);
    let (go_on, may_go_on) = tokio::sync::watch::channel(false);
    let slow = move || async move {
        begun.send_replace(true);
        may_go_on.clone().wait_for(|go| *go).await.unwrap();
        "finished"
    };
    let server = Server::start(Router::new().route("/slow", get(slow))).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    has_begun.clone().wait_for(|begun| *begun).await.unwrap();

    let addr = server.addr;
    let ended = server.tasks.shutdown(SOON);
    let client = async {
        // The listener is gone when a connection is refused.
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
        go_on.send_replace(true);
        read_all(stream).await.unwrap()
    };
    let (stopped, answer) = tokio::join!(ended, client);
    assert!(stopped.is_clean(), "{stopped}");
    assert!(answer.ends_with("finished"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_is_closed() {
    let server = Server::start(Router::new()).await;
    for sent in ["", "GET /live HT", "PRI * HTTP/2.0\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let begun = tokio::time::Instant::now();
        let _ = read_all(stream).await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(14) && took < SOON, "{sent:?}: {took:?}");
    }
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_and_a_freed_place_is_taken_again() {
    let server = Server::start_with(Router::new(), 2).await;
    let mut kept = [server.connect().await, server.connect().await];
    for stream in &mut kept {
        // An answer proves that the server counts this connection.
        stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 15]).await.unwrap();
    }
    // Closed: an end or a reset, whichever comes first.
    let refused = read_all(server.connect().await).await;
    assert!(refused.as_ref().map_or(true, String::is_empty), "{refused:?}");

    drop(kept);
    let served = async {
        loop {
            let mut stream = server.connect().await;
            let _ = stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            if read_all(stream).await.is_ok_and(|answer| answer.ends_with("live\n")) {
                break;
            }
        }
    };
    tokio::time::timeout(SOON, served).await.expect("the freed place is taken");
}

#[tokio::test]
async fn garbage_is_answered_or_closed_and_the_server_lives() {
    let server = Server::start(Router::new()).await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    for garbage in
        [b"\x16\x03\x01\x02\0\x01".repeat(9).as_slice(), b"\0\0\0\0\r\n\r\n", b"HELLO\r\n\r\n", long.as_bytes()]
    {
        let mut stream = server.connect().await;
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let _ = read_all(stream).await;
    }
    assert_eq!(server.get("/live", "x").await.0, 200);
}

#[tokio::test]
async fn a_port_in_use_is_said_so() {
    let server = Server::start(Router::new()).await;
    let error = Bound::bind(server.addr).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&server.addr.to_string()), "{error}");
}

struct Server {
    addr: SocketAddr,
    readiness: Readiness,
    log: LogHandle,
    tasks: Tasks,
}

impl Server {
    async fn start(extra: Router) -> Self {
        Self::start_with(extra, admin::MAX_CONNECTIONS).await
    }

    async fn start_with(extra: Router, max_connections: usize) -> Self {
        let readiness = Readiness::new();
        let log = LOG.get_or_init(|| telemetry::init("info", Format::Plain).unwrap()).clone();
        let tasks = Tasks::new();
        let bound = Bound::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap().max_connections(max_connections);
        let addr = bound.addr;
        let router = admin::router(readiness.clone(), Metrics::new(), log.clone()).merge(extra);
        tasks.spawn("admin", bound.run(router, tasks.cancelled()));
        Self { addr, readiness, log, tasks }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    async fn get(&self, path: &str, host: &str) -> (u16, String) {
        self.send("GET", path, host, "", "").await
    }

    /// Writes the request by hand: a client library would not forge one.
    async fn send(&self, method: &str, path: &str, host: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(SOON, read_all(stream)).await.expect("an answer").unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, body.to_owned())
    }
}

async fn read_all(mut stream: TcpStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    String::from_utf8(bytes).map_err(io::Error::other)
}
