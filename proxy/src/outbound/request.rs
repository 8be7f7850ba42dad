//! Requests of the pod's application: routed, balanced, sent, sent once more where that is safe, answered.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use http::{Request, Response, request::Parts};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use mesh_proto::{outcome::Outcome, tap::Direction};
use tokio::sync::oneshot;

use super::{Connection, target::Member};
use crate::{
    balance::Balancer,
    connections::Live,
    error::{ProxyError, Result},
    http::{
        Version,
        body::{RequestBody, ResponseBody},
        client::{self, Lease},
        headers,
        respond::{self, Asker},
        retry::{self, First, Second},
        serve as server, upgrade,
    },
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
    record: RefCell<Record>,
}

async fn answer(
    connection: Rc<Connection>,
    version: Version,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let compiled = connection.target.current(&connection.worker);
    let asker = Asker::of(&request, version);
    let record = Record::request(&connection.worker, &connection.side, &compiled.edge, &mut request, version);
    let exchange =
        Exchange { connection: &connection, version, client: request.version(), record: RefCell::new(record) };
    let result = match forward(&exchange, &compiled, request).await {
        Ok((response, Some(upgrade))) => return exchange.switch(response, upgrade),
        Ok((response, None)) => Ok(response),
        Err(error) => Err(error),
    };
    let mut record = exchange.record.into_inner();
    let response = result.unwrap_or_else(|error| {
        record.failed(&error);
        respond::failed(&error, asker)
    });
    record.answered(response.status(), response.headers());
    response.map(|body| body.recorded(record))
}

impl Exchange<'_> {
    /// The server agreed to leave HTTP.
    fn switch(
        self,
        response: Response<ResponseBody>,
        (client, server): (OnUpgrade, oneshot::Receiver<Stream>),
    ) -> Response<ResponseBody> {
        let mut record = self.record.into_inner();
        record.answered(response.status(), response.headers());
        upgrade::carry(&self.connection.worker, client, server, record, std::future::pending());
        response
    }

    fn goes_to(&self, member: &Member, route: Option<&Arc<str>>) {
        let worker = &self.connection.worker;
        self.record.borrow_mut().goes_to(member.edge(worker), &member.upstream, route);
    }
}

async fn forward(
    exchange: &Exchange<'_>,
    compiled: &super::target::Compiled,
    mut request: Request<Incoming>,
) -> Result<(Response<ResponseBody>, upgrade::Switching)> {
    let connection = exchange.connection;
    connection.worker.shared.limits.request(Direction::Outbound)?;
    let on_upgrade = upgrade::wanted(&mut request, exchange.version);
    headers::forward_request(&mut request, exchange.version, connection.side.destination)?;
    let (backend, route) = compiled.choose(&request)?;
    let balancer = compiled.backend(backend)?;
    let (member, fresh) = first_member(connection, balancer)?;
    exchange.goes_to(&member, route);

    let meter = exchange.record.borrow().body_meter();
    let request = request.map(|body| RequestBody::new(body, meter));
    // Without a body it can be sent a second time; that is decided before it is given away.
    let repeat = client::repeatable_head(&request);
    let idempotent = headers::is_idempotent(request.method());
    let sent = client::send(&connection.worker, &member.upstream, exchange.version, request, fresh).await;
    let (response, lease, member) =
        match second_chance(sent, &member, balancer, repeat, idempotent, connection.worker.config().connect_timeout) {
            Verdict::Take(answer) => (answer.0, answer.1, member),
            Verdict::Fail(error) => return Err(error),
            Verdict::Again { request, not } => {
                let other = balancer.pick(not).ok_or_else(no_endpoints)?;
                exchange.goes_to(&other, route);
                other.edge(&connection.worker).retried();
                let sent = client::send(&connection.worker, &other.upstream, exchange.version, *request, None).await;
                let (response, lease) = sent.map_err(|unanswered| unanswered.error)?;
                (response, lease, other)
            }
        };
    finish(exchange, response, lease, &member, on_upgrade)
}

/// The endpoint of the way that was opened early, if the route leads there; else the balancer's choice.
pub(super) fn first_member(connection: &Connection, balancer: &Balancer) -> Result<(Rc<Member>, Option<Stream>)> {
    if let Some((member, stream)) = connection.early.take()
        && balancer.contains(&member)
    {
        return Ok((member, Some(stream)));
    }
    Ok((balancer.pick(None).ok_or_else(no_endpoints)?, None))
}

enum Verdict<'a> {
    Take((Response<Incoming>, Lease)),
    Again { request: Box<Request<RequestBody>>, not: Option<&'a Rc<Member>> },
    Fail(ProxyError),
}

/// Whether an attempt stands, or the request may be sent once more (contracts §4): see [`retry`].
fn second_chance<'a>(
    sent: Result<(Response<Incoming>, Lease), Box<client::Unanswered>>,
    member: &'a Rc<Member>,
    balancer: &Balancer,
    repeat: Option<Parts>,
    idempotent: bool,
    connect_timeout: Duration,
) -> Verdict<'a> {
    let others = balancer.len() > 1;
    let kind = retry::Request { repeatable: repeat.is_some(), idempotent };
    match sent {
        Ok((response, lease)) => {
            // Only a proxy of ours can know that the application has not seen the request.
            let unseen =
                member.upstream.is_mesh() && said_by_peer(&response).is_some_and(|code| code.facts().retry_safe);
            if unseen {
                // Refusing is quick; it must not look like the quickest endpoint.
                member.upstream.failed(connect_timeout);
            }
            match repeat {
                Some(parts) if unseen && retry::second(First::Unseen, kind, others).is_some() => {
                    Verdict::again(parts, Some(member))
                }
                _ => Verdict::Take((response, lease)),
            }
        }
        Err(unanswered) => {
            let not = match retry::second(unanswered.first(), kind, others) {
                Some(Second::Anywhere) => None,
                Some(Second::Elsewhere) => Some(member),
                None => return Verdict::Fail(unanswered.error),
            };
            match (unanswered.request, repeat) {
                (Some(request), _) => Verdict::Again { request: Box::new(request), not },
                (None, Some(parts)) => Verdict::again(parts, not),
                (None, None) => Verdict::Fail(unanswered.error),
            }
        }
    }
}

impl<'a> Verdict<'a> {
    fn again(parts: Parts, not: Option<&'a Rc<Member>>) -> Self {
        Self::Again { request: Box::new(Request::from_parts(parts, RequestBody::empty())), not }
    }
}

/// The code that the peer's proxy put on the answer.
fn said_by_peer(response: &Response<Incoming>) -> Option<Outcome> {
    Outcome::from_code(response.headers().get(&headers::ERROR)?.to_str().ok()?)
}

fn finish(
    exchange: &Exchange<'_>,
    mut response: Response<Incoming>,
    lease: Lease,
    member: &Member,
    on_upgrade: Option<OnUpgrade>,
) -> Result<(Response<ResponseBody>, upgrade::Switching)> {
    match said_by_peer(&response) {
        Some(outcome) if member.upstream.is_mesh() => {
            let detail = format!("{}: said by the peer's proxy", member.upstream.address());
            exchange.record.borrow_mut().failed(&ProxyError::new(outcome, detail));
        }
        // An application that calls itself a mesh.
        _ => headers::strip_error(response.headers_mut()),
    }
    headers::forward_response(&mut response, exchange.client)?;
    upgrade::agreed(response, lease, on_upgrade)
}

pub(super) fn no_endpoints() -> ProxyError {
    ProxyError::new(Outcome::NoEndpoints, "the backend has no ready endpoint")
}
