//! HTTP/2 stream by stream: flow control and resets.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::Reason;
use mesh_proto::workload::Protocol;
use mesh_runtime::tasks::Tasks;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::{
    h2app::{H2App, connect, next, ok, post, send_all},
    stage::{Side, Stage, noise, soon},
};

/// Sent, and how far the sender had got when flow control had stopped it for a while.
static SENT: AtomicUsize = AtomicUsize::new(0);
static STOPPED: Notify = Notify::const_new();

pub(crate) async fn a_reader_that_does_not_read_stops_the_sender_and_loses_nothing(stage: &impl Stage) {
    const WHOLE: u32 = 8 * 1024 * 1024;
    // The windows of the client (64 KiB) and of both proxies (256 KiB each), and what is on its way between them.
    const BOUND: usize = 1024 * 1024;
    let (listener, way) = stage.open(Protocol::Grpc, stage.families()[0]);
    let _app = H2App::on(listener, |_, _, mut answer| async move {
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
            sent = send_all(&mut stream, noise(WHOLE).into(), |n| { SENT.fetch_add(n, Ordering::SeqCst); }) => sent.unwrap(),
            () = watch => {}
        }
    });
    let tasks = Tasks::new();
    let mut sender = connect(&way, &tasks).await;
    let (answer, _) = sender.send_request(post("/large"), true).unwrap();
    let mut body = soon(answer).await.unwrap().into_body();
    soon(STOPPED.notified()).await;
    let sent = SENT.load(Ordering::SeqCst);
    assert!(sent <= BOUND, "{sent} bytes were taken from the application for a client that reads none");
    let mut hash = Sha256::new();
    while let Some(data) = next(&mut body).await {
        hash.update(data.unwrap());
    }
    assert_eq!(hash.finalize(), Sha256::digest(noise(WHOLE)));
}

pub(crate) async fn a_stream_that_the_server_resets_is_reset_with_the_same_code(stage: &impl Stage) {
    for ip in stage.families() {
        // `/before/CODE` or `/after/CODE` the head.
        let (listener, way) = stage.open(Protocol::Grpc, ip);
        let _app = H2App::on(listener, |_, request, mut answer| async move {
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
        });
        let tasks = Tasks::new();
        let mut sender = connect(&way, &tasks).await;
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
        way.counted(Side::Client, "mesh_error_total", &[r#"direction="outbound",code="upstream-reset""#], 8).await;
    }
}

static RESETS: parking_lot::Mutex<Vec<(String, Option<Reason>)>> = parking_lot::Mutex::new(Vec::new());

pub(crate) async fn a_stream_that_the_client_resets_is_reset_at_the_server(stage: &impl Stage) {
    for ip in stage.families() {
        let (listener, way) = stage.open(Protocol::Grpc, ip);
        let _app = H2App::on(listener, |_, request, mut answer| async move {
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
        });
        let tasks = Tasks::new();
        let mut sender = connect(&way, &tasks).await;
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

pub(crate) async fn streams_that_nobody_reads_to_their_end_take_no_room_from_the_next_ones(stage: &impl Stage) {
    const PART: usize = 512 * 1024;
    // `/down` sends more than anybody reads, `/up` reads nothing and resets; `/whole` sends the body back.
    let (listener, way) = stage.open(Protocol::Grpc, stage.families()[0]);
    let _app = H2App::on(listener, |_, request, mut answer| async move {
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
    });
    let tasks = Tasks::new();
    let mut sender = connect(&way, &tasks).await;
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
    let bytes = noise(2_000_000);
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
