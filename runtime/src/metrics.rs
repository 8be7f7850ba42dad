//! The registry of the process, shared by its parts, with what every process shows: build and process metrics.
//!
//! Each part registers its own families in [`Metrics::registry`] when it is built; [`crate::admin`] serves
//! [`Metrics::encode`] at `/metrics`. It does not know the families of the parts.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::build_info;

mod process;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// A registry with `mesh_build_info` and the `process_…` family.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register(
            "mesh_build",
            "Version and commit of the binary",
            Info::new([("version", build_info::VERSION), ("commit", build_info::COMMIT)]),
        );
        registry.register_collector(Box::new(process::ProcessCollector));
        Self { registry: Arc::new(Mutex::new(registry)) }
    }

    /// Lets a part register its families. Not for the data path: it waits for a scrape that is under way.
    pub fn registry<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock())
    }

    /// Everything, as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut page = String::with_capacity(16 * 1024);
        text::encode(&mut page, &self.registry.lock()).expect("invariant: writing to a String cannot fail");
        page
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
        metrics.registry(|registry| registry.register("requests", "Requests", requests.clone()));
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
