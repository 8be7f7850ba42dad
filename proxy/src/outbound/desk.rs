//! Requests of the pod's application that go the direct way: the same decisions as in [`request`](super::request).

use std::{rc::Rc, sync::Arc};

use http::Request;
use mesh_proto::tap::Direction;

use super::{
    Connection,
    request::{first_member, no_endpoints},
    target::{Compiled, Member, UNROUTED},
};
use crate::{
    error::Result,
    http::{
        direct::Desk,
        retry::{self, First, Second},
    },
    metrics::Edge,
    pool::Upstream,
    record::{Record, Side},
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

impl Desk for Connection {
    type Plan = Plan;

    const STRIPS_CLAIMS: bool = false;

    fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    fn side(&self) -> &Rc<Side> {
        &self.side
    }

    fn plan(&self) -> Plan {
        Plan { compiled: self.target.current(&self.worker), backend: UNROUTED, route: None, member: None }
    }

    fn edge<'a>(&'a self, plan: &'a Plan) -> &'a Arc<Edge> {
        &plan.compiled.edge
    }

    fn first(
        &self,
        plan: &mut Plan,
        request: &dyn Fn() -> Request<()>,
        record: &mut Record,
    ) -> Result<(Rc<Upstream>, Option<Stream>)> {
        self.worker.shared.limits.request(Direction::Outbound)?;
        if plan.compiled.has_routes() {
            let (backend, route) = plan.compiled.choose(&request())?;
            (plan.backend, plan.route) = (backend, route.cloned());
        }
        let (member, fresh) = first_member(self, plan.compiled.backend(plan.backend)?)?;
        let upstream = plan.goes_to(&self.worker, member, record);
        Ok((upstream, fresh))
    }

    fn second(
        &self,
        plan: &mut Plan,
        first: First,
        kind: retry::Request,
        record: &mut Record,
    ) -> Result<Option<Rc<Upstream>>> {
        let balancer = plan.compiled.backend(plan.backend)?;
        let not = match retry::second(first, kind, balancer.len() > 1) {
            Some(Second::Anywhere) => None,
            Some(Second::Elsewhere) => plan.member.as_ref(),
            None => return Ok(None),
        };
        let member = balancer.pick(not).ok_or_else(no_endpoints)?;
        member.edge(&self.worker).retried();
        Ok(Some(plan.goes_to(&self.worker, member, record)))
    }
}

impl Plan {
    fn goes_to(&mut self, worker: &Rc<Worker>, member: Rc<Member>, record: &mut Record) -> Rc<Upstream> {
        record.goes_to(member.edge(worker), &member.upstream, self.route.as_ref());
        Rc::clone(&self.member.insert(member).upstream)
    }
}
