//! Every metric of the controller. Labels are kinds and codes: their number is fixed.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_proto::outcome::Outcome;
use mesh_runtime::metrics::Metrics as Registry;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

use crate::source::Kind;

/// All families. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    objects: Family<KindLabel, Gauge>,
    problems: Gauge,
    lists: Family<KindLabel, Counter>,
    source_failures: Family<KindLabel, Counter>,
    topics: Gauge,
    streams: Gauge,
    rejected: Counter,
    publish: Histogram,
    drains: Counter,
    let_go: Histogram,
    issued: Counter,
    issuer: Gauge,
    leader: Gauge,
    refused: Family<RefusalLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabel {
    call: &'static str,
    code: &'static str,
}

/// Seconds. The aim is 0.2 at the 99th percentile.
const PUBLISH_BUCKETS: [f64; 11] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 2.0];
/// Seconds. Kubernetes takes up to a second or two to withdraw an endpoint; a pod waits for ten.
const LET_GO_BUCKETS: [f64; 9] = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

impl Metrics {
    /// Registers every family.
    pub fn new(registry: &Registry) -> Self {
        let families = Families {
            objects: Family::default(),
            problems: Gauge::default(),
            lists: Family::default(),
            source_failures: Family::default(),
            topics: Gauge::default(),
            streams: Gauge::default(),
            rejected: Counter::default(),
            publish: Histogram::new(PUBLISH_BUCKETS),
            drains: Counter::default(),
            let_go: Histogram::new(LET_GO_BUCKETS),
            issued: Counter::default(),
            issuer: Gauge::default(),
            leader: Gauge::default(),
            refused: Family::default(),
        };
        registry.register("mesh_controller_objects", "objects in the index", &["kind"], families.objects.clone());
        registry.register(
            "mesh_controller_object_problems",
            "objects, or parts, not in force as written",
            &[],
            families.problems.clone(),
        );
        registry.register(
            "mesh_controller_source_lists",
            "lists asked of the Kubernetes API",
            &["kind"],
            families.lists.clone(),
        );
        registry.register(
            "mesh_controller_source_failures",
            "lists and watches of the Kubernetes API that failed",
            &["kind"],
            families.source_failures.clone(),
        );
        registry.register(
            "mesh_controller_topics",
            "values that are kept up to date for proxies",
            &[],
            families.topics.clone(),
        );
        registry.register("mesh_controller_streams", "connected proxies", &[], families.streams.clone());
        registry.register(
            "mesh_controller_rejected_updates",
            "updates that a proxy could not use",
            &[],
            families.rejected.clone(),
        );
        registry.register(
            "mesh_controller_publish_seconds",
            "from the arrival of an event to its message on a stream",
            &[],
            families.publish.clone(),
        );
        registry.register(
            "mesh_controller_drains",
            "pods that began to end and asked who still sends to them",
            &[],
            families.drains.clone(),
        );
        registry.register(
            "mesh_controller_let_go_seconds",
            "from the begin of a pod's drain until every proxy had acknowledged that it is no endpoint any more",
            &[],
            families.let_go.clone(),
        );
        registry.register("mesh_controller_certificates_issued", "certificates issued", &[], families.issued.clone());
        registry.register(
            "mesh_controller_issuer_not_after_timestamp_seconds",
            "when the issuer of certificates ends, in seconds since 1970",
            &[],
            families.issuer.clone(),
        );
        registry.register(
            "mesh_controller_leader",
            "whether this controller writes what several share (1) or another one (0)",
            &[],
            families.leader.clone(),
        );
        registry.register(
            "mesh_controller_refused",
            "calls refused; `code` is explained in docs/errors.md",
            &["call", "code"],
            families.refused.clone(),
        );
        Self(Arc::new(families))
    }

    /// Objects of a kind in the index.
    pub fn objects(&self, kind: Kind, count: usize) {
        self.0.objects.get_or_create(&KindLabel { kind: kind.as_str() }).set(number(count));
    }

    /// Things not in force as written.
    pub fn problems(&self, count: usize) {
        self.0.problems.set(number(count));
    }

    /// A kind is listed, or listed again.
    pub fn listed(&self, kind: Kind) {
        self.0.lists.get_or_create(&KindLabel { kind: kind.as_str() }).inc();
    }

    /// A list or a watch of a kind failed.
    pub fn source_failed(&self, kind: Kind) {
        self.0.source_failures.get_or_create(&KindLabel { kind: kind.as_str() }).inc();
    }

    /// Values kept up to date.
    pub fn topics(&self, count: usize) {
        self.0.topics.set(number(count));
    }

    /// Connected proxies.
    pub fn streams(&self, count: usize) {
        self.0.streams.set(number(count));
    }

    /// A proxy could not use an update.
    pub fn rejected(&self) {
        self.0.rejected.inc();
    }

    /// A change reached a stream.
    pub fn published(&self, took: Duration) {
        self.0.publish.observe(took.as_secs_f64());
    }

    /// A pod began to drain.
    pub fn drains(&self) {
        self.0.drains.inc();
    }

    /// Nobody sends to it any more.
    pub fn let_go(&self, took: Duration) {
        self.0.let_go.observe(took.as_secs_f64());
    }

    /// A certificate was issued.
    pub fn issued(&self) {
        self.0.issued.inc();
    }

    /// Until when the issuer can sign.
    pub fn issuer(&self, not_after: SystemTime) {
        let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.0.issuer.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Whether this one writes what several share.
    pub fn leads(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
    }

    /// A call was refused.
    pub fn refused(&self, call: &'static str, outcome: Outcome) {
        self.0.refused.get_or_create(&RefusalLabel { call, code: outcome.code() }).inc();
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
