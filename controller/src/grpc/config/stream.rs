//! One stream: what its proxy subscribes to, sent whenever it is different and the proxy is ready for it.
//!
//! Started by [`super`] once the hello was accepted. A value that changes while an older one waits is sent once.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::{AbortHandle, Abortable, BoxFuture, FutureExt as _},
    stream::FuturesUnordered,
};
use mesh_proto::{
    config::{ControllerMessage, Key, PROTOCOL_VERSION, ProxyMessage, Update, Value},
    outcome::Outcome,
    server::{ProxyMessages, Refusal},
};
use mesh_runtime::build_info;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    Accepted, Configs,
    drain::{self, Drain},
};
use crate::{
    grpc::proxies::{Proxies, Row},
    index::Name,
    metrics::Metrics,
    publish::{KnownPod, Latest, Publisher, Topic},
};

/// Most keys of one proxy.
const MOST_KEYS: usize = 10_000;

/// Why a stream ended.
#[derive(Debug)]
pub(super) enum End {
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
pub(super) struct Stream {
    pub(super) pod: Name,
    pub(super) row: Row,
    /// Where the pod is, among other things.
    known: watch::Receiver<Option<KnownPod>>,
    /// The zone for which destinations are subscribed to.
    zone: Option<Arc<str>>,
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
    proxies: Proxies,
    /// Once its proxy drains.
    drain: Option<Drain>,
}

impl Stream {
    /// Nothing subscribed to yet.
    pub(super) fn new(accepted: Accepted, configs: &Configs) -> Self {
        let mut known = accepted.known;
        let zone = zone(&mut known);
        Self {
            pod: accepted.pod,
            row: accepted.row,
            known,
            zone,
            publisher: configs.publisher.clone(),
            trust_bundle: configs.trust_bundle.clone(),
            metrics: configs.metrics.clone(),
            keys: HashMap::new(),
            changes: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            slowest_reader: configs.slowest_reader,
            proxies: configs.proxies.clone(),
            drain: None,
        }
    }

    /// Runs until it ends, and says why it did.
    pub(super) async fn run(
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
                Ok(()) = self.known.changed() => self.moved().await,
                () = drain::due(self.drain.as_mut()) => self.look(&outgoing).await,
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
            ProxyMessage::DrainStarted { reads_holding } => {
                self.row.draining();
                if reads_holding && self.drain.is_none() {
                    self.drain = Some(Drain::begin(&self.metrics));
                }
            }
        }
    }

    /// Says who still sends to its pod, where that is news.
    async fn look(&mut self, outgoing: &mpsc::Sender<Result<ControllerMessage, Refusal>>) {
        let Ok(offers) = self.publisher.offers(self.pod.clone()).await else { return };
        let (row, proxies) = (&self.row, &self.proxies);
        let holding = drain::holding(&offers, || proxies.holding(&self.pod, row.uid(), &offers));
        let Some(drain) = &mut self.drain else { return };
        // Where there is no room for it now, it is still news at the next look.
        if drain.is_news(holding) && outgoing.try_send(Ok(ControllerMessage::Holding(holding))).is_ok() {
            drain.told(holding, &self.metrics);
        }
    }

    /// Another zone is known for its pod: other endpoints may be the near ones.
    async fn moved(&mut self) {
        let now = zone(&mut self.known);
        // A pod that is gone keeps what it has to its end.
        if now == self.zone || now.is_none() {
            return;
        }
        self.zone = now;
        let keys: Vec<Key> = self.keys.keys().filter(|key| matches!(key, Key::Outbound(_))).copied().collect();
        for key in keys {
            // Where there is no room for more, what is subscribed to stays.
            let Some(topic) = self.topic(key) else { continue };
            let Ok(mut receiver) = self.publisher.topic(topic).await else { continue };
            let Some(subscription) = self.keys.remove(&key) else { continue };
            subscription.abort.abort();
            self.waiting.retain(|(waiting, _)| *waiting != key);
            receiver.mark_changed();
            self.wait(key, receiver, subscription.answered);
        }
    }

    /// What a key stands for; the trust bundle is everybody's.
    fn topic(&self, key: Key) -> Option<Topic> {
        match key {
            Key::TrustBundle => None,
            Key::Inbound => Some(Topic::Inbound(self.pod.clone())),
            Key::Outbound(address) => Some(Topic::Outbound(address, self.zone.clone())),
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
        let receiver = match self.topic(key) {
            None => Ok(self.trust_bundle.clone()),
            Some(topic) => self.publisher.topic(topic).await,
        };
        let mut receiver = receiver.map_err(|error| overloaded(error.to_string()))?;
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
        self.row.sent(key, &latest);
        // A first answer may be as old as the last change; how long that took to send says nothing.
        if answered {
            self.metrics.published(latest.since.elapsed());
        }
        Some(Update { key, version: latest.version, value: Value::clone(&latest.value) })
    }
}

/// The zone of a pod, as last known; what is looked at counts as seen.
fn zone(known: &mut watch::Receiver<Option<KnownPod>>) -> Option<Arc<str>> {
    known.borrow_and_update().as_ref().and_then(|pod| pod.zone.clone())
}
