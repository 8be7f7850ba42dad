//! What is kept of a request or connection when it ends: metrics, the live view (tap), the log of failures.
//!
//! A [`Record`] is made where a request begins and written when it is dropped, whatever ended it.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Request, StatusCode};
use mesh_proto::{
    identity::Identity,
    outcome::Outcome,
    tap::{Direction, TapEvent, TapRequestInfo},
    workload::{PodRef, ServicePort},
};
use tokio::time::Instant;

use crate::{
    copy::Meter,
    error::ProxyError,
    http::{Version, body::grpc_status},
    metrics::Edge,
    worker::Worker,
};

/// What all requests of a connection have in common.
pub(crate) struct Side {
    pub(crate) direction: Direction,
    /// Who opened the connection.
    pub(crate) source: SocketAddr,
    /// The client's identity, where it was proved (outbound: the own).
    pub(crate) source_identity: Option<Identity>,
    /// The original destination.
    pub(crate) destination: SocketAddr,
    /// The Service that was dialled, outbound.
    pub(crate) service: Option<ServicePort>,
}

/// One request, or one opaque connection.
pub(crate) struct Record {
    worker: Rc<Worker>,
    side: Rc<Side>,
    edge: Arc<Edge>,
    begun: Instant,
    /// None: an opaque connection.
    request: Option<RequestPart>,
    /// Only while somebody taps: what would otherwise be copied for nobody.
    tap: Option<Box<TapPart>>,
    error: Option<ProxyError>,
    whole: bool,
    opened: bool,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

struct RequestPart {
    http2: bool,
    status: Option<StatusCode>,
    grpc: Option<u32>,
    /// Of the request's body; only while somebody taps.
    body: Option<Rc<Cell<u64>>>,
}

struct TapPart {
    started: SystemTime,
    method: String,
    path: String,
    authority: String,
    route: Option<Arc<str>>,
    destination: SocketAddr,
    destination_identity: Option<Identity>,
    destination_pod: Option<PodRef>,
}

impl Record {
    /// A request begins; `edge` until a better one is known ([`Record::goes_to`]).
    pub(crate) fn request<B>(
        worker: &Rc<Worker>,
        side: &Rc<Side>,
        edge: &Arc<Edge>,
        request: &Request<B>,
        version: Version,
    ) -> Self {
        let tap = worker.shared.tap.is_active().then(|| {
            let authority = request
                .uri()
                .authority()
                .map(http::uri::Authority::as_str)
                .or_else(|| request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok()));
            Box::new(TapPart {
                method: request.method().as_str().to_owned(),
                path: request.uri().path().to_owned(),
                authority: authority.unwrap_or_default().to_owned(),
                ..TapPart::new(worker, side)
            })
        });
        let part = RequestPart {
            http2: version == Version::Http2,
            status: None,
            grpc: None,
            body: tap.is_some().then(Rc::default),
        };
        Self::new(worker, side, edge, Some(part), tap)
    }

    /// An opaque connection begins.
    pub(crate) fn connection(worker: &Rc<Worker>, side: &Rc<Side>, edge: &Arc<Edge>) -> Self {
        let tap = worker.shared.tap.is_active().then(|| Box::new(TapPart::new(worker, side)));
        Self::new(worker, side, edge, None, tap)
    }

    fn new(
        worker: &Rc<Worker>,
        side: &Rc<Side>,
        edge: &Arc<Edge>,
        request: Option<RequestPart>,
        tap: Option<Box<TapPart>>,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            side: Rc::clone(side),
            edge: Arc::clone(edge),
            begun: Instant::now(),
            request,
            tap,
            error: None,
            whole: true,
            opened: false,
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
        }
    }

    /// Where the request's body is counted, if anybody wants to know.
    pub(crate) fn body_count(&self) -> Option<Rc<Cell<u64>>> {
        self.request.as_ref().and_then(|request| request.body.clone())
    }

    /// It goes to this endpoint.
    pub(crate) fn goes_to(&mut self, edge: &Arc<Edge>, upstream: &crate::pool::Upstream, route: Option<&Arc<str>>) {
        self.edge = Arc::clone(edge);
        if let Some(tap) = &mut self.tap {
            tap.destination = upstream.endpoint.address;
            tap.destination_identity.clone_from(&upstream.endpoint.identity);
            tap.destination_pod.clone_from(&upstream.endpoint.pod);
            tap.route = route.cloned();
        }
        self.opened();
    }

    /// It is on its way: a request is counted as begun, a connection as open. Once.
    pub(crate) fn opened(&mut self) {
        if !std::mem::replace(&mut self.opened, true) {
            match &self.request {
                Some(_) => {
                    self.edge.requests.inc();
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
    }

    /// The mesh ends it.
    pub(crate) fn failed(&mut self, error: &ProxyError) {
        self.error = Some(error.clone());
    }

    /// Bytes of the answer's body.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
    }

    /// The answer's trailers.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if let (Some(request), Some(status)) = (&mut self.request, grpc_status(trailers)) {
            request.grpc = Some(status);
        }
    }

    /// The answer broke off: the server's fault.
    pub(crate) fn broke(&mut self, error: &hyper::Error) {
        self.whole = false;
        self.error = Some(ProxyError::new(Outcome::UpstreamReset, error.to_string()));
    }

    /// Somebody did not wait for the end.
    pub(crate) fn cut_off(&mut self) {
        self.whole = false;
    }

    fn write(&mut self, latency: Duration) {
        self.opened();
        match &self.request {
            Some(request) => {
                let code = request.status.map(|status| status.as_u16());
                self.edge.ended(code, request.grpc, self.whole, latency);
            }
            None => self.edge.tcp_closed(self.whole && self.error.is_none()),
        }
        if let Some(error) = &self.error {
            report(&self.worker, &self.side, error);
        }
        if let Some(tap) = self.tap.take() {
            self.worker.shared.tap.publish(|| self.event(*tap, latency));
        }
    }

    fn event(&self, tap: TapPart, latency: Duration) -> TapEvent {
        let bytes_in =
            self.request.as_ref().and_then(|request| request.body.as_ref()).map_or(self.bytes_in.get(), |n| n.get());
        TapEvent {
            direction: self.side.direction,
            started_us: micros(tap.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()),
            latency_us: micros(latency),
            source: self.side.source,
            destination: tap.destination,
            source_identity: self.side.source_identity.clone(),
            destination_identity: tap.destination_identity,
            destination_pod: tap.destination_pod,
            service: self.side.service.clone(),
            tls: self.edge.tls(),
            outcome: self.error.as_ref().map(|error| error.outcome.code().to_owned()).unwrap_or_default(),
            bytes_in,
            bytes_out: self.bytes_out.get(),
            request: self.request.as_ref().map(|request| TapRequestInfo {
                method: tap.method,
                path: tap.path,
                authority: tap.authority,
                status: request.status.map(|status| status.as_u16()),
                grpc_status: request.grpc,
                http2: request.http2,
            }),
            dropped: 0,
            route: tap.route.map(|route| route.to_string()).unwrap_or_default(),
        }
    }
}

impl TapPart {
    fn new(worker: &Worker, side: &Side) -> Self {
        Self {
            started: SystemTime::now(),
            method: String::new(),
            path: String::new(),
            authority: String::new(),
            route: None,
            destination: side.destination,
            destination_identity: match side.direction {
                Direction::Inbound => Some(worker.shared.credentials.identity().clone()),
                Direction::Outbound => None,
            },
            destination_pod: None,
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
        if self.request.is_none() {
            self.edge.tcp_read(bytes);
        }
    }

    fn server_sent(&self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
        if self.request.is_none() {
            self.edge.tcp_written(bytes);
        }
    }
}

/// Counts a failure, and logs it as far as the log's limit allows. For what fails before there is a [`Record`], too.
pub(crate) fn report(worker: &Worker, side: &Side, error: &ProxyError) {
    worker.shared.metrics.error(side.direction, error.outcome);
    if worker.log_limit.allows() {
        tracing::info!(
            direction = side.direction.as_str(),
            source = %side.source,
            client = side.source_identity.as_ref().map(Identity::as_str),
            destination = %side.destination,
            code = error.outcome.code(),
            detail = %error.detail,
            "not carried"
        );
    }
}

/// At most so many lines a second, so that a flood of refused connections is not a flood of log lines as well.
pub(crate) struct LogLimit {
    window: Cell<Instant>,
    used: Cell<u32>,
    left_out: Cell<u64>,
}

const LINES_PER_SECOND: u32 = 20;

impl LogLimit {
    /// With everything still to spend.
    pub(crate) fn new() -> Self {
        Self { window: Cell::new(Instant::now()), used: Cell::new(0), left_out: Cell::new(0) }
    }

    fn allows(&self) -> bool {
        let now = Instant::now();
        if now.saturating_duration_since(self.window.get()) >= Duration::from_secs(1) {
            self.window.set(now);
            self.used.set(0);
            let left_out = self.left_out.take();
            if left_out > 0 {
                tracing::info!(lines = left_out, "left out of the log: more than {LINES_PER_SECOND} a second");
            }
        }
        let allowed = self.used.get() < LINES_PER_SECOND;
        if allowed {
            self.used.set(self.used.get() + 1);
        } else {
            self.left_out.set(self.left_out.get() + 1);
        }
        allowed
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
