//! HTTP/2 with prior knowledge, and gRPC: requests and their answers. (One stream for itself is in `streams`.)

use bytes::Bytes;
use h2::Reason;
use http::{HeaderValue, Request};
use mesh_proto::workload::Protocol;
use mesh_runtime::tasks::Tasks;

use super::{
    h2app::{H2App, connect, next, ok, post, send_all, trailers},
    stage::{Stage, soon},
};

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Detect];

pub(crate) async fn a_stream_goes_both_ways_at_once_and_ends_in_trailers(stage: &impl Stage) {
    for ip in stage.families() {
        for protocol in PROTOCOLS {
            let (listener, way) = stage.open(protocol, ip);
            // Sends each message back as it comes, then the request's trailers as its own.
            let _app = H2App::on(listener, |_, request, mut answer| async move {
                let mut stream = answer.send_response(ok(), false).unwrap();
                let mut body = request.into_body();
                while let Some(data) = next(&mut body).await {
                    stream.send_data(data.unwrap(), false).unwrap();
                }
                let mut trailers = body.trailers().await.unwrap().unwrap();
                trailers.insert("mesh-error", HeaderValue::from_static("denied"));
                stream.send_trailers(trailers).unwrap();
            });
            let tasks = Tasks::new();
            let mut sender = connect(&way, &tasks).await;
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

pub(crate) async fn an_answer_of_trailers_alone_stays_one(stage: &impl Stage) {
    for ip in stage.families() {
        let (listener, way) = stage.open(Protocol::Grpc, ip);
        let _app = H2App::on(listener, |_, _, mut answer| async move {
            let mut response = ok();
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
            answer.send_response(response, true).unwrap();
        });
        let tasks = Tasks::new();
        let mut sender = connect(&way, &tasks).await;
        let (answer, _) = sender.send_request(post("/a"), true).unwrap();
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "5");
        assert!(answer.body().is_end_stream(), "in the head");
    }
}

pub(crate) async fn a_server_that_goes_away_ends_its_streams_first_and_new_ones_go_elsewhere(stage: &impl Stage) {
    for ip in stage.families() {
        // `/long` ends with its request; everything else at once, with the number of its connection.
        let (listener, way) = stage.open(Protocol::Grpc, ip);
        let app = H2App::on(listener, |number, request, mut answer| async move {
            let mut stream = answer.send_response(ok(), false).unwrap();
            if request.uri().path() == "/long" {
                stream.send_data(Bytes::from_static(b"begun"), false).unwrap();
                let mut body = request.into_body();
                while next(&mut body).await.is_some() {}
            }
            stream.send_data(Bytes::from(number.to_string()), true).unwrap();
        });
        let tasks = Tasks::new();
        let mut sender = connect(&way, &tasks).await;
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

/// Paths of the requests that were refused.
static REFUSED: parking_lot::Mutex<Vec<String>> = parking_lot::Mutex::new(Vec::new());

pub(crate) async fn a_request_that_the_server_refused_to_process_is_sent_once_more(stage: &impl Stage) {
    // The first time, each path is refused after a message; then everything that comes is sent back.
    let (listener, way) = stage.open(Protocol::Grpc, stage.families()[0]);
    let app = H2App::on(listener, |_, request, mut answer| async move {
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        if !REFUSED.lock().contains(&path) {
            let _ = next(&mut body).await;
            while path == "/large" && next(&mut body).await.is_some() {}
            REFUSED.lock().push(path);
            return answer.send_reset(Reason::REFUSED_STREAM);
        }
        let mut stream = answer.send_response(ok(), false).unwrap();
        while let Some(Ok(data)) = next(&mut body).await {
            stream.send_data(data, false).unwrap();
        }
        stream.send_data(Bytes::new(), true).unwrap();
    });
    let tasks = Tasks::new();
    let mut sender = connect(&way, &tasks).await;
    let (answer, _) = sender.send_request(post("/none"), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 200);
    for whole in [true, false] {
        let (answer, mut stream) = sender.send_request(post(&format!("/small/{whole}")), false).unwrap();
        stream.send_data(Bytes::from_static(b"one, "), false).unwrap();
        if !whole {
            // The second attempt gets what the first one had and what it had not.
            soon(async {
                while app.requests() < 6 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        stream.send_data(Bytes::from_static(b"two"), true).unwrap();
        let mut body = soon(answer).await.unwrap().into_body();
        let mut back = Vec::new();
        while let Some(data) = next(&mut body).await {
            back.extend_from_slice(&data.unwrap());
        }
        assert_eq!(String::from_utf8_lossy(&back), "one, two", "{whole}");
    }
    assert_eq!(app.requests(), 6);
    // More than is kept.
    let (answer, mut stream) = sender.send_request(post("/large"), false).unwrap();
    send_all(&mut stream, vec![0; 17 * 1024].into(), |_| {}).await.unwrap();
    assert_eq!(soon(answer).await.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
    assert_eq!(app.requests(), 7);
}

pub(crate) async fn large_heads_pass_up_to_the_limit_and_beyond_it_get_a_code(stage: &impl Stage) {
    for ip in stage.families() {
        let (listener, way) = stage.open(Protocol::Http2, ip);
        let app = H2App::on(listener, |_, request, mut answer| async move {
            let mut response = ok();
            *response.headers_mut() = request.headers().clone();
            answer.send_response(response, true).unwrap();
        });
        let tasks = Tasks::new();
        let mut sender = connect(&way, &tasks).await;
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
