//! HTTP/2 on a client's connection. Called by [`serve`](super::serve).

use std::{future::Future, pin::pin, rc::Rc};

use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::{
    drain::{Client, Drain},
    http::{
        CONNECTION_WINDOW, MAX_HEAD, MAX_STREAMS, STREAM_WINDOW,
        body::{Incoming, ResponseBody},
        control_frames::Bounded,
        ending::Watched,
        respond::Reset,
    },
    stream::Stream,
    worker::Worker,
};

/// Serves every request of `stream`.
pub(super) async fn serve<H, F>(
    worker: &Rc<Worker>,
    stream: Watched<Stream>,
    handle: H,
    drain: &Drain,
    client: Client,
) -> hyper::Result<()>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    // Boxed: hyper makes a task of each stream, which moves what it holds several times.
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        Box::pin(handle(request.map(Incoming::from))).map(|response| match response.extensions().get::<Reset>() {
            Some(Reset(code)) => Err(h2::Error::from(*code)),
            None => Ok(response),
        })
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
        // First: one that has not even begun would not be served at all.
        biased;
        result = connection.as_mut() => return result,
        // GOAWAY with a last stream that is still to come.
        () = drain.is_over_for(client) => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        result = connection => result,
        () = drain.aborted() => Ok(()),
    }
}
