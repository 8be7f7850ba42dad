//! The registry of the process, shared by its parts, with what every process shows: build and process metrics.
//!
//! Each part registers its own families by [`Metrics::register`] when it is built; [`crate::admin`] serves
//! [`Metrics::encode`] at `/metrics`, and docs/metrics.md is made from [`Metrics::described`]. There is no other way in, so
//! that no family is without a description. It does not know the families of the parts.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::{
    collector::Collector,
    registry::{Metric, Registry},
};

use crate::build_info;

mod process;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    registry: Registry,
    described: Vec<Described>,
}

/// A family, as a page of reference says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// As it is scraped, e.g. `request_total`.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it counts, as words without a full stop.
    pub help: String,
}

impl Metrics {
    /// A registry with `mesh_build_info` and the `process_…` family.
    pub fn new() -> Self {
        let metrics = Self { inner: Arc::default() };
        metrics.register(
            "mesh_build",
            "version and commit of the binary",
            &["version", "commit"],
            Info::new([("version", build_info::VERSION), ("commit", build_info::COMMIT)]),
        );
        metrics.collect(process::ProcessCollector);
        metrics
    }

    /// Adds a family. `name` is without the suffix of its type (`_total`, `_info`), `labels` are those of every series. Not for
    /// the data path: it waits for a scrape that is under way.
    pub fn register(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        metric: impl Metric,
    ) {
        let kind = metric.metric_type().as_str().to_owned();
        let mut inner = self.inner.lock();
        inner.described.push(Described { name: as_scraped(name, &kind), kind, labels, help: help.to_owned() });
        inner.registry.register(name, help, metric);
    }

    /// Adds families that are read at each scrape. They have no labels.
    pub fn collect(&self, collector: impl Collector) {
        self.inner.lock().registry.register_collector(Box::new(collector));
    }

    /// All families: those that were registered in their order, then those that are read at each scrape.
    pub fn described(&self) -> Vec<Described> {
        let mut described = self.inner.lock().described.clone();
        let page = self.encode();
        let kind_of =
            |name| page.lines().find_map(|line| line.strip_prefix("# TYPE ")?.strip_prefix(name)?.strip_prefix(' '));
        for (name, help) in page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')) {
            let kind = kind_of(name).unwrap_or_default().to_owned();
            let name = as_scraped(name, &kind);
            if !described.iter().any(|known| known.name == name) {
                let help = help.trim_end_matches('.').to_owned();
                described.push(Described { name, kind, labels: &[], help });
            }
        }
        described
    }

    /// Everything, as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut page = String::with_capacity(16 * 1024);
        text::encode(&mut page, &self.inner.lock().registry).expect("invariant: writing to a String cannot fail");
        page
    }
}

fn as_scraped(name: &str, kind: &str) -> String {
    match kind {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn the_page_shows_build_process_and_what_parts_register() {
        let metrics = Metrics::new();
        let requests = Counter::<u64>::default();
        metrics.register("requests", "requests", &[], requests.clone());
        requests.inc();
        let page = metrics.clone().encode();
        assert!(page.contains(&format!("mesh_build_info{{version=\"{}\"", build_info::VERSION)), "{page}");
        assert!(page.contains("requests_total 1\n"), "{page}");
        for name in [
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
            "process_threads",
        ] {
            let value = value(&page, name);
            assert!(value > 0.0, "{name} is {value}");
        }
        assert!(value(&page, "process_cpu_seconds_total") >= 0.0);
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn every_family_is_described_as_it_is_scraped() {
        let metrics = Metrics::new();
        metrics.register("requests", "requests begun", &["code"], Counter::<u64>::default());
        let described = metrics.described();
        let of = |name: &str| described.iter().find(|family| family.name == name).expect("described").clone();
        let requests = of("requests_total");
        assert_eq!(
            (requests.kind.as_str(), requests.labels, requests.help.as_str()),
            ("counter", &["code"][..], "requests begun")
        );
        assert_eq!(of("mesh_build_info").labels, ["version", "commit"]);
        let open = of("process_open_fds");
        assert_eq!((open.kind.as_str(), open.labels, open.help.as_str()), ("gauge", &[][..], "file descriptors open"));
        assert_eq!(of("process_cpu_seconds_total").kind, "counter");
    }

    #[test]
    fn the_start_time_is_in_the_past_and_of_this_boot() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let started = value(&Metrics::new().encode(), "process_start_time_seconds");
        assert!(started <= now + 1.0, "{started} after {now}");
        assert!(now - started < 24.0 * 3600.0, "a test does not run for a day: {started}, {now}");
    }

    fn value(page: &str, name: &str) -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }
}
