//! How many requests and connections there were beside those that matched: the difference of two readings of the proxies'
//! counters. Pure; a reading that failed counts nothing, and is said.

use std::collections::BTreeSet;

use crate::{
    cluster::PodInfo,
    golden::samples::{Sample, Samples},
};

/// Which of two proxies that saw the same request tells of it.
#[derive(Debug, Clone)]
pub(super) struct Tellers {
    /// Workloads all of whose servers are tapped, as `namespace` and `kind/name`.
    tapped: BTreeSet<(String, String)>,
    /// Services are asked for: only clients know them.
    clients: bool,
}

impl Tellers {
    pub(super) fn new(tapped: &[PodInfo], clients: bool) -> Self {
        let tapped = tapped.iter().map(|pod| (pod.namespace.clone(), pod.workload_or_name())).collect();
        Self { tapped, clients }
    }

    /// One more is tapped.
    pub(super) fn hear(&mut self, pod: &PodInfo) {
        self.tapped.insert((pod.namespace.clone(), pod.workload_or_name()));
    }

    /// Whether the client's proxy tells, of a request over mutual TLS to `workload`: the server's does where it is tapped too.
    pub(super) fn is_told_by_client(&self, namespace: &str, workload: &str) -> bool {
        self.clients || !self.tapped.contains(&(namespace.to_owned(), workload.to_owned()))
    }

    pub(super) fn is_told_by_server(&self) -> bool {
        !self.clients
    }

    /// What one proxy ended and tells of between two readings.
    pub(super) fn ended(&self, before: &Samples, after: &Samples) -> f64 {
        let counted = after.iter().filter(|sample| self.counts(sample));
        let grown = counted.map(|sample| sample.value - before.value(&sample).unwrap_or(0.0));
        // A proxy that restarted counts from zero: what it counted before is lost.
        grown.filter(|grown| *grown > 0.0).sum()
    }

    fn counts(&self, sample: &Sample) -> bool {
        if !["response_total", "tcp_close_total"].contains(&sample.name.as_str()) {
            return false;
        }
        let label = |name| sample.label(name).unwrap_or_default();
        match label("direction") {
            "inbound" => self.is_told_by_server(),
            _ if self.clients => !label("dst_service").is_empty(),
            _ => label("tls") != "true" || self.is_told_by_client(label("dst_namespace"), label("dst_workload")),
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "counts are whole numbers")]
mod tests {
    use super::*;
    use crate::commands::fixture;

    #[test]
    fn what_two_proxies_saw_is_counted_once() {
        let before = Samples::parse(r#"response_total{direction="inbound",tls="true"} 5"#);
        let after = Samples::parse(concat!(
            "response_total{direction=\"inbound\",tls=\"true\"} 8\n",
            "response_total{direction=\"outbound\",tls=\"true\",dst_namespace=\"shop\",dst_workload=\"deployment/web\"} 10\n",
            "response_total{direction=\"outbound\",tls=\"true\",dst_namespace=\"shop\",dst_workload=\"deployment/db\",dst_service=\"db\"} 100\n",
            "tcp_close_total{direction=\"outbound\",tls=\"false\",dst_namespace=\"\",dst_workload=\"\"} 1000\n",
            "request_total{direction=\"inbound\",tls=\"true\"} 7\n",
        ));
        let tapped = [fixture::pod("web-1", Some("web"), true, "10.0.0.1")];
        assert_eq!(Tellers::new(&tapped, false).ended(&before, &after), 1103.0);
        assert_eq!(Tellers::new(&tapped, true).ended(&before, &after), 100.0);
        assert_eq!(Tellers::new(&tapped, false).ended(&after, &before), 0.0, "it restarted");
    }
}
