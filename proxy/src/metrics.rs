//! The data path's metrics: every family is in `docs/metrics.md`.
//!
//! Counted per *edge* (direction, destination or client, TLS): the handle of an edge is found once per connection or endpoint,
//! never per request. The number of edges is bounded; what comes past that is counted in an edge named `other`.

mod edge;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicI64},
};

use mesh_proto::{outcome::Outcome, tap::Direction};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
};

pub use self::edge::{Edge, EdgeLabels};

use self::edge::{CloseLabels, ResponseLabels};
use crate::config::Pod;

/// Most edges per direction. A pod that talks to more shows the rest as `other`; a scanner cannot grow our memory.
const MAX_EDGES: usize = 200;
/// What is past a limit.
const OTHER: &str = "other";

/// Names of the labels of [`EdgeLabels`], for descriptions.
pub const EDGE: [&str; 7] =
    ["direction", "dst_namespace", "dst_service", "dst_port", "dst_workload", "client_id", "tls"];
const CLOSE: [&str; 8] = with(["classification"]);
const RESPONSE: [&str; 10] = with(["status_code", "grpc_status", "classification"]);

/// The labels of an edge, and more.
const fn with<const MORE: usize, const ALL: usize>(more: [&'static str; MORE]) -> [&'static str; ALL] {
    let mut all = [""; ALL];
    let mut n = 0;
    while n < ALL {
        all[n] = if n < EDGE.len() { EDGE[n] } else { more[n - EDGE.len()] };
        n += 1;
    }
    all
}

/// Milliseconds. Few: each is a time series per edge.
const LATENCY_BUCKETS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0, 20_000.0];

/// Clones share everything.
#[derive(Clone)]
pub struct Metrics {
    families: Arc<Families>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    direction: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CloseCauseLabels {
    direction: &'static str,
    by: &'static str,
    reason: &'static str,
}

struct Families {
    requests: Family<EdgeLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    latency: Family<EdgeLabels, Histogram, fn() -> Histogram>,
    retries: Family<EdgeLabels, Counter>,
    opened: Family<EdgeLabels, Counter>,
    open: Family<EdgeLabels, Gauge<i64, AtomicI64>>,
    closed: Family<CloseLabels, Counter>,
    read_bytes: Family<EdgeLabels, Counter>,
    write_bytes: Family<EdgeLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    ended: Family<CloseCauseLabels, Counter>,
    audited: Counter,
    folded: Counter,
    edges: Mutex<HashMap<EdgeLabels, Arc<Edge>, ahash::RandomState>>,
}

impl Metrics {
    /// Registers every family.
    pub fn new(metrics: &mesh_runtime::metrics::Metrics) -> Self {
        let families = Families {
            requests: Family::default(),
            responses: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            retries: Family::default(),
            opened: Family::default(),
            open: Family::default(),
            closed: Family::default(),
            read_bytes: Family::default(),
            write_bytes: Family::default(),
            errors: Family::default(),
            ended: Family::default(),
            audited: Counter::default(),
            folded: Counter::default(),
            edges: Mutex::default(),
        };
        families.register(metrics);
        Self { families: Arc::new(families) }
    }

    /// The counters of an edge; past the limit those of `other`.
    pub(crate) fn edge(&self, labels: EdgeLabels) -> Arc<Edge> {
        let mut edges = self.families.edges.lock();
        if let Some(edge) = edges.get(&labels) {
            return Arc::clone(edge);
        }
        let full = edges.keys().filter(|known| known.direction == labels.direction).count() >= MAX_EDGES;
        let labels = if full {
            self.families.folded.inc();
            EdgeLabels::other(labels.direction)
        } else {
            labels
        };
        let edge = edges.entry(labels).or_insert_with_key(|labels| Arc::new(Edge::new(labels.clone(), &self.families)));
        Arc::clone(edge)
    }

    /// Counts what the mesh itself ended.
    pub(crate) fn error(&self, direction: Direction, outcome: Outcome) {
        self.families.errors.get_or_create(&ErrorLabels { direction: direction.as_str(), code: outcome.code() }).inc();
    }

    /// Counts a client's connection that has ended, by whom and why.
    pub(crate) fn closed(&self, direction: Direction, by: &'static str, reason: &'static str) {
        self.families.ended.get_or_create(&CloseCauseLabels { direction: direction.as_str(), by, reason }).inc();
    }

    /// Counts a connection that only the audit mode let in.
    pub(crate) fn audited(&self) {
        self.families.audited.inc();
    }
}

impl Families {
    fn register(&self, metrics: &mesh_runtime::metrics::Metrics) {
        let edge = |name, help, metric| metrics.register(name, help, &EDGE, metric);
        edge("request", "requests begun", self.requests.clone());
        edge("request_retry", "requests sent a second time, to this endpoint", self.retries.clone());
        edge("tcp_open", "opaque connections opened", self.opened.clone());
        edge("tcp_read_bytes", "bytes read from clients of opaque connections", self.read_bytes.clone());
        edge("tcp_write_bytes", "bytes written to clients of opaque connections", self.write_bytes.clone());
        let help = "opaque connections open now";
        metrics.register("tcp_open_connections", help, &EDGE, self.open.clone());
        let help = "opaque connections closed; `classification` is `success` or `failure`";
        metrics.register("tcp_close", help, &CLOSE, self.closed.clone());
        let help = "requests ended; `classification` is `failure` for a 5xx, a gRPC status but 0, and what broke off";
        metrics.register("response", help, &RESPONSE, self.responses.clone());
        let help = "from the request's head to the end of the answer, milliseconds";
        metrics.register("response_latency_ms", help, &EDGE, self.latency.clone());
        let help = "requests and connections that the mesh ended itself; `code` is explained in docs/errors.md";
        metrics.register("mesh_error", help, &["direction", "code"], self.errors.clone());
        let help = "client connections that ended, all protocols: who ended them and why (`meshctl explain closed`)";
        metrics.register("connection_close", help, &["direction", "by", "reason"], self.ended.clone());
        let help = "connections let in that the policy `authenticated` would refuse";
        metrics.register("inbound_audit", help, &[], self.audited.clone());
        let help = "label sets counted as `other`, because there are too many";
        metrics.register("metrics_folded", help, &[], self.folded.clone());
    }
}

/// Says whose proxy this is, to join the other families with.
pub(crate) fn register_pod(metrics: &mesh_runtime::metrics::Metrics, pod: &Pod) {
    let Pod { namespace, name, uid: _, workload } = pod;
    let labels = [("namespace", namespace), ("pod", name)].map(|(key, value)| (key, value.clone()));
    let workload = ("workload", workload.clone().unwrap_or_default());
    let info = Info::new(labels.into_iter().chain([workload]).collect::<Vec<_>>());
    let help = "whose proxy this is: `workload` as `deployment/web`; join the others with it";
    metrics.register("proxy", help, &["namespace", "pod", "workload"], info);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{edge::MAX_STATUSES, *};

    fn labels(port: u16) -> EdgeLabels {
        EdgeLabels {
            direction: "outbound",
            dst_namespace: "shop".into(),
            dst_service: "web".into(),
            dst_port: port,
            dst_workload: String::new(),
            client_id: String::new(),
            tls: true,
        }
    }

    #[test]
    fn the_page_says_whose_proxy_it_is() {
        let metrics = mesh_runtime::metrics::Metrics::new();
        let text = str::to_owned;
        let pod = Pod {
            namespace: text("shop"),
            name: text("web-1"),
            uid: text("u"),
            workload: Some(text("deployment/web")),
        };
        register_pod(&metrics, &pod);
        let line = "proxy_info{namespace=\"shop\",pod=\"web-1\",workload=\"deployment/web\"} 1";
        assert!(metrics.encode().contains(line), "{}", metrics.encode());
    }

    #[test]
    fn what_meshctl_reads_is_there_under_its_name() {
        let registry = mesh_runtime::metrics::Metrics::new();
        let metrics = Metrics::new(&registry);
        let edge = metrics.edge(labels(80));
        edge.requests.inc();
        edge.ended(Some(200), None, true, Duration::from_millis(3));
        edge.ended(Some(503), None, true, Duration::from_millis(3));
        edge.ended(Some(200), Some(14), true, Duration::from_millis(3));
        edge.tcp_opened();
        edge.tcp_read(5);
        metrics.error(Direction::Outbound, Outcome::NoEndpoints);
        let text = registry.encode();
        let edge = r#"direction="outbound",dst_namespace="shop",dst_service="web",dst_port="80",dst_workload="",client_id="",tls="true""#;
        for line in [
            format!("request_total{{{edge}}} 1"),
            format!(r#"response_total{{{edge},status_code="200",grpc_status="",classification="success"}} 1"#),
            format!(r#"response_total{{{edge},status_code="503",grpc_status="",classification="failure"}} 1"#),
            format!(r#"response_total{{{edge},status_code="200",grpc_status="14",classification="failure"}} 1"#),
            format!(r#"response_latency_ms_bucket{{le="5.0",{edge}}} 3"#),
            format!("tcp_open_total{{{edge}}} 1"),
            format!("tcp_open_connections{{{edge}}} 1"),
            format!("tcp_read_bytes_total{{{edge}}} 5"),
            r#"mesh_error_total{direction="outbound",code="no-endpoints"} 1"#.to_owned(),
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn ten_thousand_hostile_labels_fold_into_other_and_cannot_end_their_line() {
        let registry = mesh_runtime::metrics::Metrics::new();
        let metrics = Metrics::new(&registry);
        for n in 0..10_000 {
            let hostile = format!("\"}} 1\nrequest_total{{x=\"{n}\\");
            let edge = metrics.edge(EdgeLabels { direction: "inbound", client_id: hostile, ..labels(80) });
            edge.requests.inc();
            edge.ended(Some(u16::try_from(n % 1000).unwrap()), Some(n), true, Duration::ZERO);
            edge.tcp_opened();
        }
        let text = registry.encode();
        let series = |family: &str| text.lines().filter(|line| line.starts_with(&format!("{family}{{"))).count();
        assert_eq!(series("request_total"), MAX_EDGES + 1);
        assert!(series("response_total") <= MAX_EDGES + MAX_STATUSES + 2, "{}", series("response_total"));
        assert!(text.len() < 2 << 20, "{} bytes", text.len());
        assert!(text.contains(r#"client_id="other""#) && text.contains("metrics_folded_total 9800"));
        assert!(text.lines().all(|line| !line.starts_with("request_total{x=")));
    }

    #[test]
    fn edges_and_statuses_are_bounded() {
        let registry = mesh_runtime::metrics::Metrics::new();
        let metrics = Metrics::new(&registry);
        for port in 0..1000 {
            metrics.edge(labels(port)).requests.inc();
        }
        let text = registry.encode();
        assert_eq!(text.lines().filter(|line| line.starts_with("request_total{")).count(), MAX_EDGES + 1);
        assert!(text.contains("metrics_folded_total 800"), "{text}");
        let edge = metrics.edge(labels(0));
        for code in 100..600 {
            edge.ended(Some(code), None, true, Duration::ZERO);
        }
        let statuses = registry.encode().lines().filter(|line| line.starts_with("response_total{")).count();
        assert!(statuses <= MAX_STATUSES + 2, "{statuses}");
    }
}
