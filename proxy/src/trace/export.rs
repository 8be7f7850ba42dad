//! Takes spans to the collector, in batches, by OTLP over gRPC. A collector that is away costs spans and nothing else.

use std::{future::Future, time::Duration};

use hyper_util::rt::TokioIo;
use mesh_runtime::{build_info, tasks::Tasks};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter as Otlp, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use tokio::time::Instant;
use tonic::{metadata::MetadataMap, transport::Endpoint};

use super::{Context, Pending};
use crate::{config::HostPort, dial};

/// Most spans of one message.
const BATCH: usize = 512;
/// A batch that is not full waits so long for more.
const WAIT: Duration = Duration::from_secs(2);
/// Longest the collector may take for one message.
const EXPORT: Duration = Duration::from_secs(10);
/// Longest for the last message, when the proxy ends.
const LAST: Duration = Duration::from_secs(1);
/// How often a connection with a message under way is asked whether the collector is there.
const PING: Duration = Duration::from_secs(10);

/// Where spans go, and whose they are.
#[derive(Debug, Clone)]
pub struct Export {
    /// The collector.
    pub endpoint: HostPort,
    /// Mark of the connection to it.
    pub mark: Option<u32>,
    /// Whose spans they are.
    pub origin: Origin,
    /// Own the connection.
    pub tasks: Tasks,
}

/// Whose spans they are: the resource of the conventions.
#[derive(Debug, Clone)]
pub struct Origin {
    /// `service.name`: the service account.
    pub service: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
}

impl Export {
    /// Exports until `ending`, then what is left.
    pub async fn run(self, mut spans: Pending, ending: impl Future<Output = ()>) {
        let exporter = match self.exporter() {
            Ok(exporter) => exporter,
            Err(reason) => {
                tracing::error!(reason, "there are no traces: the exporter cannot be made");
                return;
            }
        };
        let mut ending = std::pin::pin!(ending);
        let mut reachable = true;
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = spans.fill(&mut batch) => {}
                () = &mut ending => break,
            }
            let count = batch.len();
            let sent = tokio::select! {
                sent = tokio::time::timeout(EXPORT, exporter.export(std::mem::take(&mut batch))) => sent,
                () = &mut ending => {
                    spans.metrics.dropped("collector", count as u64);
                    break;
                }
            };
            let failed = match sent {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {EXPORT:?}")),
            };
            spans.count(count, failed.is_none());
            // Once per change, not per batch.
            if failed.is_none() != reachable {
                reachable = failed.is_none();
                match failed {
                    None => tracing::info!(collector = %self.endpoint, "the collector takes traces again"),
                    Some(reason) => tracing::warn!(
                        collector = %self.endpoint,
                        reason,
                        "the collector takes no traces: spans are dropped until it does; requests are not affected"
                    ),
                }
            }
        }
        spans.queue.close();
        while let Ok(span) = spans.queue.try_recv() {
            batch.push(span);
        }
        let count = batch.len();
        if count > 0 && reachable {
            let sent = tokio::time::timeout(LAST, exporter.export(batch)).await;
            spans.count(count, matches!(sent, Ok(Ok(()))));
        }
    }

    fn exporter(&self) -> Result<Otlp, String> {
        let (to, mark) = (self.endpoint.clone(), self.mark);
        let connector = tower::service_fn(move |_| {
            let to = to.clone();
            async move { dial::first(dial::resolve(&to).await?, mark).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_shared(format!("http://{}", self.endpoint))
            .map_err(|error| error.to_string())?
            .executor(self.tasks.executor("connection to the collector"))
            .http2_keep_alive_interval(PING)
            .connect_with_connector_lazy(connector);
        // Where the collector is behind a proxy of ours, its own requests would otherwise be spans again, for ever.
        let mut metadata = MetadataMap::new();
        let told = Context::root(false).to_string();
        metadata.insert("traceparent", told.parse().map_err(|error| format!("{told}: {error}"))?);
        let exporter = Otlp::builder().with_tonic().with_channel(channel).with_metadata(metadata).build();
        let mut exporter = exporter.map_err(|error| error.to_string())?;
        exporter.set_resource(&self.origin.resource());
        Ok(exporter)
    }
}

impl Origin {
    fn resource(&self) -> Resource {
        let attributes = [
            ("service.namespace", self.namespace.clone()),
            ("service.instance.id", self.uid.clone()),
            ("k8s.namespace.name", self.namespace.clone()),
            ("k8s.pod.name", self.pod.clone()),
            ("k8s.pod.uid", self.uid.clone()),
            ("telemetry.distro.name", "mesh-proxy".to_owned()),
            ("telemetry.distro.version", build_info::VERSION.to_owned()),
        ];
        let attributes = attributes.map(|(key, value)| KeyValue::new(key, value));
        Resource::builder().with_service_name(self.service.clone()).with_attributes(attributes).build()
    }
}

impl Pending {
    /// Waits for spans; a while longer for a full batch.
    async fn fill(&mut self, batch: &mut Vec<SpanData>) {
        if batch.is_empty() && self.queue.recv_many(batch, BATCH).await == 0 {
            // Nobody makes spans any more: the end comes by another way.
            return std::future::pending().await;
        }
        let deadline = Instant::now() + WAIT;
        while batch.len() < BATCH {
            match tokio::time::timeout_at(deadline, self.queue.recv_many(batch, BATCH - batch.len())).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn count(&self, spans: usize, sent: bool) {
        if sent {
            self.metrics.exported.inc_by(spans as u64);
        } else {
            self.metrics.dropped("collector", spans as u64);
        }
    }
}
