//! Where a request of the pod's application goes, and where after a first attempt: decided once for both ways of a request,
//! [`request`](super::request) and [`desk`](super::desk).

use std::{rc::Rc, sync::Arc};

use http::Request;
use mesh_proto::outcome::Outcome;

use super::{
    Connection,
    target::{Compiled, Member, UNROUTED},
};
use crate::{
    error::{ProxyError, Result},
    http::retry::{self, First, Second},
    metrics::Edge,
    pool::Upstream,
    record::Record,
    stream::Stream,
    worker::Worker,
};

/// What was decided of one request.
pub(crate) struct Plan {
    compiled: Rc<Compiled>,
    backend: usize,
    route: Option<Arc<str>>,
    member: Option<Rc<Member>>,
}

impl Plan {
    /// By the policy in force now.
    pub(super) fn new(connection: &Connection) -> Self {
        let compiled = connection.target.current(&connection.worker);
        Self { compiled, backend: UNROUTED, route: None, member: None }
    }

    /// Counts what does not get to an endpoint.
    pub(super) fn edge(&self) -> &Arc<Edge> {
        &self.compiled.edge
    }

    /// Whether it depends on the request's content.
    pub(super) fn has_routes(&self) -> bool {
        self.compiled.has_routes()
    }

    /// Follows the route that the request matches.
    pub(super) fn choose<B>(&mut self, request: &Request<B>) -> Result<()> {
        let (backend, route) = self.compiled.choose(request)?;
        (self.backend, self.route) = (backend, route.cloned());
        Ok(())
    }

    /// Where it goes: the endpoint of the way that was opened early, if the route leads there; else the balancer's choice.
    pub(super) fn first(
        &mut self,
        connection: &Connection,
        record: &mut Record,
    ) -> Result<(Rc<Upstream>, Option<Stream>)> {
        let balancer = self.compiled.backend(self.backend)?;
        let (member, fresh) = match connection.early.take().filter(|(member, _)| balancer.contains(member)) {
            Some((member, stream)) => (member, Some(stream)),
            None => (balancer.pick(None).ok_or_else(no_endpoints)?, None),
        };
        Ok((self.goes_to(&connection.worker, member, record), fresh))
    }

    /// Where it goes once more after such a first attempt (contracts §4): see [`retry`]. None: nowhere.
    pub(super) fn second(
        &mut self,
        worker: &Rc<Worker>,
        first: First,
        kind: retry::Request,
        record: &mut Record,
    ) -> Result<Option<Rc<Upstream>>> {
        let balancer = self.compiled.backend(self.backend)?;
        let not = match retry::second(first, kind, balancer.len() > 1) {
            Some(Second::Anywhere) => None,
            Some(Second::Elsewhere) => self.member.as_ref(),
            None => return Ok(None),
        };
        let member = balancer.pick(not).ok_or_else(no_endpoints)?;
        member.edge(worker).retried();
        Ok(Some(self.goes_to(worker, member, record)))
    }

    fn goes_to(&mut self, worker: &Rc<Worker>, member: Rc<Member>, record: &mut Record) -> Rc<Upstream> {
        record.goes_to(member.edge(worker), &member.upstream, self.route.as_ref());
        Rc::clone(&self.member.insert(member).upstream)
    }
}

fn no_endpoints() -> ProxyError {
    ProxyError::new(Outcome::NoEndpoints, "the backend has no ready endpoint")
}
