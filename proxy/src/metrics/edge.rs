//! One edge: its labels, and its counters, found once and then counted with.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
};

use super::{Families, OTHER};

/// Most distinct statuses per edge.
pub(super) const MAX_STATUSES: usize = 24;

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
    /// Requests begun.
    pub(crate) requests: Counter<u64, AtomicU64>,
    /// Requests sent a second time.
    pub(crate) retries: Counter<u64, AtomicU64>,
    latency: Histogram,
    opened: Counter,
    open: Gauge<i64, AtomicI64>,
    read_bytes: Counter,
    write_bytes: Counter,
    responses: Mutex<Vec<(Status, Counter)>>,
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
            requests: families.requests.get_or_create(&labels).clone(),
            retries: families.retries.get_or_create(&labels).clone(),
            latency: families.latency.get_or_create(&labels).clone(),
            opened: families.opened.get_or_create(&labels).clone(),
            open: families.open.get_or_create(&labels).clone(),
            read_bytes: families.read_bytes.get_or_create(&labels).clone(),
            write_bytes: families.write_bytes.get_or_create(&labels).clone(),
            responses: Mutex::default(),
            families: Arc::downgrade(families),
            labels,
        }
    }

    /// Whether the two proxies speak mutual TLS on it.
    pub(crate) fn tls(&self) -> bool {
        self.labels.tls
    }

    /// A request ended. `code` is none where the client went away before an answer.
    pub(crate) fn ended(&self, code: Option<u16>, grpc: Option<u32>, whole: bool, latency: Duration) {
        self.latency.observe(latency.as_secs_f64() * 1000.0);
        let success = whole && code.is_some_and(|code| code < 500) && grpc.is_none_or(|grpc| grpc == 0);
        let status = Status { code, grpc, success };
        let mut responses = self.responses.lock();
        if let Some((_, counter)) = responses.iter().find(|(known, _)| *known == status) {
            counter.inc();
            return;
        }
        let counter = self.response_counter((responses.len() < MAX_STATUSES).then_some(status), success);
        counter.inc();
        if responses.len() < MAX_STATUSES {
            responses.push((status, counter));
        }
    }

    fn response_counter(&self, status: Option<Status>, success: bool) -> Counter {
        let Some(families) = self.families.upgrade() else {
            return Counter::default();
        };
        let number = |n: Option<u32>| n.map(|n| n.to_string()).unwrap_or_default();
        let (status_code, grpc_status) = match status {
            Some(status) => (number(status.code.map(u32::from)), number(status.grpc)),
            None => (OTHER.to_owned(), OTHER.to_owned()),
        };
        let classification = classify(success);
        families
            .responses
            .get_or_create(&ResponseLabels { edge: self.labels.clone(), status_code, grpc_status, classification })
            .clone()
    }

    /// An opaque connection was opened.
    pub(crate) fn tcp_opened(&self) {
        self.opened.inc();
        self.open.inc();
    }

    /// It was closed.
    pub(crate) fn tcp_closed(&self, success: bool) {
        self.open.dec();
        if let Some(families) = self.families.upgrade() {
            families
                .closed
                .get_or_create(&CloseLabels { edge: self.labels.clone(), classification: classify(success) })
                .inc();
        }
    }

    /// Bytes came from the client.
    pub(crate) fn tcp_read(&self, bytes: u64) {
        self.read_bytes.inc_by(bytes);
    }

    /// Bytes went to the client.
    pub(crate) fn tcp_written(&self, bytes: u64) {
        self.write_bytes.inc_by(bytes);
    }
}

fn classify(success: bool) -> &'static str {
    if success { "success" } else { "failure" }
}
