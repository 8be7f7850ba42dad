//! Requests to the application that go the direct way.

use std::{rc::Rc, sync::Arc};

use http::Request;
use mesh_proto::tap::Direction;

use super::request::{Connection, is_sent_again};
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
    type Plan = ();

    const STRIPS_CLAIMS: bool = true;

    fn worker(&self) -> &Rc<Worker> {
        &self.link.worker
    }

    fn side(&self) -> &Rc<Side> {
        self.link.side()
    }

    fn plan(&self) {}

    fn edge<'a>(&'a self, (): &'a ()) -> &'a Arc<Edge> {
        &self.edge
    }

    fn first(
        &self,
        (): &mut (),
        _: &dyn Fn() -> Request<()>,
        record: &mut Record,
    ) -> Result<(Rc<Upstream>, Option<Stream>)> {
        record.opened();
        self.link.authorize()?;
        self.link.worker.shared.limits.request(Direction::Inbound)?;
        Ok((Rc::clone(&self.app), None))
    }

    fn second(&self, (): &mut (), first: First, kind: retry::Request, _: &mut Record) -> Result<Option<Rc<Upstream>>> {
        Ok(is_sent_again(first, kind).then(|| Rc::clone(&self.app)))
    }
}
