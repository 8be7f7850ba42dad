//! A collector of traces: OTLP over gRPC on a thread of its own, keeps every span it is given.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use mesh_runtime::tasks::Tasks;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// Longest a test waits for a span; one leaves the proxy within two seconds, and the machine may be busy.
const SOON: Duration = Duration::from_mins(2);

/// A running collector; it ends with the value.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    kept: Arc<Kept>,
    tasks: Tasks,
    thread: Option<JoinHandle<()>>,
}

/// A span, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Collected {
    pub(crate) span: Span,
    resource: Vec<KeyValue>,
    /// Of the export itself.
    pub(crate) traceparent: Option<String>,
}

#[derive(Default)]
struct Kept {
    spans: Mutex<Vec<Collected>>,
    /// There are more.
    came: Condvar,
}

struct Keep(Arc<Kept>);

#[tonic::async_trait]
impl TraceService for Keep {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let traceparent =
            request.metadata().get("traceparent").map(|value| value.to_str().unwrap_or_default().to_owned());
        let mut spans = self.0.spans.lock();
        for group in request.into_inner().resource_spans {
            let resource = group.resource.map(|resource| resource.attributes).unwrap_or_default();
            for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Collected { span, resource: resource.clone(), traceparent: traceparent.clone() });
            }
        }
        self.0.came.notify_all();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) fn start(listener: TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("a listener");
        let (kept, tasks) = (Arc::<Kept>::default(), Tasks::new());
        let service = TraceServiceServer::new(Keep(Arc::clone(&kept)));
        let ending = tasks.cancelled();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
            runtime.block_on(async {
                let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).expect("a listener"));
                let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
                tokio::select! {
                    served = server => served.expect("gRPC is served"),
                    () = ending => {}
                }
            });
        });
        Self { address, kept, tasks, thread: Some(thread) }
    }

    /// Every span that is `wanted`, once there are so many.
    pub(crate) fn find(&self, count: usize, wanted: impl Fn(&Collected) -> bool) -> Vec<Collected> {
        let deadline = Instant::now() + SOON;
        let mut spans = self.kept.spans.lock();
        loop {
            let found: Vec<_> = spans.iter().filter(|it| wanted(it)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let late = self.kept.came.wait_until(&mut spans, deadline.into_std()).timed_out();
            assert!(!late, "{count} spans never came: {spans:#?}");
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.tasks.token().cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Collected {
    /// An attribute of the span, else of its resource; empty where there is none.
    pub(crate) fn attribute(&self, key: &str) -> String {
        let all = self.span.attributes.iter().chain(&self.resource);
        let value = all.filter(|it| it.key == key).find_map(|it| it.value.as_ref()?.value.as_ref());
        match value {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(yes)) => yes.to_string(),
            other => other.map(|other| format!("{other:?}")).unwrap_or_default(),
        }
    }

    pub(crate) fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(crate) fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub(crate) fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
