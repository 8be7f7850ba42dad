//! Requests of the pod's application: routed, balanced, sent, sent once more where that is safe, answered.

use std::rc::Rc;

use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use mesh_proto::{outcome::Outcome, tap::Direction};
use tokio::sync::oneshot;

use super::{Connection, plan::Plan};
use crate::{
    connections::Live,
    error::{ProxyError, Result},
    http::{
        Version,
        body::{Incoming, RequestBody, ResponseBody},
        client::{self, Lease},
        headers,
        repeat::Repeat,
        respond::{self, Asker},
        retry::{self, First},
        serve as server, upgrade,
    },
    pool::Upstream,
    record::Record,
    stream::Stream,
    worker::Worker,
};

/// Serves every request of the connection.
pub(super) async fn serve(connection: Rc<Connection>, version: Version, client: Stream) {
    let desk = Rc::clone(&connection);
    let handle = move |request| answer(Rc::clone(&connection), version, request);
    server::serve(&desk.worker, &desk.side.live, client, version, handle, Some(&*desk)).await;
}

/// Answers every request with the same error.
pub(super) async fn refuse_all(worker: &Rc<Worker>, live: &Live, client: Stream, version: Version, error: ProxyError) {
    let handle = move |request: Request<Incoming>| {
        let mut answer = respond::failed(&error, Asker::of(&request, version));
        // The next connection may find the controller back.
        if version == Version::Http1 {
            answer.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
        }
        std::future::ready(answer)
    };
    server::serve(worker, live, client, version, handle, None::<&Connection>).await;
}

/// What a request brings and its answer needs.
struct Exchange<'a> {
    connection: &'a Connection,
    version: Version,
    /// The client's version of HTTP/1.
    client: http::Version,
    plan: Plan,
    record: Record,
}

async fn answer(
    connection: Rc<Connection>,
    version: Version,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let plan = Plan::new(&connection);
    let asker = Asker::of(&request, version);
    let record = Record::request(&connection.worker, &connection.side, plan.edge(), &mut request, version);
    let mut exchange = Exchange { connection: &connection, version, client: request.version(), plan, record };
    let result = match exchange.forward(request).await {
        Ok((response, Some(upgrade))) => return exchange.switch(response, upgrade),
        Ok((response, None)) => Ok(response),
        Err(error) => Err(error),
    };
    let mut record = exchange.record;
    let response = result.unwrap_or_else(|error| {
        record.failed(&error);
        respond::failed(&error, asker)
    });
    record.answered(response.status(), response.headers());
    response.map(|body| body.recorded(record))
}

/// What comes of a first attempt.
enum Again {
    No(Response<Incoming>, Lease),
    At(Rc<Upstream>, Request<RequestBody>),
}

impl Exchange<'_> {
    /// The server agreed to leave HTTP.
    fn switch(
        self,
        response: Response<ResponseBody>,
        (client, server): (OnUpgrade, oneshot::Receiver<Stream>),
    ) -> Response<ResponseBody> {
        let mut record = self.record;
        record.answered(response.status(), response.headers());
        upgrade::carry(&self.connection.worker, client, server, record, std::future::pending());
        response
    }

    async fn forward(
        &mut self,
        mut request: Request<Incoming>,
    ) -> Result<(Response<ResponseBody>, upgrade::Switching)> {
        let (connection, version) = (self.connection, self.version);
        let worker = &connection.worker;
        worker.shared.limits.request(Direction::Outbound)?;
        let on_upgrade = upgrade::wanted(&mut request, version);
        headers::forward_request(&mut request, version, connection.side.destination)?;
        self.plan.choose(&request)?;
        let (upstream, fresh) = self.plan.first(connection, &mut self.record)?;

        let meter = self.record.body_meter();
        let mut request = request.map(|body| RequestBody::new(body, meter));
        let repeat = Repeat::of(&mut request);
        let idempotent = headers::is_idempotent(request.method());
        let sent = client::send(worker, &upstream, version, request, fresh).await;
        let (response, lease, upstream) = match self.second(&upstream, sent, repeat, idempotent)? {
            Again::No(response, lease) => (response, lease, upstream),
            Again::At(other, request) => {
                let sent = client::send(worker, &other, version, request, None).await;
                let (response, lease) = sent.map_err(|unanswered| unanswered.error)?;
                (response, lease, other)
            }
        };
        self.finish(response, lease, &upstream, on_upgrade)
    }

    /// Whether a first attempt stands, or the request is sent once more.
    fn second(
        &mut self,
        upstream: &Upstream,
        sent: Result<(Response<Incoming>, Lease), Box<client::Unanswered>>,
        repeat: Option<Repeat>,
        idempotent: bool,
    ) -> Result<Again> {
        let worker = &self.connection.worker;
        let repeat = repeat.filter(Repeat::is_whole);
        let kind = retry::Request { repeatable: repeat.is_some(), idempotent };
        match sent {
            Ok((response, lease)) => {
                // Only a proxy of ours can know that the application has not seen the request.
                if upstream.is_mesh() && said_by_peer(&response).is_some_and(|code| code.facts().retry_safe) {
                    // Refusing is quick; it must not look like the quickest endpoint.
                    upstream.failed(worker.config().connect_timeout);
                    let other = self.plan.second(worker, First::Unseen, kind, &mut self.record)?;
                    if let (Some(other), Some(repeat)) = (other, repeat) {
                        return Ok(Again::At(other, repeat.request()));
                    }
                }
                Ok(Again::No(response, lease))
            }
            Err(unanswered) => {
                let other = self.plan.second(worker, unanswered.first(), kind, &mut self.record)?;
                match (other, unanswered.request.or_else(|| repeat.map(Repeat::request))) {
                    (Some(other), Some(request)) => Ok(Again::At(other, request)),
                    _ => Err(unanswered.error),
                }
            }
        }
    }

    fn finish(
        &mut self,
        mut response: Response<Incoming>,
        lease: Lease,
        upstream: &Upstream,
        on_upgrade: Option<OnUpgrade>,
    ) -> Result<(Response<ResponseBody>, upgrade::Switching)> {
        match said_by_peer(&response) {
            Some(outcome) if upstream.is_mesh() => {
                let detail = format!("{}: said by the peer's proxy", upstream.address());
                self.record.failed(&ProxyError::new(outcome, detail));
            }
            // An application that calls itself a mesh.
            _ => headers::strip_error(response.headers_mut()),
        }
        headers::forward_response(&mut response, self.client)?;
        upgrade::agreed(response, lease, on_upgrade)
    }
}

/// The code that the peer's proxy put on the answer.
fn said_by_peer(response: &Response<Incoming>) -> Option<Outcome> {
    Outcome::from_code(response.headers().get(&headers::ERROR)?.to_str().ok()?)
}
