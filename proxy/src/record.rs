//! What is kept of a request or connection when it ends: metrics, the entry among the open connections, and, for those
//! who watch (`observers`), the rest.
//!
//! A [`Record`] is made where a request begins and written when it is dropped, whatever ended it.

mod kept;
mod report;
mod side;

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderMap, Request, StatusCode};
use mesh_proto::{outcome::Outcome, tap::Direction};
use tokio::time::Instant;

use self::kept::{End, Kept};
pub(crate) use self::{
    report::{LogLimit, report},
    side::Side,
};
use crate::{
    connections::{Cause, Live, Name},
    copy::Meter,
    drain::Open,
    error::ProxyError,
    http::{Version, body::grpc_status},
    metrics::Edge,
    pool::Upstream,
    worker::Worker,
};

/// One request, or one opaque connection.
pub(crate) struct Record {
    worker: Rc<Worker>,
    side: Rc<Side>,
    edge: Arc<Edge>,
    begun: Instant,
    /// None: an opaque connection.
    request: Option<RequestPart>,
    /// Only while somebody watches: what would otherwise be copied for nobody.
    kept: Option<Box<Kept>>,
    error: Option<ProxyError>,
    whole: bool,
    opened: bool,
    /// For the application of this pod, whose end waits for it.
    waited_for: Option<Open>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

struct RequestPart {
    version: Version,
    status: Option<StatusCode>,
    grpc: Option<u32>,
}

/// Counts the bytes of a request's body.
pub(crate) struct BodyMeter {
    live: Rc<Live>,
    /// Of this request alone; only while somebody watches.
    request: Option<Rc<Cell<u64>>>,
}

impl Record {
    /// A request begins; `edge` until a better one is known ([`Record::goes_to`]). It is told of its trace.
    pub(crate) fn request<B>(
        worker: &Rc<Worker>,
        side: &Rc<Side>,
        edge: &Arc<Edge>,
        request: &mut Request<B>,
        version: Version,
    ) -> Self {
        let observers = &worker.shared.observers;
        let span = observers.span(request);
        let wanted = span.is_some() || observers.any();
        let kept = wanted.then(|| Box::new(Kept::request(worker, side, request, span)));
        Self::begun(worker, side, edge, version, kept)
    }

    /// The same of a request of HTTP/1.1 that is made only where somebody looks at it; given back where it is told of its trace.
    pub(crate) fn head(
        worker: &Rc<Worker>,
        side: &Rc<Side>,
        edge: &Arc<Edge>,
        request: impl FnOnce() -> Request<()>,
    ) -> (Self, Option<Request<()>>) {
        let observers = &worker.shared.observers;
        if !observers.any() && observers.traces.is_none() {
            return (Self::begun(worker, side, edge, Version::Http1, None), None);
        }
        let mut request = request();
        let record = Self::request(worker, side, edge, &mut request, Version::Http1);
        (record, observers.traces.is_some().then_some(request))
    }

    fn begun(
        worker: &Rc<Worker>,
        side: &Rc<Side>,
        edge: &Arc<Edge>,
        version: Version,
        kept: Option<Box<Kept>>,
    ) -> Self {
        side.live.request_began(version);
        let part = RequestPart { version, status: None, grpc: None };
        let open = (side.direction == Direction::Inbound).then(|| worker.shared.drain.comes());
        let mut record = Self::new(worker, side, edge, Some(part), kept);
        record.waited_for = open;
        record
    }

    /// Whether somebody looks at more of it than is counted.
    pub(crate) fn is_watched(&self) -> bool {
        self.kept.is_some()
    }

    /// Whose connection it belongs to.
    pub(crate) fn direction(&self) -> Direction {
        self.side.direction
    }

    /// An opaque connection begins.
    pub(crate) fn connection(worker: &Rc<Worker>, side: &Rc<Side>, edge: &Arc<Edge>) -> Self {
        side.live.carries_bytes();
        if side.direction == Direction::Inbound {
            // That it comes counts. When it is over is up to its two ends, and may be never.
            drop(worker.shared.drain.comes());
        }
        let kept = worker.shared.observers.any().then(|| Box::new(Kept::connection(worker, side)));
        Self::new(worker, side, edge, None, kept)
    }

    fn new(
        worker: &Rc<Worker>,
        side: &Rc<Side>,
        edge: &Arc<Edge>,
        request: Option<RequestPart>,
        kept: Option<Box<Kept>>,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            side: Rc::clone(side),
            edge: Arc::clone(edge),
            begun: Instant::now(),
            request,
            kept,
            error: None,
            whole: true,
            opened: false,
            waited_for: None,
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
        }
    }

    /// Where the request's body is counted.
    pub(crate) fn body_meter(&self) -> BodyMeter {
        let request = self.kept.as_ref().map(|kept| Rc::clone(&kept.body));
        BodyMeter { live: Rc::clone(&self.side.live), request }
    }

    /// It goes to this endpoint.
    pub(crate) fn goes_to(&mut self, edge: &Arc<Edge>, upstream: &Upstream, route: Option<&Arc<str>>) {
        self.edge = Arc::clone(edge);
        let live = &self.side.live;
        live.goes_to(upstream.endpoint.address);
        live.speaks_tls(edge.tls());
        live.may_be_called(|| upstream.endpoint.pod.clone().map(Name::Pod));
        if let Some(kept) = &mut self.kept {
            kept.goes_to(upstream, route);
        }
        self.opened();
    }

    /// It is on its way: a request is counted as begun, a connection as open. Once.
    pub(crate) fn opened(&mut self) {
        if !std::mem::replace(&mut self.opened, true) {
            match &self.request {
                Some(_) => {
                    self.edge.request();
                }
                None => self.edge.tcp_opened(),
            }
        }
    }

    /// The answer has begun.
    pub(crate) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        if let Some(request) = &mut self.request {
            request.status = Some(status);
            request.grpc = grpc_status(headers);
        }
        if let Some(kept) = &mut self.kept {
            kept.answered(self.begun.elapsed(), headers);
        }
    }

    /// The mesh ends it.
    pub(crate) fn failed(&mut self, error: &ProxyError) {
        self.error = Some(error.clone());
    }

    /// Bytes of the answer's body.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
        self.side.live.sent(bytes);
    }

    /// The answer's trailers.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if let (Some(request), Some(status)) = (&mut self.request, grpc_status(trailers)) {
            request.grpc = Some(status);
        }
    }

    /// The answer broke off: the server's fault.
    pub(crate) fn broke(&mut self, error: impl std::fmt::Display) {
        self.whole = false;
        self.error = Some(ProxyError::new(Outcome::UpstreamReset, error.to_string()));
    }

    /// Somebody did not wait for the end.
    pub(crate) fn cut_off(&mut self) {
        self.whole = false;
    }

    /// Everybody got all of it after all.
    pub(crate) fn went_whole(&mut self) {
        self.whole = true;
    }

    /// So the connection it is on comes to its end.
    pub(crate) fn ends(&self, cause: Cause) {
        self.side.live.ends(cause);
    }

    /// The connection it is on leaves HTTP.
    pub(crate) fn leaves_http(&self) {
        self.side.live.leaves_http();
    }

    fn write(&mut self, latency: Duration) {
        self.opened();
        drop(self.waited_for.take());
        match &self.request {
            Some(request) => {
                let code = request.status.map(|status| status.as_u16());
                self.edge.ended(code, request.grpc, self.whole, latency);
                self.side.live.request_ended();
            }
            None => self.edge.tcp_closed(self.whole && self.error.is_none()),
        }
        if let Some(error) = &self.error {
            report(&self.worker, &self.side, error);
        }
        if let Some(kept) = self.kept.take() {
            let end = End {
                latency,
                tls: self.edge.tls(),
                outcome: self.error.as_ref().map(|error| error.outcome.code()).unwrap_or_default(),
                bytes_in: self.bytes_in.get(),
                bytes_out: self.bytes_out.get(),
                request: self.request.as_ref().map(|request| {
                    (request.status.map(|status| status.as_u16()), request.grpc, request.version == Version::Http2)
                }),
            };
            let (event, span, held) = kept.event(&self.side, end);
            self.worker.shared.observers.show(event, span, held);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let latency = self.begun.elapsed();
        self.write(latency);
    }
}

impl Meter for Record {
    fn client_sent(&self, bytes: u64) {
        self.bytes_in.set(self.bytes_in.get() + bytes);
        self.side.live.received(bytes);
        if self.request.is_none() {
            self.edge.tcp_read(bytes);
        }
    }

    fn server_sent(&self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
        self.side.live.sent(bytes);
        if self.request.is_none() {
            self.edge.tcp_written(bytes);
        }
    }
}

impl BodyMeter {
    /// So many bytes more.
    pub(crate) fn add(&self, bytes: u64) {
        self.live.received(bytes);
        if let Some(count) = &self.request {
            count.set(count.get() + bytes);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{access_log::AccessLog, metrics::EdgeLabels, observers::Observers};

    /// Allocations of what is recorded of one more request, with these observers.
    fn allocations(observers: Observers) -> u64 {
        let worker = Rc::new(Worker::of_tests(observers));
        let (client, service) = (([10, 0, 0, 9], 40_000).into(), ([10, 96, 0, 1], 80).into());
        let side = Rc::new(Side::outbound(&worker, client, service));
        let edge = worker.shared.metrics.edge(EdgeLabels {
            direction: "outbound",
            dst_namespace: "shop".into(),
            dst_service: "web".into(),
            dst_port: 80,
            dst_workload: String::new(),
            client_id: String::new(),
            tls: true,
        });
        let mut request = Request::get("/items/7?q=1").header("host", "web").header("x-a", "b").body(()).unwrap();
        let answer = HeaderMap::new();
        let mut one_more = || {
            let mut record = Record::request(&worker, &side, &edge, &mut request, Version::Http1);
            record.opened();
            record.body_meter().add(5);
            record.answered(StatusCode::OK, &answer);
            record.sent(7);
        };
        // The first one makes the series of its status.
        one_more();
        allocation_counter::measure(one_more).count_total
    }

    #[test]
    fn a_log_a_tap_and_traces_that_are_off_cost_no_allocation() {
        let off = allocations(Observers::default());
        let own = ("shop".to_owned(), "web-1".to_owned());
        let registry = mesh_runtime::metrics::Metrics::new();
        let (log, writer) = AccessLog::start(own, std::io::sink(), &registry).unwrap();
        let on = allocations(Observers { access_log: Some(log), ..Observers::default() });
        assert!(writer.finish(Duration::from_secs(20)));
        assert_eq!(off, 0);
        assert!(on > 5, "{on} with a log: does this test still count anything?");
    }
}
