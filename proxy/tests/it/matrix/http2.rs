//! HTTP/2 with prior knowledge, and gRPC: what hyper's own types cannot say is said here frame by frame.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use mesh_proto::workload::Protocol;
use mesh_runtime::tasks::Tasks;
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpStream, sync::Notify};

use crate::support::{App, Pair, families, pair, soon};

const BIG: u32 = 1024 * 1024;

/// An application; `serve` gets each request with the number of its connection.
struct H2App {
    app: App,
    requests: Arc<AtomicUsize>,
    /// Ends the first connection gracefully.
    go_away: Arc<Notify>,
}

impl H2App {
    async fn new<F: Future<Output = ()> + Send + 'static>(
        ip: std::net::IpAddr,
        serve: impl Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + Copy + 'static,
    ) -> Self {
        let (connections, requests) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let go_away = Arc::new(Notify::new());
        let (leave, counted, tasks) = (Arc::clone(&go_away), Arc::clone(&requests), Tasks::new());
        let app = App::at(ip, move |socket| {
            let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
            let (leave, counted, tasks) = (Arc::clone(&leave), Arc::clone(&counted), tasks.clone());
            async move {
                let mut connection = h2::server::Builder::new().handshake(socket).await.unwrap();
                loop {
                    let accepted = tokio::select! {
                        accepted = connection.accept() => accepted,
                        () = leave.notified(), if number == 1 => {
                            connection.graceful_shutdown();
                            continue;
                        }
                    };
                    let Some(Ok((request, answer))) = accepted else { return };
                    counted.fetch_add(1, Ordering::SeqCst);
                    tasks.spawn("request", serve(number, request, answer));
                }
            }
        })
        .await;
        Self { app, requests, go_away }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn connect(pair: &Pair, tasks: &Tasks) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(pair.client.outbound).await.unwrap();
    let (sender, connection) = h2::client::Builder::new().max_header_list_size(BIG).handshake(socket).await.unwrap();
    tasks.spawn("client", async move {
        let _ = connection.await;
    });
    sender.ready().await.unwrap()
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("http://web{path}")).header("content-type", "application/grpc").body(()).unwrap()
}

fn ok() -> Response<()> {
    Response::new(())
}

fn trailers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

/// The next bytes of a body; none at its end.
async fn next(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = soon(body.data()).await;
    if let Some(Ok(data)) = &data {
        let _ = body.flow_control().release_capacity(data.len());
    }
    data
}

/// Sends as much as flow control allows until all is sent.
async fn send_all(stream: &mut SendStream<Bytes>, mut bytes: Bytes, sent: impl Fn(usize)) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(capacity) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return Ok(()) };
        let part = bytes.split_to(capacity?.min(bytes.len()));
        sent(part.len());
        stream.send_data(part, false)?;
    }
    stream.send_data(Bytes::new(), true)
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Detect];

#[tokio::test]
async fn a_stream_goes_both_ways_at_once_and_ends_in_trailers() {
    for ip in families() {
        // Sends each message back as it comes, then the request's trailers as its own.
        let app = H2App::new(ip, |_, request, mut answer| async move {
            let mut stream = answer.send_response(ok(), false).unwrap();
            let mut body = request.into_body();
            while let Some(data) = next(&mut body).await {
                stream.send_data(data.unwrap(), false).unwrap();
            }
            let mut trailers = body.trailers().await.unwrap().unwrap();
            trailers.insert("mesh-error", HeaderValue::from_static("denied"));
            stream.send_trailers(trailers).unwrap();
        })
        .await;
        for protocol in PROTOCOLS {
            let (pair, tasks) = (pair(app.app.address, protocol), Tasks::new());
            let mut sender = connect(&pair, &tasks).await;
            let (answer, mut stream) = sender.send_request(post("/chat"), false).unwrap();
            let mut body = soon(answer).await.unwrap().into_body();
            for message in ["one", "two", "three"] {
                stream.send_data(Bytes::from_static(message.as_bytes()), false).unwrap();
                assert_eq!(next(&mut body).await.unwrap().unwrap(), message, "{protocol:?} {ip}");
            }
            stream.send_trailers(trailers(&[("grpc-status", "0"), ("x-sum", "1"), ("mesh_client_id", "me")])).unwrap();
            assert!(next(&mut body).await.is_none());
            let last = soon(body.trailers()).await.unwrap().unwrap();
            assert_eq!(last, trailers(&[("grpc-status", "0"), ("x-sum", "1")]));
        }
    }
}

#[tokio::test]
async fn an_answer_of_trailers_alone_stays_one() {
    for ip in families() {
        let app = H2App::new(ip, |_, _, mut answer| async move {
            let mut response = ok();
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
            answer.send_response(response, true).unwrap();
        })
        .await;
        let (pair, tasks) = (pair(app.app.address, Protocol::Grpc), Tasks::new());
        let mut sender = connect(&pair, &tasks).await;
        let (answer, _) = sender.send_request(post("/a"), true).unwrap();
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "5");
        assert!(answer.body().is_end_stream(), "in the head");
    }
}

/// Sent, and how far the sender had got when flow control had stopped it for a while.
static SENT: AtomicUsize = AtomicUsize::new(0);
static STOPPED: Notify = Notify::const_new();

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_sender_and_loses_nothing() {
    const WHOLE: u32 = 8 * 1024 * 1024;
    // The windows of the client (64 KiB) and of both proxies (256 KiB each), and what is on its way between them.
    const BOUND: usize = 1024 * 1024;
    fn whole() -> Bytes {
        (0..WHOLE).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
    }
    let app = H2App::new(families()[0], |_, _, mut answer| async move {
        let mut stream = answer.send_response(ok(), false).unwrap();
        let watch = async {
            let mut before = 0;
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                if SENT.load(Ordering::SeqCst) == before && before > 0 {
                    STOPPED.notify_one();
                    std::future::pending::<()>().await;
                }
                before = SENT.load(Ordering::SeqCst);
            }
        };
        tokio::select! {
            sent = send_all(&mut stream, whole(), |n| { SENT.fetch_add(n, Ordering::SeqCst); }) => sent.unwrap(),
            () = watch => {}
        }
    })
    .await;
    let (pair, tasks) = (pair(app.app.address, Protocol::Grpc), Tasks::new());
    let mut sender = connect(&pair, &tasks).await;
    let (answer, _) = sender.send_request(post("/large"), true).unwrap();
    let mut body = soon(answer).await.unwrap().into_body();
    soon(STOPPED.notified()).await;
    let sent = SENT.load(Ordering::SeqCst);
    assert!(sent <= BOUND, "{sent} bytes were taken from the application for a client that reads none");
    let mut hash = Sha256::new();
    while let Some(data) = next(&mut body).await {
        hash.update(data.unwrap());
    }
    assert_eq!(hash.finalize(), Sha256::digest(whole()));
}

#[tokio::test]
async fn a_server_that_goes_away_ends_its_streams_first_and_new_ones_go_elsewhere() {
    for ip in families() {
        // `/long` ends with its request; everything else at once, with the number of its connection.
        let app = H2App::new(ip, |number, request, mut answer| async move {
            let mut stream = answer.send_response(ok(), false).unwrap();
            if request.uri().path() == "/long" {
                stream.send_data(Bytes::from_static(b"begun"), false).unwrap();
                let mut body = request.into_body();
                while next(&mut body).await.is_some() {}
            }
            stream.send_data(Bytes::from(number.to_string()), true).unwrap();
        })
        .await;
        let (pair, tasks) = (pair(app.app.address, Protocol::Grpc), Tasks::new());
        let mut sender = connect(&pair, &tasks).await;
        let (answer, mut long) = sender.send_request(post("/long"), false).unwrap();
        let mut body = soon(answer).await.unwrap().into_body();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "begun");
        app.go_away.notify_one();
        // Those on their way may still be served by the old one; none fails.
        soon(async {
            loop {
                let (answer, _) = sender.send_request(post("/short"), true).unwrap();
                let mut body = answer.await.unwrap().into_body();
                if next(&mut body).await.unwrap().unwrap() == "2" {
                    break;
                }
            }
        })
        .await;
        long.send_data(Bytes::new(), true).unwrap();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "1", "{ip}");
    }
}

#[tokio::test]
async fn a_stream_that_the_server_resets_is_reset_with_the_same_code() {
    for ip in families() {
        // `/before/CODE` or `/after/CODE` the head.
        let app = H2App::new(ip, |_, request, mut answer| async move {
            let (when, code) = request.uri().path()[1..].split_once('/').unwrap();
            let code = Reason::from(code.parse::<u32>().unwrap());
            if when == "before" {
                return answer.send_reset(code);
            }
            let mut stream = answer.send_response(ok(), false).unwrap();
            // When the client has the head.
            let mut body = request.into_body();
            while next(&mut body).await.is_some() {}
            stream.send_reset(code);
        })
        .await;
        let (pair, tasks) = (pair(app.app.address, Protocol::Grpc), Tasks::new());
        let mut sender = connect(&pair, &tasks).await;
        for code in [Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM, Reason::REFUSED_STREAM] {
            let (answer, _) = sender.send_request(post(&format!("/before/{}", u32::from(code))), true).unwrap();
            let error = soon(answer).await.unwrap_err();
            assert_eq!((error.reason(), error.is_remote()), (Some(code), true), "before the head, {ip}");
            let (answer, mut stream) =
                sender.send_request(post(&format!("/after/{}", u32::from(code))), false).unwrap();
            let mut body = soon(answer).await.unwrap().into_body();
            stream.send_data(Bytes::new(), true).unwrap();
            let error = next(&mut body).await.unwrap().unwrap_err();
            assert_eq!((error.reason(), error.is_remote()), (Some(code), true), "after the head, {ip}");
        }
        let edge = r#"{direction="outbound",code="upstream-reset"} 8"#;
        pair.client.counted(&format!("mesh_error_total{edge}")).await;
    }
}

static RESETS: parking_lot::Mutex<Vec<(String, Option<Reason>)>> = parking_lot::Mutex::new(Vec::new());

#[tokio::test]
async fn a_stream_that_the_client_resets_is_reset_at_the_server() {
    for ip in families() {
        let app = H2App::new(ip, |_, request, mut answer| async move {
            let path = request.uri().path().to_owned();
            let mut stream = answer.send_response(ok(), false).unwrap();
            let mut body = request.into_body();
            let reason = loop {
                match body.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break error.reason(),
                    None => break std::future::poll_fn(|cx| stream.poll_reset(cx)).await.ok(),
                }
            };
            RESETS.lock().push((path, reason));
        })
        .await;
        let (pair, tasks) = (pair(app.app.address, Protocol::Grpc), Tasks::new());
        let mut sender = connect(&pair, &tasks).await;
        // Whoever still sends is heard with its code; who only waits for more has left, which is CANCEL.
        for (path, sends, code, at_server) in [
            ("/sends", true, Reason::ENHANCE_YOUR_CALM, Reason::ENHANCE_YOUR_CALM),
            ("/sends", true, Reason::CANCEL, Reason::CANCEL),
            ("/waits", false, Reason::CANCEL, Reason::CANCEL),
        ] {
            let (answer, mut stream) = sender.send_request(post(path), !sends).unwrap();
            let _body = soon(answer).await.unwrap().into_body();
            stream.send_reset(code);
            soon(async {
                while RESETS.lock().is_empty() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            assert_eq!(std::mem::take(&mut *RESETS.lock()), [(path.to_owned(), Some(at_server))], "{ip}");
        }
    }
}

#[tokio::test]
async fn streams_that_nobody_reads_to_their_end_take_no_room_from_the_next_ones() {
    const PART: usize = 512 * 1024;
    // `/down` sends more than anybody reads, `/up` reads nothing and resets; `/whole` sends the body back.
    let app = H2App::new(families()[0], |_, request, mut answer| async move {
        let path = request.uri().path().to_owned();
        let mut stream = answer.send_response(ok(), false).unwrap();
        match path.as_str() {
            "/down" => {
                let _ = send_all(&mut stream, vec![0; PART].into(), |_| {}).await;
            }
            "/up" => stream.send_reset(Reason::CANCEL),
            _ => {
                let mut body = request.into_body();
                let mut bytes = Vec::new();
                while let Some(data) = next(&mut body).await {
                    bytes.extend_from_slice(&data.unwrap());
                }
                send_all(&mut stream, bytes.into(), |_| {}).await.unwrap();
            }
        }
    })
    .await;
    let (pair, tasks) = (pair(app.app.address, Protocol::Grpc), Tasks::new());
    let mut sender = connect(&pair, &tasks).await;
    // Several times the windows of a connection, in each direction.
    for _ in 0..20 {
        let (answer, mut stream) = sender.send_request(post("/down"), true).unwrap();
        let mut body = soon(answer).await.unwrap().into_body();
        assert!(!soon(body.data()).await.unwrap().unwrap().is_empty());
        stream.send_reset(Reason::CANCEL);
        let (answer, mut stream) = sender.send_request(post("/up"), false).unwrap();
        let _ = soon(send_all(&mut stream, vec![0; PART].into(), |_| {})).await;
        let _ = soon(answer).await;
    }
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let (answer, mut stream) = sender.send_request(post("/whole"), false).unwrap();
    let sending = async { send_all(&mut stream, bytes.clone().into(), |_| {}).await.unwrap() };
    let reading = async {
        let mut body = answer.await.unwrap().into_body();
        let mut back = Vec::new();
        while let Some(data) = next(&mut body).await {
            back.extend_from_slice(&data.unwrap());
        }
        back
    };
    let (back, ()) = soon(async { tokio::join!(reading, sending) }).await;
    assert_eq!(Sha256::digest(&back), Sha256::digest(&bytes));
}

static REFUSED: AtomicUsize = AtomicUsize::new(0);

#[tokio::test]
async fn a_request_that_the_server_refused_to_process_is_sent_once_more() {
    let app = H2App::new(families()[0], |_, _, mut answer| async move {
        if REFUSED.fetch_add(1, Ordering::SeqCst) == 0 {
            answer.send_reset(Reason::REFUSED_STREAM);
        } else {
            answer.send_response(ok(), true).unwrap();
        }
    })
    .await;
    let (pair, tasks) = (pair(app.app.address, Protocol::Grpc), Tasks::new());
    let mut sender = connect(&pair, &tasks).await;
    let (answer, _) = sender.send_request(post("/"), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 200);
    assert_eq!(app.requests(), 2);
}

#[tokio::test]
async fn large_heads_pass_up_to_the_limit_and_beyond_it_get_a_code() {
    for ip in families() {
        let app = H2App::new(ip, |_, request, mut answer| async move {
            let mut response = ok();
            *response.headers_mut() = request.headers().clone();
            answer.send_response(response, true).unwrap();
        })
        .await;
        let (pair, tasks) = (pair(app.app.address, Protocol::Http2), Tasks::new());
        let mut sender = connect(&pair, &tasks).await;
        let sized = |n: usize| Request::get("http://web/").header("x", "a".repeat(n)).body(()).unwrap();
        let (answer, _) = sender.send_request(sized(60_000), true).unwrap();
        let answer = soon(answer).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["x"].len()), (200, 60_000), "{ip}");
        let mut many = Request::get("http://web/").body(()).unwrap();
        for _ in 0..129 {
            many.headers_mut().append("x", HeaderValue::from_static("a"));
        }
        for request in [sized(70_000), many] {
            let (answer, _) = sender.send_request(request, true).unwrap();
            let answer = soon(answer).await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["mesh-error"]),
                (431, &"head-too-large".parse().unwrap())
            );
        }
        assert_eq!(app.requests(), 1);
    }
}
