//! The configuration stream: one task per proxy.
//!
//! The hello is checked against the index (contracts §5): the certificate proves namespace and service account, the
//! index the pod and its addresses. A proxy that reads slowly gets the latest value when it is ready for one; nothing
//! queues up for it.

mod drain;
mod hello;
mod stream;

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use mesh_proto::{
    config::{ControllerMessage, Hello, ProxyMessage},
    identity::Identity,
    outcome::Outcome,
    server::{ConfigService, ProxyMessages, Refusal},
};
use mesh_runtime::tasks::Tasks;
use tokio::sync::{mpsc, watch};

use self::{
    hello::{check_version, fit},
    stream::{End, Stream},
};
use super::proxies::{Proxies, Proxy, Row};
use crate::{
    index::Name,
    metrics::Metrics,
    publish::{KnownPod, Latest, Publisher},
    tls::Connections,
};

/// Most proxies of one controller.
const MOST_STREAMS: usize = 10_000;
/// How long a proxy may take to read why its stream ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// Messages on their way to one proxy; whatever else changed waits as "changed", not as a message.
const ON_THE_WAY: usize = 16;
/// How long the index may take to learn of a pod that is already running.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a proxy may take to say hello.
const HELLO: Duration = Duration::from_secs(10);

/// The service.
pub struct Configs {
    /// Where values come from.
    pub publisher: Publisher,
    /// The trust bundle, as every proxy gets it.
    pub trust_bundle: watch::Receiver<Latest>,
    /// The table of proxies.
    pub proxies: Proxies,
    /// Owns the streams' tasks.
    pub tasks: Tasks,
    /// Where it is counted.
    pub metrics: Metrics,
    /// Cuts off proxies that do not read.
    pub connections: Connections,
    /// A proxy that takes no message for this long is cut off: it holds memory here and runs on what is long outdated.
    pub slowest_reader: Duration,
}

impl ConfigService for Configs {
    async fn connect(
        &self,
        address: SocketAddr,
        identity: Identity,
        mut messages: ProxyMessages,
    ) -> Result<mpsc::Receiver<Result<ControllerMessage, Refusal>>, Refusal> {
        match self.accept(address, &identity, &mut messages).await {
            Ok(row) => Ok(self.start(address, messages, row)),
            Err(refusal) => {
                self.metrics.refused("config", refusal.outcome);
                tracing::warn!(%address, %identity, %refusal, "configuration stream refused");
                Err(refusal)
            }
        }
    }
}

impl Configs {
    /// Reads the hello and checks it.
    async fn accept(
        &self,
        address: SocketAddr,
        identity: &Identity,
        messages: &mut ProxyMessages,
    ) -> Result<Accepted, Refusal> {
        let bad = |detail: &str| Refusal::new(Outcome::BadRequest, detail);
        let first = tokio::time::timeout(HELLO, messages.next()).await.map_err(|_| bad("no hello came"))?;
        let Some(ProxyMessage::Hello(hello)) = first? else { return Err(bad("the first message must be a hello")) };
        check_version(&hello)?;
        let pod = Name::new(&hello.pod_namespace, &hello.pod_name);
        let known = self.check_pod(&pod, &hello, address, identity).await?;
        let proxy = Proxy {
            pod: pod.to_string(),
            uid: hello.pod_uid,
            identity: identity.to_string(),
            address,
            version: hello.proxy_version,
            connected_at: SystemTime::now(),
            draining: false,
            keys: std::collections::BTreeMap::new(),
        };
        let row = self.proxies.add(proxy, MOST_STREAMS);
        let row = row.ok_or_else(|| Refusal::new(Outcome::Overloaded, "too many configuration streams"))?;
        Ok(Accepted { pod, known, row })
    }

    /// Waits a little for a pod that the index has not seen yet, or not with its address.
    async fn check_pod(
        &self,
        pod: &Name,
        hello: &Hello,
        address: SocketAddr,
        identity: &Identity,
    ) -> Result<watch::Receiver<Option<KnownPod>>, Refusal> {
        if identity.namespace() != &*pod.namespace {
            return Err(Refusal::new(
                Outcome::IdentityMismatch,
                format!("{identity} is not of the namespace of pod {pod}"),
            ));
        }
        let known = self.publisher.pod(pod.clone()).await;
        let mut known = known.map_err(|error| Refusal::new(Outcome::Overloaded, error.to_string()))?;
        let decided = known.wait_for(|known| {
            let fit = fit(known.as_ref(), hello, address, identity);
            !matches!(fit, Err(ref refusal) if refusal.outcome == Outcome::PodUnknown)
        });
        // In time or not: what is known now decides.
        let _ = tokio::time::timeout(PATIENCE, decided).await;
        let latest = known.borrow().clone();
        fit(latest.as_ref(), hello, address, identity).map(|()| known)
    }

    fn start(
        &self,
        address: SocketAddr,
        messages: ProxyMessages,
        accepted: Accepted,
    ) -> mpsc::Receiver<Result<ControllerMessage, Refusal>> {
        let (outgoing, receiver) = mpsc::channel(ON_THE_WAY);
        self.metrics.streams(self.proxies.count());
        let stream = Stream::new(accepted, self);
        let (metrics, proxies, connections) = (self.metrics.clone(), self.proxies.clone(), self.connections.clone());
        let cancelled = self.tasks.cancelled();
        self.tasks.spawn("configuration stream", async move {
            let pod = stream.pod.clone();
            tracing::info!(%pod, %address, "proxy connected");
            let replaced = stream.row.replaced();
            let end = tokio::select! {
                end = stream.run(messages, outgoing.clone()) => end,
                () = replaced => End::Refused(Refusal::new(Outcome::Overloaded, "newer streams of the same pod replace it")),
                () = cancelled => End::Closed,
            };
            match &end {
                End::Closed => {}
                End::TooSlow => connections.cut(address),
                End::Refused(refusal) => {
                    metrics.refused("config", refusal.outcome);
                    // Best effort: it may have gone, or not read.
                    let _ = outgoing.send_timeout(Err(refusal.clone()), FAREWELL).await;
                }
            }
            tracing::info!(%pod, %address, ?end, "proxy disconnected");
            metrics.streams(proxies.count());
        });
        receiver
    }
}

struct Accepted {
    pod: Name,
    known: watch::Receiver<Option<KnownPod>>,
    row: Row,
}
