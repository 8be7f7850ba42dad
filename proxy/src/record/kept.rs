//! What is kept of a request or connection beside the counters, for those who watch: copied only while somebody does.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Request, header};
use mesh_proto::{
    identity::Identity,
    tap::{Direction, TapEvent, TapHeader, TapRequestInfo},
    workload::PodRef,
};

use super::{Side, micros};
use crate::{
    http::headers::is_grpc,
    pool::Upstream,
    tap::{Held, Wanted},
    trace::Span,
    worker::Worker,
};

/// Longest method, path and authority that are kept, in bytes: a head may be 64 KiB, and heads are held by the thousand.
const MAX_METHOD: usize = 32;
const MAX_PATH: usize = 2048;
const MAX_AUTHORITY: usize = 256;
/// Longest header value, and most headers of a request or an answer, that are kept where a tap asks for them.
const MAX_VALUE: usize = 256;
const MAX_HEADERS: usize = 8;

/// Kept from the beginning until the end is known.
pub(super) struct Kept {
    started: SystemTime,
    method: String,
    path: String,
    authority: String,
    grpc: bool,
    /// What a tap asked for by name; nothing where none did.
    wanted: Arc<Wanted>,
    query: String,
    request_headers: Vec<TapHeader>,
    response_headers: Vec<TapHeader>,
    answered: Option<Duration>,
    route: Option<Arc<str>>,
    destination: SocketAddr,
    destination_identity: Option<Identity>,
    destination_pod: Option<PodRef>,
    span: Option<Span>,
    /// Room among the heads that are held for taps; none where no tap runs, or too many are.
    held: Option<Held>,
    /// Of the request's body.
    pub(super) body: Rc<Cell<u64>>,
}

/// How it ended.
pub(super) struct End {
    pub(super) latency: Duration,
    pub(super) tls: bool,
    pub(super) outcome: &'static str,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Status, gRPC status, and whether it was HTTP/2; none for an opaque connection.
    pub(super) request: Option<(Option<u16>, Option<u32>, bool)>,
}

impl Kept {
    /// Of a connection.
    pub(super) fn connection(worker: &Worker, side: &Side) -> Self {
        Self { held: hold(worker, 0), ..Self::plain(worker, side) }
    }

    fn plain(worker: &Worker, side: &Side) -> Self {
        Self {
            started: SystemTime::now(),
            method: String::new(),
            path: String::new(),
            authority: String::new(),
            grpc: false,
            wanted: Arc::default(),
            query: String::new(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            answered: None,
            route: None,
            destination: side.destination,
            destination_identity: match side.direction {
                Direction::Inbound => Some(worker.shared.credentials.identity().clone()),
                Direction::Outbound => None,
            },
            destination_pod: None,
            span: None,
            held: None,
            body: Rc::default(),
        }
    }

    /// Of a request.
    pub(super) fn request<B>(worker: &Worker, side: &Side, request: &Request<B>, span: Option<Span>) -> Self {
        let method = clipped(request.method().as_str(), MAX_METHOD);
        let path = clipped(request.uri().path(), MAX_PATH);
        let authority = clipped(authority(request), MAX_AUTHORITY);
        let grpc = is_grpc(request.headers());
        let wanted = worker.shared.observers.tap.wanted();
        let query =
            if wanted.query { clipped(request.uri().query().unwrap_or_default(), MAX_PATH) } else { String::new() };
        let request_headers = chosen(request.headers(), &wanted);
        let headers: usize = request_headers.iter().map(|header| header.name.len() + header.value.len()).sum();
        // Those of the answer are not known yet.
        let of_answer = if wanted.headers.is_empty() { 0 } else { MAX_HEADERS * MAX_VALUE };
        let texts = method.len() + path.len() + authority.len() + query.len() + headers + of_answer;
        let held = hold(worker, texts);
        let plain = Self::plain(worker, side);
        Self { method, path, authority, grpc, wanted, query, request_headers, span, held, ..plain }
    }

    /// The answer has begun, so long after the request.
    pub(super) fn answered(&mut self, after: Duration, headers: &HeaderMap) {
        self.answered = Some(after);
        self.response_headers = chosen(headers, &self.wanted);
    }

    /// It goes to this endpoint.
    pub(super) fn goes_to(&mut self, upstream: &Upstream, route: Option<&Arc<str>>) {
        self.destination = upstream.endpoint.address;
        self.destination_identity.clone_from(&upstream.endpoint.identity);
        self.destination_pod.clone_from(&upstream.endpoint.pod);
        self.route = route.cloned();
    }

    /// All of it, the span that it is, and its room among what taps are shown.
    pub(super) fn event(self, side: &Side, end: End) -> (TapEvent, Option<Span>, Option<Held>) {
        let event = TapEvent {
            direction: side.direction,
            started_us: micros(self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()),
            latency_us: micros(end.latency),
            answered_us: self.answered.map(micros),
            source: side.source,
            destination: self.destination,
            source_identity: side.source_identity.clone(),
            destination_identity: self.destination_identity,
            destination_pod: self.destination_pod,
            service: side.service.clone(),
            tls: end.tls,
            outcome: end.outcome.to_owned(),
            bytes_in: if end.request.is_some() { self.body.get() } else { end.bytes_in },
            bytes_out: end.bytes_out,
            request: end.request.map(|(status, grpc_status, http2)| TapRequestInfo {
                method: self.method,
                path: self.path,
                authority: self.authority,
                status,
                grpc_status,
                http2,
                grpc: self.grpc,
                query: self.query,
                request_headers: self.request_headers,
                response_headers: self.response_headers,
            }),
            dropped: 0,
            route: self.route.map(|route| route.to_string()).unwrap_or_default(),
        };
        (event, self.span, self.held)
    }
}

fn hold(worker: &Worker, texts: usize) -> Option<Held> {
    let tap = &worker.shared.observers.tap;
    tap.is_active().then(|| tap.hold(texts)).flatten()
}

/// The headers that are wanted, in their order.
fn chosen(headers: &HeaderMap, wanted: &Wanted) -> Vec<TapHeader> {
    if wanted.headers.is_empty() {
        return Vec::new();
    }
    let chosen = headers.iter().filter(|(name, _)| wanted.headers.iter().any(|wanted| wanted == name.as_str()));
    let kept = chosen.take(MAX_HEADERS).map(|(name, value)| TapHeader {
        name: name.as_str().to_owned(),
        value: clipped(&String::from_utf8_lossy(value.as_bytes()), MAX_VALUE),
    });
    kept.collect()
}

/// At most `most` bytes of it, and a sign where that is not all.
fn clipped(text: &str, most: usize) -> String {
    match text.len() {
        len if len <= most => text.to_owned(),
        _ => format!("{}…", &text[..text.floor_char_boundary(most)]),
    }
}

fn authority<B>(request: &Request<B>) -> &str {
    let in_uri = request.uri().authority().map(http::uri::Authority::as_str);
    in_uri.or_else(|| request.headers().get(header::HOST).and_then(|host| host.to_str().ok())).unwrap_or_default()
}
