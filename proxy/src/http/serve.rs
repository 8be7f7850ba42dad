//! Serves HTTP on a client's connection until it ends, with the limits of reliability.md §1.3, and drains it.

use std::{cell::Cell, convert::Infallible, future::Future, pin::pin, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_proto::outcome::Outcome;

use super::{
    CONNECTION_WINDOW, MAX_HEAD, MAX_HEADERS, MAX_STREAMS, STREAM_WINDOW, Version,
    body::ResponseBody,
    control_frames::Bounded,
    ending::{Ending, Watched},
    guard::{Guard, Verdicts},
    respond::Reset,
};
use crate::{
    connections::{Cause, Live, Why},
    drain::Drain,
    stream::Stream,
    worker::Worker,
};

/// While draining, an HTTP/1 connection that stays idle this long is closed; one in use learns of it by `connection: close`.
/// Closing idle ones at once would race with requests already on the way.
const DRAIN_IDLE: Duration = Duration::from_secs(2);

/// What hyper may have read beyond the end of a head.
const READ_AHEAD: usize = 8 * 1024;

/// Serves every request of the connection `live` with `handle`.
pub(crate) async fn serve<H, F>(worker: &Rc<Worker>, live: &Live, stream: Stream, version: Version, handle: H)
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    let drain = worker.shared.drain.clone();
    let ending = Ending::default();
    let stream = ending.of(stream);
    let result = match version {
        Version::Http1 => serve_http1(worker.config().head_timeout, stream, handle, &drain).await,
        Version::Http2 => serve_http2(worker, stream, handle, &drain).await,
    };
    if let Err(error) = &result {
        tracing::debug!(%error, "a client's HTTP connection ended with an error");
    }
    // One that has left HTTP goes on.
    if !live.has_left_http() {
        let why = || why(&result, live.failure(), &drain);
        live.ends(ending.by_client().map_or_else(|| Cause::Us(why()), Cause::Client));
    }
}

/// Why it ended, where the client did not end it.
fn why(result: &hyper::Result<()>, failed: Option<Outcome>, drain: &Drain) -> Why {
    match result {
        _ if drain.is_aborted() => Why::DrainOver,
        Err(error) if error.is_timeout() => Why::NoPing,
        _ => match failed {
            Some(outcome) => Why::Failed(outcome),
            None if drain.is_draining() => Why::Drain,
            // Before there was a request that could be refused.
            None if result.is_err() => Why::Failed(Outcome::BadRequest),
            None => Why::Done,
        },
    }
}

async fn serve_http1<H, F>(
    head_timeout: Duration,
    stream: Watched<Stream>,
    handle: H,
    drain: &Drain,
) -> hyper::Result<()>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    let verdicts = Arc::new(Verdicts::default());
    let is_late = stream.get_ref().is_late();
    let stream = Guard::new(stream, Arc::clone(&verdicts), head_timeout, is_late);
    let draining = drain.clone();
    let requests = Cell::new(0);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let version = request.version();
        let number = requests.get() + 1;
        requests.set(number);
        if let Some(refusal) = verdicts.refused(number) {
            request.extensions_mut().insert(refusal);
        }
        let answer = handle(request);
        let (draining, verdicts) = (draining.clone(), Arc::clone(&verdicts));
        async move {
            let mut response = answer.await;
            verdicts.answered(number, response.status() == http::StatusCode::SWITCHING_PROTOCOLS);
            if draining.is_draining() && response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                // To hyper, HTTP/1.1 for a client of HTTP/1.0 means to keep the connection.
                *response.version_mut() = version;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        // It would bound how long a connection may be idle as well; `guard` bounds the head alone.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        // With room for what is read behind a head of the longest kind.
        .max_buf_size(MAX_HEAD + READ_AHEAD)
        .half_close(true)
        .preserve_header_case(true)
        // The application's answer decides whether there is a Date.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let idle = async {
        drain.started().await;
        tokio::time::sleep(DRAIN_IDLE).await;
    };
    tokio::select! {
        result = connection.as_mut() => return result,
        () = idle => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        result = connection => result,
        () = drain.aborted() => Ok(()),
    }
}

async fn serve_http2<H, F>(worker: &Rc<Worker>, stream: Watched<Stream>, handle: H, drain: &Drain) -> hyper::Result<()>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    let service = service_fn(move |request| {
        let answer = handle(request);
        async move {
            let response = answer.await;
            match response.extensions().get::<Reset>() {
                Some(Reset(code)) => Err(h2::Error::from(*code)),
                None => Ok(response),
            }
        }
    });
    let limits = &worker.config().limits;
    let connection = hyper::server::conn::http2::Builder::new(worker.tasks.local_executor("http2 request"))
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout)
        .max_concurrent_streams(MAX_STREAMS)
        // Twice as much as is served: what is a little too much gets an answer of ours, with a code.
        .max_header_list_size(u32::try_from(2 * MAX_HEAD).expect("invariant: 128 KiB fits"))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .adaptive_window(false)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(Bounded::client(stream)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        // GOAWAY with a last stream that is still to come: no request is lost.
        () = drain.started() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        result = connection => result,
        () = drain.aborted() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        time::Instant,
    };

    use super::*;
    use crate::stream::{Io, Prefixed};

    const LIMIT: Duration = Duration::from_secs(10);

    /// A client that has said `begun` within the limit of detection, and no more.
    fn late(begun: &'static str) -> (DuplexStream, Stream) {
        let (client, server) = tokio::io::duplex(1024);
        (client, Prefixed::new(Bytes::from_static(begun.as_bytes()), Io::Local(server)).late())
    }

    /// What the client reads until the answer to its first head has come, and when.
    async fn answered(mut client: DuplexStream, stream: Stream) -> (String, Duration) {
        let begun = Instant::now();
        let handle = |request: Request<Incoming>| async move {
            let is_refused = request.extensions().get::<crate::http::head::Refusal>().is_some();
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = if is_refused { StatusCode::REQUEST_TIMEOUT } else { StatusCode::OK };
            response
        };
        let drain = Drain::default();
        let served = serve_http1(LIMIT, Ending::default().of(stream), handle, &drain);
        let read = async {
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                assert!(client.read_buf(&mut answer).await.unwrap() > 0);
            }
            (String::from_utf8(answer).unwrap(), begun.elapsed())
        };
        tokio::select! {
            answer = read => answer,
            result = served => panic!("it ended unanswered: {result:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_had_its_time_in_detection_does_not_get_it_twice() {
        let (client, stream) = late("GET / HT");
        let (answer, after) = answered(client, stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && after < LIMIT / 4, "{answer} after {after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_rest_has_just_come_is_served() {
        let (mut client, stream) = late("GET / HT");
        client.write_all(b"TP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let (answer, _) = answered(client, stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
