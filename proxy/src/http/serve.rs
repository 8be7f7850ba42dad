//! Serves HTTP on a client's connection until it ends, with the limits of reliability.md §1.3, and drains it: [`http1`], [`http2`].

mod http1;
mod http2;

use std::{future::Future, rc::Rc};

use http::{Request, Response};
use hyper::body::Incoming;
use mesh_proto::outcome::Outcome;

use super::{Version, body::ResponseBody, direct::Desk, ending::Ending};
use crate::{
    connections::{Cause, Live, Why},
    drain::Drain,
    stream::Stream,
    worker::Worker,
};

/// Serves every request of the connection `live` with `handle`; those that may go the direct way, with `desk`.
pub(crate) async fn serve<H, F, D>(
    worker: &Rc<Worker>,
    live: &Live,
    stream: Stream,
    version: Version,
    handle: H,
    desk: Option<&D>,
) where
    H: Fn(Request<Incoming>) -> F + Unpin + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
    D: Desk,
{
    let drain = worker.shared.drain.clone();
    let ending = Ending::default();
    let stream = ending.of(stream);
    let result = match version {
        Version::Http1 => {
            let desk = desk.filter(|_| worker.config().direct);
            http1::serve(worker.config().head_timeout, stream, handle, &drain, desk).await
        }
        // Boxed: a connection of HTTP/1 has no room for it.
        Version::Http2 => Box::pin(http2::serve(worker, stream, handle, &drain, live.client())).await,
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
