//! The configuration stream: hello, what is subscribed to, every update acknowledged or rejected, and back again when it
//! ends.
//!
//! One task, made by [`crate::app`]; the one writer of [`Policies`]. A bad update keeps the last good one and is rejected
//! by name. While the stream is away nothing is forgotten. How a connection is made is [`Controller`]'s business.

use std::{collections::VecDeque, future::pending};

use mesh_proto::{
    client::{CallError, ConfigClient, ConfigStream, Incoming},
    config::{ControllerMessage, Hello, Key, PROTOCOL_VERSION, ProxyMessage, Update, Value},
    outcome::Outcome,
};
use mesh_runtime::{backoff::Backoff, readiness::BlockReady};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, MissedTickBehavior, interval_at},
};

use super::{Change, MAX_TARGETS, Policies};
use crate::{
    control_metrics::ControlMetrics,
    controller::{ConnectError, Controller, Show},
    drain::Drain,
    tls::{Credentials, Roots},
    trust::Trust,
};

/// Waits between streams.
const RETRY_LEAST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);
/// Messages on their way to the controller.
const OUTGOING: usize = 64;
/// Messages that wait for it; beyond this nothing more is read, so that a controller that only talks cannot fill memory.
/// Holds all subscriptions of a new stream and their answers.
const MAX_QUEUE: usize = 2 * MAX_TARGETS + 64;
/// How often idle destinations are looked for.
const SWEEP: Duration = Duration::from_mins(1);
/// Longest the controller may take to accept a hello.
const WELCOME: Duration = Duration::from_secs(10);
/// Why an update was rejected is for people; more than this helps nobody.
const MAX_REASON: usize = 512;

/// Keeps the stream.
#[derive(Debug)]
pub struct Client {
    /// Whom to talk to.
    pub controller: Controller,
    /// What is said first.
    pub hello: Hello,
    /// Where answers go.
    pub policies: Policies,
    /// The certificate to show.
    pub credentials: Credentials,
    /// Where roots of trust go.
    pub trust: Trust,
    /// Its begin is told to the controller, which says who still sends here.
    pub drain: Drain,
    /// What is counted.
    pub metrics: ControlMetrics,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the controller did not accept the hello within {WELCOME:?}")]
    NoWelcome,
    #[error("the controller speaks version {0} of the protocol, this proxy {PROTOCOL_VERSION}: restart the pod")]
    Version(u32),
    #[error("the controller closed the stream")]
    Closed,
}

impl Client {
    /// Runs until dropped. `ready` is let go with the first inbound policy.
    pub async fn run(self, ready: BlockReady) {
        let mut ready = Some(ready);
        let mut backoff = Backoff::new(RETRY_LEAST, RETRY_MOST);
        self.credentials.until_certified().await;
        loop {
            let ended = self.stream(&mut ready, &mut backoff).await;
            self.policies.link_down();
            self.drain.held(None);
            self.metrics.connected(false);
            let wait = backoff.wait();
            let code = match &ended {
                Ended::Call(error) => error.outcome.map(Outcome::code),
                _ => None,
            };
            tracing::warn!(error = %ended, code, retry_in = ?wait, "no configuration stream; what is known stays in force");
            tokio::time::sleep(wait).await;
        }
    }

    /// One stream, from its connection to its end.
    async fn stream(&self, ready: &mut Option<BlockReady>, backoff: &mut Backoff) -> Ended {
        match self.open().await {
            Ok((stream, outgoing)) => {
                backoff.reset();
                self.policies.accepted();
                self.metrics.connected(true);
                tracing::info!(controller = %self.controller.address(), "configuration stream is up");
                self.talk(stream, outgoing, ready).await
            }
            Err(ended) => ended,
        }
    }

    async fn open(&self) -> Result<(ConfigStream, mpsc::Sender<ProxyMessage>), Ended> {
        let channel = self.controller.connect(Show::Certificate).await?;
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        // There is room: the queue is new.
        let _ = outgoing.try_send(ProxyMessage::Hello(self.hello.clone()));
        let welcome = async {
            let mut stream = ConfigClient::new(channel).connect(messages).await?;
            match stream.next().await? {
                Some(Incoming::Message(ControllerMessage::Welcome { protocol_version, controller_version })) => {
                    if protocol_version.abs_diff(PROTOCOL_VERSION) > 1 {
                        return Err(Ended::Version(protocol_version));
                    }
                    tracing::debug!(controller_version, "hello accepted");
                    Ok(stream)
                }
                Some(_) => Err(Ended::NoWelcome),
                None => Err(Ended::Closed),
            }
        };
        let stream = tokio::time::timeout(WELCOME, welcome).await.map_err(|_| Ended::NoWelcome)??;
        Ok((stream, outgoing))
    }

    async fn talk(
        &self,
        mut stream: ConfigStream,
        outgoing: mpsc::Sender<ProxyMessage>,
        ready: &mut Option<BlockReady>,
    ) -> Ended {
        let mut queue =
            VecDeque::from([ProxyMessage::Subscribe(Key::Inbound), ProxyMessage::Subscribe(Key::TrustBundle)]);
        let known = self.policies.link_up();
        queue.extend(known.into_iter().map(|destination| ProxyMessage::Subscribe(Key::Outbound(destination))));
        let mut draining = false;
        let mut sweep = interval_at(Instant::now() + SWEEP, SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                slot = outgoing.reserve(), if !queue.is_empty() => {
                    let (Ok(slot), Some(message)) = (slot, queue.pop_front()) else {
                        return Ended::Closed;
                    };
                    slot.send(message);
                }
                incoming = stream.next(), if queue.len() < MAX_QUEUE => match incoming {
                    Ok(Some(Incoming::Message(ControllerMessage::Update(update)))) => {
                        let answer = self.take(update);
                        if ready.is_some() && self.policies.inbound().borrow().is_some() {
                            drop(ready.take());
                        }
                        queue.push_back(answer);
                    }
                    Ok(Some(Incoming::Message(ControllerMessage::Holding(holding)))) => self.drain.held(Some(holding)),
                    Ok(Some(Incoming::Message(ControllerMessage::Welcome { .. }))) => {}
                    Ok(Some(Incoming::Unusable { key, version, reason })) => {
                        queue.push_back(self.reject(key, version, &reason));
                    }
                    Ok(None) => return Ended::Closed,
                    Err(error) => return error.into(),
                },
                change = self.policies.next_change(), if queue.len() < MAX_QUEUE => queue.push_back(match change {
                    Change::Subscribe(destination) => ProxyMessage::Subscribe(Key::Outbound(destination)),
                    Change::Unsubscribe(destination) => ProxyMessage::Unsubscribe(Key::Outbound(destination)),
                }),
                () = started(&self.drain, draining) => {
                    draining = true;
                    queue.push_back(ProxyMessage::DrainStarted { reads_holding: true });
                }
                _ = sweep.tick() => self.policies.sweep(),
            }
        }
    }

    /// Puts an update in force, or says why not.
    fn take(&self, update: Update) -> ProxyMessage {
        let Update { key, version, value } = update;
        match (key, value) {
            (Key::Inbound, Value::Inbound(policy)) => self.policies.set_inbound(policy, version),
            (Key::Outbound(destination), Value::Outbound(policy)) => {
                // What nobody asks about any more was let go, and the controller is being told.
                self.policies.set_outbound(destination, policy, version);
            }
            (Key::TrustBundle, Value::TrustBundle(bundle)) => {
                // Usable by TLS before it is kept: what is kept is what the next life starts with.
                let trusted = Roots::of_domain(&bundle, self.credentials.identity().trust_domain())
                    .map_err(|error| error.to_string())
                    .and_then(|roots| self.credentials.set_roots(roots.into()).map_err(|error| error.to_string()))
                    .and_then(|()| self.trust.receive(&bundle).map_err(|error| error.to_string()));
                if let Err(reason) = trusted {
                    return self.reject(key, version, &reason);
                }
            }
            (key, _) => return self.reject(key, version, "the value is not of the key's kind"),
        }
        ProxyMessage::Ack { key, version }
    }

    fn reject(&self, key: Key, version: u64, reason: &str) -> ProxyMessage {
        let kind = match key {
            Key::Inbound => "inbound",
            Key::Outbound(_) => "outbound",
            Key::TrustBundle => "trust-bundle",
        };
        self.metrics.rejected(kind);
        tracing::warn!(?key, version, reason, "an update was rejected; the last good one stays in force");
        ProxyMessage::Reject { key, version, reason: reason.chars().take(MAX_REASON).collect() }
    }
}

/// Resolves when the drain begins, once per stream.
async fn started(drain: &Drain, told: bool) {
    if told { pending().await } else { drain.started().await }
}
