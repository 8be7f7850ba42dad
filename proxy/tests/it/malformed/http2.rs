//! The same for HTTP/2, frame by frame: what is malformed is reset (RFC 9113 §8.1.1), what is merely refused has a code.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use mesh_proto::{
    outbound::{OutboundPolicy, PathMatch, RequestMatch, Route, WeightedBackend},
    workload::Protocol,
};
use mesh_proxy::policy::Policies;
use mesh_runtime::tasks::Tasks;
use mesh_testbed::frames::{
    ACK, CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, frame, opening,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Oracle;
use crate::support::{App, Authority, Pod, SERVICE, config, identity, pair, plain, service, soon};

/// Fields as literals without an index (RFC 7541 §6.2.2), names and values as they are.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Sends a preface and `frames`, and returns the first of the answers that is about a stream or ends the connection: its kind,
/// and its payload.
async fn send(address: std::net::SocketAddr, frames: &[u8]) -> (u8, Vec<u8>) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(&opening()).await.unwrap();
    let _ = socket.write_all(frames).await;
    loop {
        let mut head = [0; 9];
        soon(socket.read_exact(&mut head)).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
        soon(socket.read_exact(&mut payload)).await.unwrap();
        if [HEADERS, RST_STREAM, GOAWAY].contains(&head[3]) {
            return (head[3], payload);
        }
    }
}

const GOOD: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

#[tokio::test]
async fn malformed_streams_are_reset_and_never_forwarded() {
    let oracle = Oracle::new().await;
    let pair = pair(oracle.app.address, Protocol::Http2);
    let with = |more: &[(&'static str, &'static str)]| [&GOOD[..], more].concat();
    let table: [(&str, Vec<(&str, &str)>); 14] = [
        ("a name in upper case", with(&[("Upper", "x")])),
        ("a header of the connection", with(&[("connection", "close")])),
        ("chunks", with(&[("transfer-encoding", "chunked")])),
        ("an upgrade", with(&[("upgrade", "websocket")])),
        ("te that is not trailers", with(&[("te", "gzip")])),
        ("a line break in a value", with(&[("x", "a\r\nhost: b")])),
        ("NUL in a value", with(&[("x", "a\0b")])),
        ("a space in a name", with(&[("a b", "x")])),
        ("no path", GOOD[..3].to_vec()),
        ("an empty path", [&GOOD[..3], &[(":path", "")]].concat()),
        ("no method", GOOD[1..].to_vec()),
        ("two methods", with(&[(":method", "POST")])),
        ("a pseudo-header after the others", [&GOOD[..3], &[("x", "y"), (":path", "/")]].concat()),
        ("an unknown pseudo-header", [&GOOD[..], &[(":x", "y")]].concat()),
    ];
    for (what, fields) in table {
        for address in [pair.client.outbound, pair.server.inbound] {
            let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields));
            let (kind, payload) = send(address, &request).await;
            let code = if kind == GOAWAY { &payload[4..8] } else { &payload[..] };
            assert!(kind != HEADERS, "{what} was answered");
            // PROTOCOL_ERROR, or COMPRESSION_ERROR for what the fields cannot be.
            assert!([[0, 0, 0, 1], [0, 0, 0, 9]].contains(&code.try_into().unwrap()), "{what}: {code:?}");
        }
        assert_eq!(oracle.text(), "", "{what}");
    }
}

#[tokio::test]
async fn requests_of_http2_that_may_not_be_forwarded_have_a_code() {
    let oracle = Oracle::new().await;
    let pair = pair(oracle.app.address, Protocol::Http2);
    for fields in [
        &[&GOOD[..], &[("host", "b")]].concat()[..],
        &[&GOOD[..], &[("host", "a"), ("host", "a")]].concat(),
        &[GOOD[0], GOOD[1], GOOD[3]],
        &[(":method", "CONNECT"), (":authority", "a:80")],
    ] {
        for address in [pair.client.outbound, pair.server.inbound] {
            let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(fields));
            let (kind, payload) = send(address, &request).await;
            // The index of `:status: 400` (RFC 7541, Appendix A).
            assert!(kind == HEADERS && payload[0] == 0x8c, "{fields:?}: {kind} {payload:?}");
        }
    }
    assert_eq!(oracle.text(), "");
    pair.client.counted(r#"mesh_error_total{direction="outbound",code="bad-request"} 4"#).await;
}

#[tokio::test]
async fn a_path_that_does_not_begin_with_a_slash_matches_no_route() {
    let oracle = Oracle::new().await;
    let endpoints = vec![plain(oracle.app.address)];
    let OutboundPolicy::Service(mut target) = service(Protocol::Http2, endpoints) else { panic!("it is a Service") };
    let admin = RequestMatch { path: Some(PathMatch::prefix("/admin").unwrap()), ..RequestMatch::default() };
    let all = vec![WeightedBackend { backend: Some(0), weight: 1 }];
    target.routes = vec![
        Route { name: "admin".into(), matches: vec![admin], backends: vec![] },
        Route { name: "rest".into(), matches: vec![], backends: all },
    ];
    let destination = SERVICE.parse().unwrap();
    let policies = Policies::fixed(None, [(destination, OutboundPolicy::Service(target))]);
    let credentials = Authority::new().credentials(&identity("client"));
    let pod = Pod::start(config("client", "10.9.9.9", destination), policies, credentials);
    for path in ["admin", "admin/x", "http://a/admin"] {
        let fields = [&GOOD[..3], &[(":path", path)]].concat();
        let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields));
        let (kind, payload) = send(pod.outbound, &request).await;
        // Reset, or `:status: 400`.
        assert!(kind == RST_STREAM || (kind == HEADERS && payload[0] == 0x8c), "{path}: {kind} {payload:?}");
    }
    assert_eq!(oracle.text(), "");
}

/// Answer to a request with these headers, by a client that keeps to the rules.
async fn ask(address: std::net::SocketAddr, headers: HeaderMap) -> Result<(u16, String), hyper::Error> {
    let tasks = Tasks::new();
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(tasks.executor("client"), TokioIo::new(socket)).await.unwrap();
    tasks.spawn("client", async move {
        let _ = connection.await;
    });
    let mut request = Request::get("http://web/").body(Empty::<Bytes>::new()).unwrap();
    *request.headers_mut() = headers;
    let answer = soon(sender.send_request(request)).await?;
    let code = answer.headers().get("mesh-error").map(|code| code.to_str().unwrap().to_owned());
    Ok((answer.status().as_u16(), code.unwrap_or_default()))
}

#[tokio::test]
async fn a_head_of_http2_that_is_too_large_has_a_code() {
    let oracle = Oracle::new().await;
    let pair = pair(oracle.app.address, Protocol::Http2);
    let value = |size: usize| HeaderValue::from_str(&"b".repeat(size)).unwrap();
    let many = (0..101).map(|n| (HeaderName::try_from(format!("a{n}")).unwrap(), value(1))).collect();
    let long = HeaderMap::from_iter([(HeaderName::from_static("a"), value(64 * 1024))]);
    for (what, headers) in [("101 headers", many), ("64 KiB", long)] {
        for address in [pair.client.outbound, pair.server.inbound] {
            let answer = ask(address, HeaderMap::clone(&headers)).await.unwrap();
            assert_eq!((answer.0, answer.1.as_str()), (431, "head-too-large"), "{what}");
        }
    }
    // Twice the limit is what is read at all.
    let longest = HeaderMap::from_iter([(HeaderName::from_static("a"), value(600 * 1024))]);
    for address in [pair.client.outbound, pair.server.inbound] {
        let answer = ask(address, longest.clone()).await;
        assert!(!matches!(answer, Ok((200, _))), "{answer:?}");
    }
    assert_eq!(oracle.text(), "");
    pair.client.counted(r#"mesh_error_total{direction="outbound",code="head-too-large"} 2"#).await;
}

#[tokio::test]
async fn the_stream_after_the_200th_is_refused_and_the_others_stay() {
    let (streams, refused) = (1..=200_u32, 401_u32);
    // Takes every request, and answers none.
    let app = App::new(|mut socket| async move {
        let mut read = [0; 4096];
        let _ = socket.write_all(&frame(SETTINGS, 0, 0, &[])).await;
        while socket.read(&mut read).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    let pair = pair(app.address, Protocol::Http2);
    for address in [pair.client.outbound, pair.server.inbound] {
        let mut frames = opening();
        for stream in streams.clone().map(|n| 2 * n - 1).chain([refused]) {
            frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&GOOD)));
        }
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&frames).await.unwrap();
        let mut most = None;
        loop {
            let mut head = [0; 9];
            soon(socket.read_exact(&mut head)).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
            soon(socket.read_exact(&mut payload)).await.unwrap();
            match head[3] {
                // SETTINGS_MAX_CONCURRENT_STREAMS.
                SETTINGS => most = most.or(payload.chunks(6).find(|one| one[..2] == [0, 3]).map(<[u8]>::to_vec)),
                RST_STREAM => {
                    let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
                    // REFUSED_STREAM.
                    assert_eq!((stream, &payload[..]), (refused, &[0, 0, 0, 7][..]));
                    break;
                }
                HEADERS | GOAWAY => panic!("frame of type {}", head[3]),
                _ => {}
            }
        }
        assert_eq!(most.as_deref(), Some(&[0, 3, 0, 0, 0, 200][..]), "it says so");
    }
}

#[tokio::test]
async fn a_head_without_an_end_ends_the_connection() {
    let oracle = Oracle::new().await;
    let pair = pair(oracle.app.address, Protocol::Http2);
    // CVE-2024-27316: CONTINUATION for ever.
    let mut frames = frame(HEADERS, END_STREAM, 1, &block(&GOOD));
    for _ in 0..10_000 {
        frames.extend(frame(CONTINUATION, 0, 1, &block(&[("x", "y")])));
    }
    let (kind, _) = send(pair.client.outbound, &frames).await;
    assert_eq!((kind, oracle.text().as_str()), (GOAWAY, ""));
}

#[tokio::test]
async fn a_client_that_pings_and_asks_nothing_is_told_to_calm_down_after_a_thousand() {
    let oracle = Oracle::new().await;
    let pair = pair(oracle.app.address, Protocol::Http2);
    for address in [pair.client.outbound, pair.server.inbound] {
        // Settings and their receipt are two of them.
        let mut socket = TcpStream::connect(address).await.unwrap();
        let pings = |count| frame(PING, 0, 0, &[0; 8]).repeat(count);
        socket.write_all(&[opening(), frame(SETTINGS, ACK, 0, &[]), pings(998)].concat()).await.unwrap();
        let (mut answered, mut more) = (0, Some(pings(1)));
        let reason = loop {
            let mut head = [0; 9];
            soon(socket.read_exact(&mut head)).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
            soon(socket.read_exact(&mut payload)).await.unwrap();
            match head[3] {
                PING => answered += 1,
                GOAWAY => break payload[4..8].to_vec(),
                _ => {}
            }
            if answered == 998
                && let Some(more) = more.take()
            {
                socket.write_all(&more).await.unwrap();
            }
        };
        // ENHANCE_YOUR_CALM.
        assert_eq!((answered, &reason[..]), (998, &[0, 0, 0, 0xb][..]));
    }
    assert_eq!(oracle.text(), "");
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_opened_end_the_connection() {
    let oracle = Oracle::new().await;
    let pair = pair(oracle.app.address, Protocol::Http2);
    // CVE-2023-44487.
    let mut frames = Vec::new();
    for stream in (1..20_000).step_by(2) {
        frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&GOOD)));
        frames.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    let (kind, payload) = send(pair.client.outbound, &frames).await;
    // ENHANCE_YOUR_CALM.
    assert_eq!((kind, &payload[4..8]), (GOAWAY, &[0, 0, 0, 0xb][..]));
}
