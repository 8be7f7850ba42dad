//! Connections that leave HTTP (WebSocket and the like): once the server has agreed, bytes are copied both ways.
//!
//! Called by the request paths with both ends; hyper gives each up when its part is done.

use std::{future::Future, rc::Rc};

use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_proto::outcome::Outcome;
use tokio::sync::oneshot;

use super::{
    Version,
    body::{Incoming, ResponseBody},
    client::Lease,
    headers,
};
use crate::{
    connections::{Cause, How},
    copy,
    error::{ProxyError, Result},
    record::Record,
    stream::Stream,
    worker::Worker,
};

/// Both ends of a connection that leaves HTTP: the client's and the server's.
pub(crate) type Switching = Option<(OnUpgrade, oneshot::Receiver<Stream>)>;

/// The client's end, if it asks to leave HTTP.
pub(crate) fn wanted<B>(request: &mut Request<B>, version: Version) -> Option<OnUpgrade> {
    (version == Version::Http1 && headers::upgrade_of(request.headers()).is_some()).then(|| hyper::upgrade::on(request))
}

/// The answer that `lease` brings, and both ends if with it the server agreed to what the client asked for.
pub(crate) fn agreed(
    response: Response<Incoming>,
    lease: Lease,
    client: Option<OnUpgrade>,
) -> Result<(Response<ResponseBody>, Switching)> {
    match client {
        _ if response.status() != StatusCode::SWITCHING_PROTOCOLS => Ok((lease.answer(response), None)),
        Some(client) => Ok((response.map(|_| ResponseBody::empty()), Some((client, lease.leave())))),
        // Passed on, it would make a client take for another protocol what is the next answer.
        None => Err(ProxyError::new(Outcome::UpstreamProtocolError, "a change of protocol that nobody asked for")),
    }
}

/// Carries the connection once both ends are out of HTTP, until it ends, is `refused` or the drain is over.
pub(crate) fn carry(
    worker: &Rc<Worker>,
    client: OnUpgrade,
    server: oneshot::Receiver<Stream>,
    mut record: Record,
    refused: impl Future<Output = ProxyError> + 'static,
) {
    record.leaves_http();
    let drain = worker.shared.drain.clone();
    // The connection it was leaves the count of the limit when HTTP is over.
    let guards = (drain.guard(), worker.shared.limits.hold_beside(record.direction()));
    worker.tasks.spawn_local("upgraded connection", async move {
        let _guards = guards;
        let (client, mut server) = match (client.await, server.await) {
            (Ok(client), Ok(server)) => (client, server),
            (Err(error), _) => return unfollowed(&record, Cause::Client(How::Broken), &error),
            (Ok(_), Err(error)) => return unfollowed(&record, Cause::Server(How::Broken), &error),
        };
        let mut client = TokioIo::new(client);
        tokio::select! {
            result = copy::bidirectional(&mut client, &mut server, &record) => {
                record.ends(Cause::of_copy(&result));
                if let Err(error) = result {
                    tracing::debug!(?error, "an upgraded connection broke");
                }
            }
            error = refused => record.failed(&error),
            () = drain.aborted() => record.cut_off(),
        }
    });
}

fn unfollowed(record: &Record, cause: Cause, error: &dyn std::fmt::Display) {
    tracing::debug!(%error, "an upgrade was agreed on, but a connection did not follow");
    record.ends(cause);
}
