//! The direct way of HTTP/1.1: the usual request goes from one connection to the other in one task, as the bytes it is, in a
//! buffer of the worker; no message is built from it that is not asked for.
//!
//! Called by `serve` for every HTTP/1 connection. A request that is not the usual one (an upgrade, an expectation, chunks, what is
//! refused; see [`ask`]) is left to hyper's way, which the same bytes then take: it stays the measure of what is right. Where a
//! request goes and whether it may is decided by a [`Desk`], which `outbound` and `inbound` are.

mod answer;
mod ask;
mod attempt;
mod body;
mod exchange;
mod write;

use std::{future::Future as _, pin::pin, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::Request;

use self::{ask::LeftOut, write::Pace};
use super::{ending::Watched, retry};
use crate::{
    buffer,
    drain::Drain,
    error::Result,
    metrics::Edge,
    pool::Upstream,
    record::{Record, Side},
    stream::Stream,
    worker::Worker,
};

/// Decides about the requests of one connection.
pub(crate) trait Desk {
    /// What was decided of one request.
    type Plan;

    /// What comes next is an application, which is not to be told who the client claims to be.
    const STRIPS_CLAIMS: bool;

    fn worker(&self) -> &Rc<Worker>;

    fn side(&self) -> &Rc<Side>;

    /// A request has come.
    fn plan(&self) -> Self::Plan;

    /// Counts it for as long as it is not known where it goes.
    fn edge<'a>(&'a self, plan: &'a Self::Plan) -> &'a Arc<Edge>;

    /// Where it goes, and a connection that is already open and to be used for it. `request` is asked for where the decision
    /// is about its content.
    fn first(
        &self,
        plan: &mut Self::Plan,
        request: &dyn Fn() -> Request<()>,
        record: &mut Record,
    ) -> Result<(Rc<Upstream>, Option<Stream>)>;

    /// Where it goes after that; none: nowhere.
    fn second(
        &self,
        plan: &mut Self::Plan,
        first: retry::First,
        kind: retry::Request,
        record: &mut Record,
    ) -> Result<Option<Rc<Upstream>>>;
}

/// How a connection goes on.
pub(super) enum Next {
    /// By hyper: with what was put back, or with a drain.
    Hyper,
    /// Not at all.
    Over,
}

/// Serves the requests of `client` for as long as they are usual ones.
pub(super) async fn serve<D: Desk>(desk: &D, client: &mut Watched<Stream>, drain: &Drain) -> Next {
    let trace = desk.worker().shared.observers.traces.is_some();
    let left_out = LeftOut { claims: D::STRIPS_CLAIMS, trace };
    let mut draining = pin!(drain.started());
    let mut pace = Pace::new();
    loop {
        let read = match buffer::read(client, None, usize::MAX, |cx| draining.as_mut().poll(cx)).await {
            None => return Next::Hyper,
            Some(Ok((1.., read))) => read,
            Some(Ok(_)) => {
                client.say_end();
                return Next::Over;
            }
            Some(Err(_)) => return Next::Over,
        };
        let mut head = Vec::with_capacity(read.filled().len() + ROOM);
        let ask = ask::read(read.filled(), left_out, &mut head).filter(|_| !drain.is_draining());
        let Some(ask) = ask else {
            client.put_back(Bytes::copy_from_slice(read.filled()));
            return Next::Hyper;
        };
        // Boxed, so that an idle connection has no room for it.
        if !Box::pin(exchange::exchange(desk, client, &mut pace, ask, read, head)).await {
            return Next::Over;
        }
    }
}

/// What a head may need more when it is written anew: a space after each colon.
const ROOM: usize = 64;

/// Writes a header.
fn put_header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put(out, &[name, b": ", value, b"\r\n"]);
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use self::tests::ToApp;
