//! Every family of metrics that a proxy can show, also those of parts that are off: for the page of reference, docs/metrics.md.
//!
//! Made by registering them, so that it cannot say anything else than what is scraped.

use mesh_runtime::metrics::{Described, Metrics};

use crate::{
    access_log, config, control_metrics::ControlMetrics, limits::Limits, metrics, policy::Policies, tap, trace::Traces,
};

/// In the order of the page; those of every process are among them.
pub fn described() -> Vec<Described> {
    let registry = Metrics::new();
    metrics::Metrics::new(&registry);
    metrics::register_pod(&registry, &config::Pod::default());
    Limits::new(&registry, &config::Limits::default());
    tap::Hub::new().register(&registry);
    access_log::Counters::register(&registry);
    let _nobody_runs_it = Traces::new(0.0, &registry);
    ControlMetrics::new(&registry, &Policies::new());
    registry.described()
}
