//! Requests to the application: each one authorized, sent on, answered.

use std::{rc::Rc, sync::Arc};

use http::{Request, Response};
use mesh_proto::tap::Direction;

use super::link::Link;
use crate::{
    connections::{Cause, How},
    drain,
    error::{ProxyError, Result},
    http::{
        Version,
        body::{Incoming, RequestBody, ResponseBody},
        client, headers,
        repeat::Repeat,
        respond::{self, Asker},
        retry::{self, First},
        serve as server, upgrade,
    },
    metrics::Edge,
    mux::{self, Channel},
    pool::Upstream,
    record::{BodyMeter, Record},
    stream::Stream,
};

/// What all requests of a connection have in common.
pub(super) struct Connection {
    pub(super) link: Rc<Link>,
    pub(super) app: Rc<Upstream>,
    pub(super) edge: Arc<Edge>,
    version: Version,
}

/// Serves every request of the connection.
pub(super) async fn serve(link: Rc<Link>, client: Stream, version: Version) {
    let connection = Rc::new(Connection::new(&link, version));
    let desk = Rc::clone(&connection);
    let handle = move |request| Rc::clone(&connection).answer(request);
    server::serve(&link.worker, &link.side().live, client, version, handle, Some(&*desk)).await;
}

/// Serves every channel of the connection, each in a task of its own.
pub(super) async fn serve_channels(link: Rc<Link>, client: Stream) {
    let connections = [Version::Http1, Version::Http2].map(|version| Rc::new(Connection::new(&link, version)));
    let worker = &link.worker;
    let serve_one = |channel: Channel| {
        // A channel holds what a connection holds, but for its descriptor.
        let held = match worker.shared.limits.hold(Direction::Inbound) {
            Ok(held) => held,
            Err(error) => {
                worker.shared.metrics.error(Direction::Inbound, error.outcome);
                return channel.refuse();
            }
        };
        let desk = Rc::clone(&connections[channel.carries() as usize]);
        worker.tasks.spawn_local("channel", async move {
            let _held = held;
            let (link, handler) = (&desk.link, Rc::clone(&desk));
            let handle = move |request| Rc::clone(&handler).answer(request);
            server::serve_channel(&link.worker, &link.side().live, channel, handle, &*desk).await;
        });
    };
    let how = match mux::serve(client, worker.shared.drain.is_over_for(drain::Client::Proxy), serve_one).await {
        Ok(()) => How::End,
        Err(error) => {
            tracing::debug!(%error, "a client's connection with channels ended with an error");
            How::of(&error)
        }
    };
    link.side().live.ends(Cause::Client(how));
}

impl Connection {
    fn new(link: &Rc<Link>, version: Version) -> Self {
        Self { app: link.app(), edge: link.edge(), version, link: Rc::clone(link) }
    }

    async fn answer(self: Rc<Self>, mut request: Request<Incoming>) -> Response<ResponseBody> {
        let asker = Asker::of(&request, self.version);
        let mut record = Record::request(&self.link.worker, self.link.side(), &self.edge, &mut request, self.version);
        record.opened();
        match self.forward(request, record.body_meter()).await {
            Ok((response, Some((client, server)))) => {
                record.answered(response.status(), response.headers());
                let link = Rc::clone(&self.link);
                let refused = async move { link.refused().await };
                upgrade::carry(&self.link.worker, client, server, record, refused);
                response
            }
            Ok((response, None)) => {
                record.answered(response.status(), response.headers());
                response.map(|body| body.recorded(record))
            }
            Err(error) => {
                record.failed(&error);
                let response = respond::failed(&error, asker);
                record.answered(response.status(), response.headers());
                response.map(|body| body.recorded(record))
            }
        }
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        meter: BodyMeter,
    ) -> Result<(Response<ResponseBody>, upgrade::Switching)> {
        self.link.authorize()?;
        self.link.worker.shared.limits.request(Direction::Inbound)?;
        let client_version = request.version();
        let on_upgrade = upgrade::wanted(&mut request, self.version);
        headers::forward_request(&mut request, self.version, self.link.side().destination)?;
        headers::strip_claims(request.headers_mut());
        let request = request.map(|body| RequestBody::new(body, meter).without_claims());
        let (mut response, lease) = self.send(request).await?;
        // The application is not a proxy of the mesh, whatever it says.
        headers::strip_error(response.headers_mut());
        headers::forward_response(&mut response, client_version)?;
        upgrade::agreed(response, lease, on_upgrade)
    }

    /// Sends to the application; once more where a kept connection closed under a request that can be repeated.
    async fn send(&self, mut request: Request<RequestBody>) -> Result<(Response<Incoming>, client::Lease)> {
        let worker = &self.link.worker;
        let repeat = Repeat::of(&mut request);
        let idempotent = headers::is_idempotent(request.method());
        let unanswered = match client::send(worker, &self.app, self.version, request, None).await {
            Ok(answer) => return Ok(answer),
            Err(unanswered) => unanswered,
        };
        let repeat = repeat.filter(Repeat::is_whole);
        let kind = retry::Request { repeatable: repeat.is_some(), idempotent };
        match repeat {
            Some(repeat) if is_sent_again(unanswered.first(), kind) => {
                let sent = client::send(worker, &self.app, self.version, repeat.request(), None).await;
                sent.map_err(|unanswered| unanswered.error)
            }
            _ => Err::<_, ProxyError>(unanswered.error),
        }
    }
}

/// Whether there is a second attempt after such a first one. There is no other application, and what it has not been sent it would
/// not take now, either.
pub(super) fn is_sent_again(first: First, kind: retry::Request) -> bool {
    !matches!(first, First::Unsent { .. }) && retry::second(first, kind, false).is_some()
}
