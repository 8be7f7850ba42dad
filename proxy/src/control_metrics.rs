//! What the control side counts: certificates, the configuration stream, and how old what is known may be.
//!
//! The data path has its own families; both are in the registry of the process.

use std::{
    fmt,
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use mesh_runtime::metrics::Metrics;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, gauge::Gauge},
};

use crate::policy::Policies;

/// Counters and gauges. Cloning shares them.
#[derive(Clone, Debug)]
pub struct ControlMetrics {
    expiry: Gauge<f64, AtomicU64>,
    refreshes: Counter,
    failures: Family<Code, Counter>,
    connected: Gauge,
    connects: Counter,
    rejected: Family<Kind, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

impl ControlMetrics {
    /// Registers them. Ages are read from `policies` at every scrape.
    pub fn new(metrics: &Metrics, policies: &Policies) -> Self {
        let new = Self {
            expiry: Gauge::default(),
            refreshes: Counter::default(),
            failures: Family::default(),
            connected: Gauge::default(),
            connects: Counter::default(),
            rejected: Family::default(),
        };
        let help = "end of the certificate in force, seconds since the epoch";
        metrics.register("control_identity_cert_expiration_timestamp_seconds", help, &[], new.expiry.clone());
        metrics.register("control_identity_cert_refreshes", "certificates obtained", &[], new.refreshes.clone());
        let help = "failed attempts to get a certificate; `code` as in the log";
        metrics.register("control_identity_cert_failures", help, &["code"], new.failures.clone());
        metrics.register("controller_connected", "1 while the configuration stream is up", &[], new.connected.clone());
        metrics.register("controller_connects", "configuration streams begun", &[], new.connects.clone());
        let help = "updates of the controller that could not be used";
        metrics.register("policy_rejected", help, &["kind"], new.rejected.clone());
        metrics.collect(Ages(policies.clone()));
        new
    }

    pub(crate) fn certified(&self, not_after: SystemTime) {
        self.expiry.set(not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        self.refreshes.inc();
    }

    pub(crate) fn not_certified(&self, code: &'static str) {
        self.failures.get_or_create(&Code { code }).inc();
    }

    pub(crate) fn connected(&self, connected: bool) {
        self.connected.set(connected.into());
        if connected {
            self.connects.inc();
        }
    }

    pub(crate) fn rejected(&self, kind: &'static str) {
        self.rejected.get_or_create(&Kind { kind }).inc();
    }
}

/// What is read at the time of a scrape.
struct Ages(Policies);

impl fmt::Debug for Ages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ages")
    }
}

impl Collector for Ages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let age = ConstGauge::new(self.0.age().as_secs_f64());
        let help = "how old what is known of destinations may be: 0 while the stream is up";
        age.encode(encoder.encode_descriptor("discovery_age_seconds", help, None, age.metric_type())?)?;
        let known = ConstGauge::new(i64::try_from(self.0.len()).unwrap_or(i64::MAX));
        let help = "destinations known or asked for";
        known.encode(encoder.encode_descriptor("discovery_targets", help, None, known.metric_type())?)
    }
}
