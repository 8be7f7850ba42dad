//! Serves HTTP on a client's connection until it ends, with the limits of reliability.md §1.3, and drains it: [`http1`], [`http2`].

mod http1;
mod http2;

use std::{future::Future, rc::Rc};

use http::{Request, Response};
use mesh_proto::outcome::Outcome;

use super::{
    Version,
    body::{Incoming, ResponseBody},
    call,
    direct::Desk,
    ending::Ending,
};
use crate::{
    connections::{Cause, Live, Why},
    drain::Drain,
    mux::{Carries, Channel},
    stream::Io,
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
    let cause = requests(worker, live, stream, version, handle, desk).await;
    // One that has left HTTP goes on.
    if !live.has_left_http() {
        live.ends(cause);
    }
}

/// The same of a channel of the connection, which goes on after it.
pub(crate) async fn serve_channel<H, F, D>(worker: &Rc<Worker>, live: &Live, channel: Channel, handle: H, desk: &D)
where
    H: Fn(Request<Incoming>) -> F + Unpin + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
    D: Desk,
{
    match channel.carries() {
        Carries::Http1 => {
            let stream = Io::Channel(channel).into();
            requests(worker, live, stream, Version::Http1, handle, Some(desk)).await;
        }
        Carries::Calls => {
            let handle = move |request: Request<call::Incoming>| handle(request.map(Incoming::from));
            call::serve(channel, worker.config().head_timeout, handle).await;
        }
    }
}

async fn requests<H, F, D>(
    worker: &Rc<Worker>,
    live: &Live,
    stream: Stream,
    version: Version,
    handle: H,
    desk: Option<&D>,
) -> Cause
where
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
    let why = || why(&result, live.failure(), &drain);
    ending.by_client().map_or_else(|| Cause::Us(why()), Cause::Client)
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
