//! Traces: one span per side and sampled request, continued from the client's `traceparent`, sent to a collector by OTLP.
//!
//! `record` begins a span with a request and ends it with the record. Spans are made with OpenTelemetry's SDK, not with
//! `tracing`, which would cost every request. A worker never waits: a span that does not fit into the queue is dropped
//! and counted. Without a collector in the settings nothing here exists, and no header of a request is touched.

mod context;
mod export;
mod span;

use std::sync::Arc;

use http::{HeaderMap, Request};
use mesh_proto::tap::TapEvent;
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::SpanData;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio::sync::mpsc;

use self::context::{Context, TRACEPARENT, TRACESTATE};
pub use self::export::{Export, Origin};

/// Spans that wait for the exporter: some 3 MiB at most.
const QUEUE: usize = 2048;

/// Gives the headers that say which trace a request belongs to.
pub(crate) fn write(headers: &HeaderMap, mut put: impl FnMut(&[u8], &[u8])) {
    for name in [TRACEPARENT, TRACESTATE] {
        headers.get_all(&name).iter().for_each(|value| put(name.as_str().as_bytes(), value.as_bytes()));
    }
}

/// Makes spans; clones fill the same queue.
#[derive(Clone)]
pub struct Traces(Arc<Shared>);

struct Shared {
    /// Share of the traces that begin here.
    sample: f64,
    spans: mpsc::Sender<SpanData>,
    metrics: Spans,
}

/// What is counted of spans.
#[derive(Clone, Default)]
struct Spans {
    exported: Counter,
    dropped: Family<Dropped, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: &'static str,
}

/// The span of a request, while the request lasts.
pub(crate) struct Span {
    context: Context,
    parent: Option<SpanId>,
}

impl Traces {
    /// Samples that share of what begins here. The other part is to be run: it takes the spans to the collector.
    pub fn new(sample: f64, metrics: &mesh_runtime::metrics::Metrics) -> (Self, Pending) {
        let (spans, queue) = mpsc::channel(QUEUE);
        let counters = Spans::default();
        let help = "spans that the collector took, where traces are on";
        metrics.register("trace_spans_exported", help, &[], counters.exported.clone());
        let help = "spans that were lost: `queue` (it was full), `collector` (did not take them)";
        metrics.register("trace_spans_dropped", help, &["reason"], counters.dropped.clone());
        let pending = Pending { queue, metrics: counters.clone() };
        (Self(Arc::new(Shared { sample, spans, metrics: counters })), pending)
    }

    /// A request begins: continues its trace, or begins one. Whoever comes next is told, also of a decision against
    /// it, so that no trace begins in its middle.
    pub(crate) fn begin<B>(&self, request: &mut Request<B>) -> Option<Span> {
        let headers = request.headers_mut();
        let (context, parent) = match Context::from_headers(headers) {
            Some(parent) if !parent.sampled => return None,
            Some(parent) => (parent.child(), Some(parent.span)),
            None => {
                // What is there belongs to no trace.
                headers.remove(TRACESTATE);
                (Context::root(rand::random::<f64>() < self.0.sample), None)
            }
        };
        headers.insert(TRACEPARENT, context.header());
        context.sampled.then_some(Span { context, parent })
    }

    /// The request has ended so.
    pub(crate) fn end(&self, span: &Span, event: &TapEvent) {
        if self.0.spans.try_send(span::data(span, event)).is_err() {
            self.0.metrics.dropped("queue", 1);
        }
    }
}

impl Span {
    /// The trace, as people search for it.
    pub(crate) fn trace_id(&self) -> String {
        self.context.trace.to_string()
    }
}

impl Spans {
    fn dropped(&self, reason: &'static str, spans: u64) {
        self.dropped.get_or_create(&Dropped { reason }).inc_by(spans);
    }
}

/// Spans on their way to the exporter.
pub struct Pending {
    queue: mpsc::Receiver<SpanData>,
    metrics: Spans,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn begin(sample: f64, headers: &[(&'static str, &str)]) -> (Option<Span>, Request<()>) {
        let metrics = mesh_runtime::metrics::Metrics::new();
        let (traces, _pending) = Traces::new(sample, &metrics);
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        (traces.begin(&mut request), request)
    }

    fn told(request: &Request<()>) -> Context {
        Context::from_headers(request.headers()).expect("one valid traceparent")
    }

    #[test]
    fn a_sampled_trace_is_continued_with_a_span_of_our_own() {
        let (span, request) = begin(0.0, &[("traceparent", PARENT), ("tracestate", "vendor=1")]);
        let span = span.unwrap();
        assert_eq!(span.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(span.parent.unwrap().to_string(), "b7ad6b7169203331");
        assert_eq!(told(&request), span.context);
        assert_eq!(request.headers()["tracestate"], "vendor=1");
    }

    #[test]
    fn a_client_that_said_not_sampled_is_obeyed_and_its_header_stays() {
        let not = PARENT.replace("-01", "-00");
        let (span, request) = begin(1.0, &[("traceparent", &not), ("tracestate", "vendor=1")]);
        assert!(span.is_none());
        assert_eq!(request.headers()["traceparent"], not.as_str());
        assert_eq!(request.headers()["tracestate"], "vendor=1");
    }

    #[test]
    fn whoever_comes_next_is_told_of_the_decision_either_way() {
        let (span, request) = begin(1.0, &[]);
        assert!(span.is_some_and(|span| span.parent.is_none()) && told(&request).sampled);
        let (span, request) = begin(0.0, &[]);
        assert!(span.is_none() && !told(&request).sampled);
        let (_, request) = begin(1.0, &[("traceparent", "nonsense"), ("tracestate", "vendor=1")]);
        assert!(told(&request).sampled && !request.headers().contains_key("tracestate"));
    }

    #[test]
    fn the_share_is_a_share_of_traces() {
        let sampled = (0..4000).filter(|_| begin(0.25, &[]).0.is_some()).count();
        // Five standard deviations.
        assert!((860..1140).contains(&sampled), "{sampled}");
    }
}
