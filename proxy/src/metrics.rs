//! The data path's metrics: every family is in `docs/metrics.md`.
//!
//! Counted per *edge* (direction, destination or client, TLS): the handle of an edge is found once per connection or endpoint,
//! never per request. The edges and their series have a budget; what comes past it is counted in an edge named `other`.

mod edge;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
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
/// Series of all edges together, unless the settings say otherwise: with those of `other`, and the fixed ones, a page has fewer
/// than a thousand.
pub(crate) const MAX_SERIES: usize = 800;
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
    budget: Budget,
    edges: Mutex<HashMap<EdgeLabels, Arc<Edge>, ahash::RandomState>>,
}

/// Series that may still be made.
struct Budget(AtomicUsize);

impl Budget {
    /// Takes so many, if there are.
    fn take(&self, series: usize) -> bool {
        let less = |left: usize| left.checked_sub(series);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

impl Metrics {
    /// Registers every family.
    pub fn new(metrics: &mesh_runtime::metrics::Metrics) -> Self {
        Self::with_budget(metrics, MAX_SERIES)
    }

    /// The same, with so many series for edges; those of `other` come to that.
    pub fn with_budget(metrics: &mesh_runtime::metrics::Metrics, series: usize) -> Self {
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
            budget: Budget(AtomicUsize::new(series)),
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
        if full {
            drop(edges);
            self.families.folded.inc();
            return self.families.other(labels.direction);
        }
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
    /// The edge of what is past a limit.
    fn other(self: &Arc<Self>, direction: &'static str) -> Arc<Edge> {
        let mut edges = self.edges.lock();
        let other = edges.entry(EdgeLabels::other(direction));
        Arc::clone(other.or_insert_with_key(|labels| Arc::new(Edge::new(labels.clone(), self))))
    }

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
        let help = "sets of series counted as `other`, because there are too many";
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

    use super::{
        edge::{MAX_STATUSES, OF_BYTES, OF_REQUESTS},
        *,
    };

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
        edge.request();
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

    /// Everything that is no comment.
    fn series(text: &str) -> usize {
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    /// Series of `other` in one direction: requests, a retry, bytes, two kinds of close, two of answers.
    const OF_OTHER: usize = OF_REQUESTS + 1 + OF_BYTES + 2 + 2;

    #[test]
    fn a_hundred_thousand_hostile_labels_stay_in_the_budget_and_cannot_end_their_line() {
        let registry = mesh_runtime::metrics::Metrics::new();
        let before = series(&registry.encode());
        let metrics = Metrics::new(&registry);
        for n in 0..100_000 {
            let hostile = format!("\"}} 1\nrequest_total{{x=\"{n}\\");
            let direction = if n % 2 == 0 { "inbound" } else { "outbound" };
            let edge = metrics.edge(EdgeLabels { direction, client_id: hostile, ..labels(80) });
            edge.request();
            edge.retried();
            edge.ended(Some(u16::try_from(n % 1000).unwrap()), Some(n), true, Duration::ZERO);
            edge.tcp_opened();
            edge.tcp_closed(n % 3 == 0);
        }
        let text = registry.encode();
        // Of edges, `other`, and the two that have no labels.
        let most = MAX_SERIES + 2 * OF_OTHER + 2;
        assert!(series(&text) - before <= most, "{} of {most}", series(&text) - before);
        assert!(text.len() < 400_000, "{} bytes", text.len());
        assert!(text.contains(r#"client_id="other""#), "{text}");
        assert!(text.lines().all(|line| !line.starts_with("request_total{x=")));
        let counted: u64 = text
            .lines()
            .filter(|line| line.starts_with("request_total{"))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(counted, 100_000, "nothing is lost");
        let open = text.lines().filter(|line| line.starts_with("tcp_open_connections{"));
        assert!(open.into_iter().all(|line| line.ends_with(" 0")), "{text}");
    }

    #[test]
    fn what_is_past_the_budget_is_told_and_what_was_there_goes_on() {
        let registry = mesh_runtime::metrics::Metrics::new();
        let metrics = Metrics::with_budget(&registry, OF_REQUESTS + 1);
        let (first, second) = (metrics.edge(labels(1)), metrics.edge(labels(2)));
        for edge in [&first, &second, &first, &second] {
            edge.request();
            edge.ended(Some(200), None, true, Duration::ZERO);
        }
        first.ended(Some(503), None, true, Duration::ZERO);
        let text = registry.encode();
        for line in [
            r#"request_total{direction="outbound",dst_namespace="shop",dst_service="web",dst_port="1",dst_workload="",client_id="",tls="true"} 2"#,
            r#"request_total{direction="outbound",dst_namespace="other",dst_service="other",dst_port="0",dst_workload="other",client_id="other",tls="false"} 2"#,
            "metrics_folded_total 3",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains(r#"dst_port="2""#) && !text.contains(r#"status_code="503""#), "{text}");
    }

    #[test]
    fn edges_and_statuses_are_bounded() {
        let registry = mesh_runtime::metrics::Metrics::new();
        let metrics = Metrics::with_budget(&registry, 100_000);
        for port in 0..1000 {
            metrics.edge(labels(port)).request();
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
