//! Requests of the pod's application that go the direct way.

use std::{rc::Rc, sync::Arc};

use http::Request;
use mesh_proto::tap::Direction;

use super::{Connection, plan::Plan};
use crate::{
    error::Result,
    http::{
        direct::Desk,
        retry::{self, First},
    },
    metrics::Edge,
    pool::Upstream,
    record::{Record, Side},
    stream::Stream,
    worker::Worker,
};

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
        Plan::new(self)
    }

    fn edge<'a>(&'a self, plan: &'a Plan) -> &'a Arc<Edge> {
        plan.edge()
    }

    fn first(
        &self,
        plan: &mut Plan,
        request: &dyn Fn() -> Request<()>,
        record: &mut Record,
    ) -> Result<(Rc<Upstream>, Option<Stream>)> {
        self.worker.shared.limits.request(Direction::Outbound)?;
        if plan.has_routes() {
            plan.choose(&request())?;
        }
        plan.first(self, record)
    }

    fn second(
        &self,
        plan: &mut Plan,
        first: First,
        kind: retry::Request,
        record: &mut Record,
    ) -> Result<Option<Rc<Upstream>>> {
        plan.second(&self.worker, first, kind, record)
    }
}
