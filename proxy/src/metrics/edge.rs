//! One edge: its labels, and its counters, made when there is something to count, as far as the budget of series goes. What is
//! past that is counted in the edge named `other`.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
};

use super::{Families, LATENCY_BUCKETS, OTHER};

/// Most distinct statuses per edge.
pub(super) const MAX_STATUSES: usize = 24;
/// Series of requests: a counter, and a histogram's buckets with the last one, sum and count.
pub(super) const OF_REQUESTS: usize = 1 + LATENCY_BUCKETS.len() + 3;
/// Series of opaque connections.
pub(super) const OF_BYTES: usize = 4;

/// Between whom. Empty text where it is not known or not said (inbound does not know the Service, outbound is the client).
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EdgeLabels {
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// Namespace of the destination.
    pub dst_namespace: String,
    /// Service that was dialled, outbound.
    pub dst_service: String,
    /// Port that was dialled: of the Service outbound, of the pod inbound.
    pub dst_port: u16,
    /// `kind/name` of what owns the destination pod.
    pub dst_workload: String,
    /// SPIFFE id of the client, inbound, where it was proved.
    pub client_id: String,
    /// `true` where both proxies spoke mutual TLS.
    pub tls: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResponseLabels {
    #[prometheus(flatten)]
    edge: EdgeLabels,
    status_code: String,
    grpc_status: String,
    classification: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CloseLabels {
    #[prometheus(flatten)]
    edge: EdgeLabels,
    classification: &'static str,
}

/// Counters of one edge.
pub struct Edge {
    labels: EdgeLabels,
    families: Weak<Families>,
    requests: OnceLock<Requests>,
    retries: OnceLock<Counter>,
    bytes: OnceLock<Bytes>,
    /// By whether it was in order.
    closed: [OnceLock<Counter>; 2],
    responses: Mutex<Vec<(Status, Counter)>>,
    /// Of statuses past the limit; likewise.
    other_responses: [OnceLock<Counter>; 2],
}

#[derive(Clone)]
struct Requests {
    begun: Counter<u64, AtomicU64>,
    latency: Histogram,
}

#[derive(Clone)]
struct Bytes {
    opened: Counter,
    open: Gauge<i64, AtomicI64>,
    read: Counter,
    written: Counter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    code: Option<u16>,
    grpc: Option<u32>,
    success: bool,
}

impl EdgeLabels {
    pub(super) fn other(direction: &'static str) -> Self {
        Self {
            direction,
            dst_namespace: OTHER.to_owned(),
            dst_service: OTHER.to_owned(),
            dst_port: 0,
            dst_workload: OTHER.to_owned(),
            client_id: OTHER.to_owned(),
            tls: false,
        }
    }
}

impl Edge {
    pub(super) fn new(labels: EdgeLabels, families: &Arc<Families>) -> Self {
        Self {
            labels,
            families: Arc::downgrade(families),
            requests: OnceLock::new(),
            retries: OnceLock::new(),
            bytes: OnceLock::new(),
            closed: Default::default(),
            responses: Mutex::default(),
            other_responses: Default::default(),
        }
    }

    /// Whether the two proxies speak mutual TLS on it.
    pub(crate) fn tls(&self) -> bool {
        self.labels.tls
    }

    /// A request has begun.
    pub(crate) fn request(&self) {
        self.requests().begun.inc();
    }

    /// A request is sent a second time.
    pub(crate) fn retried(&self) {
        self.retries().inc();
    }

    /// A request ended. `code` is none where the client went away before an answer.
    pub(crate) fn ended(&self, code: Option<u16>, grpc: Option<u32>, whole: bool, latency: Duration) {
        self.requests().latency.observe(latency.as_secs_f64() * 1000.0);
        let success = whole && code.is_some_and(|code| code < 500) && grpc.is_none_or(|grpc| grpc == 0);
        let status = Status { code, grpc, success };
        let mut responses = self.responses.lock();
        if let Some((_, counter)) = responses.iter().find(|(known, _)| *known == status) {
            counter.inc();
        } else if responses.len() < MAX_STATUSES && !self.is_other() {
            let counter = self.response(status);
            counter.inc();
            responses.push((status, counter));
        } else {
            self.other_response(success).inc();
        }
    }

    /// An opaque connection was opened.
    pub(crate) fn tcp_opened(&self) {
        let bytes = self.bytes();
        bytes.opened.inc();
        bytes.open.inc();
    }

    /// It was closed.
    pub(crate) fn tcp_closed(&self, success: bool) {
        self.bytes().open.dec();
        self.closed(success).inc();
    }

    /// Bytes came from the client.
    pub(crate) fn tcp_read(&self, bytes: u64) {
        self.bytes().read.inc_by(bytes);
    }

    /// Bytes went to the client.
    pub(crate) fn tcp_written(&self, bytes: u64) {
        self.bytes().written.inc_by(bytes);
    }

    fn requests(&self) -> &Requests {
        let own = |families: &Families, labels: &EdgeLabels| Requests {
            begun: families.requests.get_or_create(labels).clone(),
            latency: families.latency.get_or_create(labels).clone(),
        };
        self.requests.get_or_init(|| self.within_budget(OF_REQUESTS, own, |other| other.requests().clone()))
    }

    fn retries(&self) -> &Counter {
        let own = |families: &Families, labels: &EdgeLabels| families.retries.get_or_create(labels).clone();
        self.retries.get_or_init(|| self.within_budget(1, own, |other| other.retries().clone()))
    }

    fn bytes(&self) -> &Bytes {
        let own = |families: &Families, labels: &EdgeLabels| Bytes {
            opened: families.opened.get_or_create(labels).clone(),
            open: families.open.get_or_create(labels).clone(),
            read: families.read_bytes.get_or_create(labels).clone(),
            written: families.write_bytes.get_or_create(labels).clone(),
        };
        self.bytes.get_or_init(|| self.within_budget(OF_BYTES, own, |other| other.bytes().clone()))
    }

    fn closed(&self, success: bool) -> &Counter {
        let own = |families: &Families, labels: &EdgeLabels| {
            let labels = CloseLabels { edge: labels.clone(), classification: classify(success) };
            families.closed.get_or_create(&labels).clone()
        };
        self.closed[usize::from(success)]
            .get_or_init(|| self.within_budget(1, own, |other| other.closed(success).clone()))
    }

    fn response(&self, status: Status) -> Counter {
        let number = |n: Option<u32>| n.map(|n| n.to_string()).unwrap_or_default();
        let (code, grpc) = (number(status.code.map(u32::from)), number(status.grpc));
        let own = |families: &Families, labels: &EdgeLabels| families.response(labels, code, grpc, status.success);
        self.within_budget(1, own, |other| other.other_response(status.success).clone())
    }

    fn other_response(&self, success: bool) -> &Counter {
        let own = |families: &Families, labels: &EdgeLabels| {
            families.response(labels, OTHER.to_owned(), OTHER.to_owned(), success)
        };
        self.other_responses[usize::from(success)]
            .get_or_init(|| self.within_budget(1, own, |other| other.other_response(success).clone()))
    }

    /// So many series of its own while the budget has them, else those of `other`.
    fn within_budget<T: Unseen>(
        &self,
        series: usize,
        own: impl FnOnce(&Families, &EdgeLabels) -> T,
        of: impl FnOnce(&Self) -> T,
    ) -> T {
        let Some(families) = self.families.upgrade() else { return T::unseen() };
        if self.is_other() || families.budget.take(series) {
            return own(&families, &self.labels);
        }
        families.folded.inc();
        of(&families.other(self.labels.direction))
    }

    fn is_other(&self) -> bool {
        self.labels.dst_workload == OTHER && self.labels.dst_namespace == OTHER
    }
}

/// What is counted where nobody will ever look: the registry is gone.
trait Unseen {
    fn unseen() -> Self;
}

impl Unseen for Counter {
    fn unseen() -> Self {
        Self::default()
    }
}

impl Unseen for Requests {
    fn unseen() -> Self {
        Self { begun: Counter::default(), latency: Histogram::new(LATENCY_BUCKETS) }
    }
}

impl Unseen for Bytes {
    fn unseen() -> Self {
        let (opened, open) = (Counter::default(), Gauge::default());
        Self { opened, open, read: Counter::default(), written: Counter::default() }
    }
}

impl Families {
    fn response(&self, edge: &EdgeLabels, status_code: String, grpc_status: String, success: bool) -> Counter {
        let labels = ResponseLabels { edge: edge.clone(), status_code, grpc_status, classification: classify(success) };
        self.responses.get_or_create(&labels).clone()
    }
}

fn classify(success: bool) -> &'static str {
    if success { "success" } else { "failure" }
}
