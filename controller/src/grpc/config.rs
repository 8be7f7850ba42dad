//! The configuration stream: one task per proxy.
//!
//! The hello is checked against the index (contracts §5): the certificate proves namespace and service account, the
//! index the pod and its addresses. A proxy that reads slowly gets the latest value when it is ready for one; nothing
//! queues up for it.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{
    StreamExt as _,
    future::{AbortHandle, Abortable, BoxFuture, FutureExt as _},
    stream::FuturesUnordered,
};
use mesh_proto::{
    config::{ControllerMessage, Hello, Key, PROTOCOL_VERSION, ProxyMessage, Update, Value},
    identity::Identity,
    outcome::Outcome,
    server::{ConfigService, ProxyMessages, Refusal},
    trust::TrustBundle,
};
use mesh_runtime::{build_info, tasks::Tasks};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::proxies::{Proxies, Proxy, Row};
use crate::{
    index::Name,
    metrics::Metrics,
    publish::{KnownPod, Latest, Published, Publisher, Topic},
    tls::Connections,
};

/// Most keys of one proxy.
const MOST_KEYS: usize = 10_000;
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
        self.check_pod(&pod, &hello, address, identity).await?;
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
        Ok(Accepted { pod, row })
    }

    /// Waits a little for a pod that the index has not seen yet, or not with its address.
    async fn check_pod(
        &self,
        pod: &Name,
        hello: &Hello,
        address: SocketAddr,
        identity: &Identity,
    ) -> Result<(), Refusal> {
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
        fit(latest.as_ref(), hello, address, identity)
    }

    fn start(
        &self,
        address: SocketAddr,
        messages: ProxyMessages,
        accepted: Accepted,
    ) -> mpsc::Receiver<Result<ControllerMessage, Refusal>> {
        let (outgoing, receiver) = mpsc::channel(ON_THE_WAY);
        self.metrics.streams(self.proxies.count());
        let stream = Stream {
            pod: accepted.pod,
            row: accepted.row,
            publisher: self.publisher.clone(),
            trust_bundle: self.trust_bundle.clone(),
            metrics: self.metrics.clone(),
            keys: HashMap::new(),
            changes: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            slowest_reader: self.slowest_reader,
        };
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
    row: Row,
}

/// Whether both sides understand each other: one step of the protocol, one minor release, both ways.
fn check_version(hello: &Hello) -> Result<(), Refusal> {
    let refuse = |detail: String| Err(Refusal::new(Outcome::VersionUnsupported, detail));
    if hello.protocol_version.abs_diff(PROTOCOL_VERSION) > 1 {
        return refuse(format!(
            "the proxy speaks protocol {}, the controller {PROTOCOL_VERSION}",
            hello.protocol_version
        ));
    }
    let minor = |version: &str| -> Option<(u64, u64)> {
        let mut parts = version.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    match (minor(&hello.proxy_version), minor(build_info::VERSION)) {
        (Some(proxy), Some(own)) if proxy.0 == own.0 && proxy.1.abs_diff(own.1) <= 1 => Ok(()),
        _ => refuse(format!("the proxy is {:?}, the controller {}", hello.proxy_version, build_info::VERSION)),
    }
}

/// Whether the pod that says hello is the one that the index knows.
fn fit(known: Option<&KnownPod>, hello: &Hello, address: SocketAddr, identity: &Identity) -> Result<(), Refusal> {
    let pod = format!("{}/{}", hello.pod_namespace, hello.pod_name);
    let unknown = |detail: String| Err(Refusal::new(Outcome::PodUnknown, detail));
    let Some(known) = known else { return unknown(format!("pod {pod} is not known")) };
    if known.uid != hello.pod_uid {
        return unknown(format!("pod {pod} has another uid than {:?}", hello.pod_uid));
    }
    if known.service_account != identity.service_account() {
        let detail = format!("pod {pod} runs as {}, not as {}", known.service_account, identity.service_account());
        return Err(Refusal::new(Outcome::IdentityMismatch, detail));
    }
    if !known.ips.contains(&address.ip().to_canonical()) {
        return unknown(format!("pod {pod} does not have the address {}", address.ip()));
    }
    Ok(())
}

/// Why a stream ended.
#[derive(Debug)]
enum End {
    /// In order.
    Closed,
    /// The proxy is told why.
    Refused(Refusal),
    /// The proxy does not read.
    TooSlow,
}

/// One key of a stream.
struct Subscription {
    /// Ends the wait for its next change.
    abort: AbortHandle,
    /// Whether it has its first value.
    answered: bool,
}

/// The next change of a key, with the receiver to wait for the one after.
type Change = Abortable<BoxFuture<'static, Option<(Key, watch::Receiver<Latest>)>>>;

/// One stream.
struct Stream {
    pod: Name,
    row: Row,
    publisher: Publisher,
    trust_bundle: watch::Receiver<Latest>,
    metrics: Metrics,
    /// What is subscribed to.
    keys: HashMap<Key, Subscription>,
    /// One per subscription that is up to date.
    changes: FuturesUnordered<Change>,
    /// Subscriptions with something to send.
    waiting: VecDeque<(Key, watch::Receiver<Latest>)>,
    slowest_reader: Duration,
}

impl Stream {
    async fn run(
        mut self,
        mut messages: ProxyMessages,
        outgoing: mpsc::Sender<Result<ControllerMessage, Refusal>>,
    ) -> End {
        let welcome = ControllerMessage::Welcome {
            controller_version: build_info::VERSION.to_owned(),
            protocol_version: PROTOCOL_VERSION,
        };
        if outgoing.send(Ok(welcome)).await.is_err() {
            return End::Closed;
        }
        let mut progress = Instant::now();
        loop {
            let idle = self.waiting.is_empty();
            tokio::select! {
                message = messages.next() => match message {
                    Ok(Some(ProxyMessage::Hello(_))) => {
                        return End::Refused(Refusal::new(Outcome::BadRequest, "a second hello"));
                    }
                    Ok(Some(message)) => self.take(message).await,
                    Ok(None) => return End::Closed,
                    Err(refusal) => return End::Refused(refusal),
                },
                // Takes aborted ones out too: a pattern that fits only the others would turn this branch off and leave
                // their successors unpolled.
                Some(change) = self.changes.next(), if !self.changes.is_empty() => {
                    self.waiting.extend(change.ok().flatten());
                }
                permit = outgoing.reserve(), if !self.waiting.is_empty() => match permit {
                    Ok(permit) => {
                        progress = Instant::now();
                        if let Some(update) = self.next_update() {
                            permit.send(Ok(ControllerMessage::Update(update)));
                        }
                    }
                    Err(_) => return End::Closed,
                },
                () = tokio::time::sleep_until(progress + self.slowest_reader), if !self.waiting.is_empty() => return End::TooSlow,
            }
            // What was not waited for until now, the proxy cannot be late with.
            if idle {
                progress = Instant::now();
            }
        }
    }

    async fn take(&mut self, message: ProxyMessage) {
        match message {
            // Read by whoever accepted the stream; a second one has ended it.
            ProxyMessage::Hello(_) => {}
            ProxyMessage::Subscribe(key) => {
                if let Err(refusal) = self.subscribe(key).await {
                    // Without an answer the proxy fails this one destination; what it has stays up to date.
                    self.metrics.refused("subscribe", refusal.outcome);
                    tracing::warn!(pod = %self.pod, ?key, %refusal, "subscription refused");
                }
            }
            ProxyMessage::Unsubscribe(key) => {
                if let Some(subscription) = self.keys.remove(&key) {
                    subscription.abort.abort();
                    self.waiting.retain(|(waiting, _)| *waiting != key);
                    self.row.unsubscribed(key);
                }
            }
            ProxyMessage::Ack { key, version } => self.row.acked(key, version),
            ProxyMessage::Reject { key, version, reason } => {
                tracing::warn!(pod = %self.pod, ?key, version, %reason, "the proxy cannot use an update and keeps the last");
                self.metrics.rejected();
                self.row.rejected(key, version, &reason);
            }
            ProxyMessage::DrainStarted => self.row.draining(),
        }
    }

    async fn subscribe(&mut self, key: Key) -> Result<(), Refusal> {
        if self.keys.contains_key(&key) {
            return Ok(());
        }
        let overloaded = |detail: String| Refusal::new(Outcome::Overloaded, detail);
        if self.keys.len() >= MOST_KEYS {
            return Err(overloaded(format!("more than {MOST_KEYS} subscriptions")));
        }
        let topic = match key {
            Key::TrustBundle => Ok(self.trust_bundle.clone()),
            Key::Inbound => self.publisher.topic(Topic::Inbound(self.pod.clone())).await,
            Key::Outbound(address) => self.publisher.topic(Topic::Outbound(address)).await,
        };
        let mut receiver = topic.map_err(|error| overloaded(error.to_string()))?;
        // What is there already is news to this proxy.
        receiver.mark_changed();
        self.row.subscribed(key);
        self.wait(key, receiver, false);
        Ok(())
    }

    /// Waits for the next change of a key.
    fn wait(&mut self, key: Key, mut receiver: watch::Receiver<Latest>, answered: bool) {
        let change = async move {
            // The value is none until there is a first one.
            let there = receiver.changed().await.is_ok();
            there.then_some((key, receiver))
        };
        let (abort, registration) = AbortHandle::new_pair();
        self.changes.push(Abortable::new(change.boxed(), registration));
        self.keys.insert(key, Subscription { abort, answered });
    }

    /// The latest value of the key that has waited longest.
    fn next_update(&mut self) -> Option<Update> {
        let (key, mut receiver) = self.waiting.pop_front()?;
        let latest = receiver.borrow_and_update().clone();
        let answered = self.keys.get(&key).is_some_and(|subscription| subscription.answered);
        self.wait(key, receiver, answered || latest.is_some());
        let latest = latest?;
        self.row.sent(key, latest.version);
        // A first answer may be as old as the last change; how long that took to send says nothing.
        if answered {
            self.metrics.published(latest.since.elapsed());
        }
        Some(Update { key, version: latest.version, value: Value::clone(&latest.value) })
    }
}

/// The trust bundle as a topic, to be replaced and to be listened to.
pub fn trust_bundle(bundle: TrustBundle) -> (Trusted, watch::Receiver<Latest>) {
    let (sender, receiver) = watch::channel(None);
    let trusted = Trusted(sender);
    trusted.replace(bundle);
    (trusted, receiver)
}

/// The trust bundle that every stream sends.
pub struct Trusted(watch::Sender<Latest>);

impl Trusted {
    /// Sends another bundle to everybody.
    pub fn replace(&self, bundle: TrustBundle) {
        self.0.send_if_modified(|latest| {
            let value = Value::TrustBundle(bundle);
            let version = latest.as_ref().map_or(1, |latest| latest.version + 1);
            let same = latest.as_ref().is_some_and(|latest| *latest.value == value);
            if !same {
                *latest = Some(Published { version, value: Arc::new(value), since: Instant::now() });
            }
            !same
        });
    }
}
