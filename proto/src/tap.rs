//! Live requests and connections: what may be asked of a proxy and what it shows. Filtering is here, so that it is
//! decided the same way everywhere. No header and no query ever appears (contracts §9).

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
            && self.status.is_none_or(|(least, most)| {
                request.and_then(|r| r.status).is_some_and(|status| (least..=most).contains(&status))
            })
    }
}
