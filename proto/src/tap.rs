//! Live requests and connections: what may be asked of a proxy and what it shows. Filtering is here, so that it is
//! decided the same way everywhere. No header and no query appears unless it was asked for by name (contracts §9).

use std::net::SocketAddr;

use crate::{
    identity::Identity,
    workload::{PodRef, ServicePort},
};

/// Which way, seen from the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the pod.
    Inbound,
    /// From the pod.
    Outbound,
}

impl Direction {
    /// Label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What to show. The default matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TapFilter {
    /// Only this direction.
    pub direction: Option<Direction>,
    /// Only this method, exactly.
    pub method: Option<String>,
    /// Only paths that begin so.
    pub path_prefix: Option<String>,
    /// Only this authority, exactly.
    pub authority: Option<String>,
    /// Only these HTTP statuses (inclusive). Excludes connections and requests without an answer.
    pub status: Option<(u16, u16)>,
    /// Only what took at least so many microseconds.
    pub latency_min_us: u64,
    /// At most so many events a second; zero means 100.
    pub max_per_second: u32,
    /// Only traffic of this kind.
    pub kind: Option<TapKind>,
    /// Nothing that any of these describes.
    pub except: Vec<TapExclusion>,
    /// Queries are shown.
    pub show_query: bool,
    /// Headers that are shown, of requests and answers; lower case.
    pub show_headers: Vec<String>,
}

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapKind {
    /// Requests whose content type is gRPC's.
    Grpc,
    /// Opaque connections.
    Tcp,
}

/// What is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapExclusion {
    /// This method, exactly.
    Method(String),
    /// Paths that begin so.
    PathPrefix(String),
    /// This authority, exactly.
    Authority(String),
    /// These HTTP statuses (inclusive).
    Status(u16, u16),
    /// What took at least so many microseconds.
    LatencyMin(u64),
    /// Traffic of this kind.
    Kind(TapKind),
}

/// One finished request or connection.
#[derive(Debug, Clone, PartialEq)]
pub struct TapEvent {
    /// Seen from the pod of the proxy that reports.
    pub direction: Direction,
    /// Begin, microseconds since the epoch.
    pub started_us: u64,
    /// From begin to the end of the answer.
    pub latency_us: u64,
    /// From begin to the head of the answer; none where none came.
    pub answered_us: Option<u64>,
    /// Who opened the connection.
    pub source: SocketAddr,
    /// Where it went: the endpoint, or the original destination where none was picked.
    pub destination: SocketAddr,
    /// The client's identity where it was proved (outbound: the pod's own).
    pub source_identity: Option<Identity>,
    /// The server's identity where it was proved (inbound: the pod's own).
    pub destination_identity: Option<Identity>,
    /// The server's pod, as far as this side knows.
    pub destination_pod: Option<PodRef>,
    /// The Service that was dialled, as far as this side knows.
    pub service: Option<ServicePort>,
    /// Whether the two proxies spoke mutual TLS.
    pub tls: bool,
    /// Code of the outcome where the mesh itself answered or closed; else empty.
    pub outcome: String,
    /// Bytes from the client (bodies only, for requests).
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// None for an opaque connection.
    pub request: Option<TapRequestInfo>,
    /// Events that matched but were left out by the rate limit since the last one shown.
    pub dropped: u64,
    /// Name of the route that matched, or empty.
    pub route: String,
}

/// The request of a [`TapEvent`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TapRequestInfo {
    /// Method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Authority.
    pub authority: String,
    /// Status; none where no answer came.
    pub status: Option<u16>,
    /// gRPC status, where the answer is gRPC.
    pub grpc_status: Option<u32>,
    /// HTTP/2, else HTTP/1.
    pub http2: bool,
    /// gRPC, by its content type.
    pub grpc: bool,
    /// The query without its question mark, where asked for; else empty.
    pub query: String,
    /// Headers of the request that were asked for, in the order in which they came.
    pub request_headers: Vec<TapHeader>,
    /// Headers of the answer that were asked for.
    pub response_headers: Vec<TapHeader>,
}

/// A header of a [`TapEvent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapHeader {
    /// Lower case.
    pub name: String,
    /// Clipped where it is long; bytes that are no text are replaced.
    pub value: String,
}

impl TapEvent {
    /// What goes from `source` to `destination`, with nothing else known of it.
    pub fn between(direction: Direction, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            direction,
            started_us: 0,
            latency_us: 0,
            answered_us: None,
            source,
            destination,
            source_identity: None,
            destination_identity: None,
            destination_pod: None,
            service: None,
            tls: false,
            outcome: String::new(),
            bytes_in: 0,
            bytes_out: 0,
            request: None,
            dropped: 0,
            route: String::new(),
        }
    }

    /// Whether it is traffic of this kind.
    pub fn is(&self, kind: TapKind) -> bool {
        match kind {
            TapKind::Grpc => self.request.as_ref().is_some_and(|request| request.grpc),
            TapKind::Tcp => self.request.is_none(),
        }
    }
}

impl TapFilter {
    /// Whether to show `event`.
    pub fn matches(&self, event: &TapEvent) -> bool {
        let request = event.request.as_ref();
        self.direction.is_none_or(|direction| direction == event.direction)
            && event.latency_us >= self.latency_min_us
            && self.method.as_ref().is_none_or(|method| request.is_some_and(|r| r.method == *method))
            && self.path_prefix.as_ref().is_none_or(|path| request.is_some_and(|r| r.path.starts_with(path.as_str())))
            && self.authority.as_ref().is_none_or(|authority| request.is_some_and(|r| r.authority == *authority))
            && self.status.is_none_or(|range| has_status(event, range))
            && self.kind.is_none_or(|kind| event.is(kind))
            && !self.except.iter().any(|exclusion| exclusion.describes(event))
    }
}

impl TapExclusion {
    /// Whether `event` is left out.
    pub fn describes(&self, event: &TapEvent) -> bool {
        let request = event.request.as_ref();
        match self {
            Self::Method(method) => request.is_some_and(|request| request.method == *method),
            Self::PathPrefix(path) => request.is_some_and(|request| request.path.starts_with(path.as_str())),
            Self::Authority(authority) => request.is_some_and(|request| request.authority == *authority),
            Self::Status(least, most) => has_status(event, (*least, *most)),
            Self::LatencyMin(least) => event.latency_us >= *least,
            Self::Kind(kind) => event.is(*kind),
        }
    }
}

fn has_status(event: &TapEvent, (least, most): (u16, u16)) -> bool {
    let status = event.request.as_ref().and_then(|request| request.status);
    status.is_some_and(|status| (least..=most).contains(&status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(request: Option<(&str, &str, Option<u16>, bool)>) -> TapEvent {
        let (source, destination) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        TapEvent {
            latency_us: 5_000,
            request: request.map(|(method, path, status, grpc)| TapRequestInfo {
                method: method.to_owned(),
                path: path.to_owned(),
                authority: "web".to_owned(),
                status,
                grpc,
                ..TapRequestInfo::default()
            }),
            ..TapEvent::between(Direction::Inbound, source, destination)
        }
    }

    #[test]
    fn an_event_is_shown_if_it_is_all_that_is_wanted_and_nothing_that_is_not() {
        let get = event(Some(("GET", "/items/1", Some(200), false)));
        let call = event(Some(("POST", "/shop.v1.Prices/Quote", Some(200), true)));
        let cut = event(Some(("GET", "/items/2", None, false)));
        let opaque = event(None);
        let all = [&get, &call, &cut, &opaque];
        let any = TapFilter::default;
        let not = |exclusion| TapFilter { except: vec![exclusion], ..any() };
        for (what, filter, shown) in [
            ("all", any(), [true, true, true, true]),
            ("gRPC", TapFilter { kind: Some(TapKind::Grpc), ..any() }, [false, true, false, false]),
            ("TCP", TapFilter { kind: Some(TapKind::Tcp), ..any() }, [false, false, false, true]),
            ("2xx", TapFilter { status: Some((200, 299)), ..any() }, [true, true, false, false]),
            ("not 2xx", not(TapExclusion::Status(200, 299)), [false, false, true, true]),
            ("not TCP", not(TapExclusion::Kind(TapKind::Tcp)), [true, true, true, false]),
            ("not GET", not(TapExclusion::Method("GET".into())), [false, true, false, true]),
            ("not /items", not(TapExclusion::PathPrefix("/items".into())), [false, true, false, true]),
            ("not web", not(TapExclusion::Authority("web".into())), [false, false, false, true]),
            ("not slow", not(TapExclusion::LatencyMin(5_000)), [false; 4]),
            ("not very slow", not(TapExclusion::LatencyMin(5_001)), [true; 4]),
        ] {
            assert_eq!(all.map(|event| filter.matches(event)), shown, "{what}");
        }
    }
}
