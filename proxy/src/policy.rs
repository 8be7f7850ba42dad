//! What the controller has told this proxy: its inbound policy, and the target of every destination it dials.
//!
//! The data path reads through `watch` receivers and subscribes by asking; [`client`] is the one writer. What is known
//! stays known while the controller is away (discovery fails static), what was never known is refused after a second,
//! and an inbound policy not yet received refuses (policy fails closed). Bounded; knows no sockets.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_proto::{config::Key, inbound::InboundPolicy, outbound::OutboundPolicy};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// How long a connection waits for the first answer about its destination (contracts §3).
pub const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// Destinations known at a time. A pod that dials more loses the ones it has not used for longest.
const MAX_TARGETS: usize = 10_000;
/// An unused destination is forgotten after this long, and only while the controller could tell it again.
const IDLE: Duration = Duration::from_hours(1);

/// Policies of one proxy; clones are the same.
#[derive(Debug, Clone)]
pub struct Policies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    inbound: watch::Sender<Option<Arc<InboundPolicy>>>,
    targets: Mutex<HashMap<SocketAddr, Target>>,
    /// Something was asked for that the stream does not know of.
    asked: Notify,
    rejected: AtomicU64,
}

/// One destination.
#[derive(Debug)]
struct Target {
    /// None until the first answer; then where every change goes.
    policy: Option<watch::Sender<Arc<OutboundPolicy>>>,
    /// Wakes those who wait for the first answer, and hands it to them.
    answer: watch::Sender<Option<TargetWatch>>,
    /// When a connection last asked.
    used: Instant,
    /// Whether the stream of now was told.
    subscribed: bool,
}

/// The controller does not answer, and never said where this destination leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} was never resolved, and the controller does not answer")]
pub struct DiscoveryUnavailable(pub SocketAddr);

/// Where traffic to one destination goes, now and after every change.
pub type TargetWatch = watch::Receiver<Arc<OutboundPolicy>>;

impl Policies {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            inbound: watch::Sender::new(None),
            targets: Mutex::default(),
            asked: Notify::new(),
            rejected: AtomicU64::new(0),
        }))
    }

    /// What a test says is known; nobody answers for anything else.
    pub fn fixed(
        inbound: Option<InboundPolicy>,
        outbound: impl IntoIterator<Item = (SocketAddr, OutboundPolicy)>,
    ) -> Self {
        let policies = Self::new();
        policies.0.inbound.send_replace(inbound.map(Arc::new));
        for (destination, policy) in outbound {
            policies.0.targets.lock().insert(destination, Target::new());
            policies.publish(destination, policy);
        }
        policies
    }

    /// The pod's own inbound policy; none until it was received.
    pub fn inbound(&self) -> watch::Receiver<Option<Arc<InboundPolicy>>> {
        self.0.inbound.subscribe()
    }

    /// Where traffic to `destination` goes, if that is known already.
    pub fn outbound_cached(&self, destination: SocketAddr) -> Option<TargetWatch> {
        let mut targets = self.0.targets.lock();
        let target = targets.get_mut(&destination)?;
        target.used = Instant::now();
        target.policy.as_ref().map(watch::Sender::subscribe)
    }

    /// Where traffic to `destination` goes; asks the controller where that is not known, and waits for its answer at
    /// most [`FIRST_ANSWER`].
    pub async fn outbound(&self, destination: SocketAddr) -> Result<TargetWatch, DiscoveryUnavailable> {
        let mut answer = self.ask(destination);
        let answered = tokio::time::timeout(FIRST_ANSWER, answer.wait_for(Option::is_some)).await;
        answered.ok().and_then(Result::ok).and_then(|answer| answer.clone()).ok_or(DiscoveryUnavailable(destination))
    }

    fn ask(&self, destination: SocketAddr) -> watch::Receiver<Option<TargetWatch>> {
        let mut targets = self.0.targets.lock();
        if !targets.contains_key(&destination) && targets.len() >= MAX_TARGETS {
            forget_oldest(&mut targets);
        }
        let target = targets.entry(destination).or_insert_with(Target::new);
        target.used = Instant::now();
        if !target.subscribed {
            self.0.asked.notify_one();
        }
        target.answer.subscribe()
    }

    /// Forgets what nobody used for an hour. Called only while connected.
    fn forget_idle(&self) -> Vec<Key> {
        let now = Instant::now();
        let mut forgotten = Vec::new();
        self.0.targets.lock().retain(|destination, target| {
            let keep = target.is_held() || now.duration_since(target.used) < IDLE;
            if !keep {
                forgotten.push(Key::Outbound(*destination));
            }
            keep
        });
        forgotten
    }

    /// A new stream knows of nothing that was asked on the last one.
    fn forget_subscriptions(&self) {
        self.0.targets.lock().values_mut().for_each(|target| target.subscribed = false);
    }

    /// What has been asked for and not been told to the stream.
    fn take_asked(&self) -> Vec<Key> {
        let mut targets = self.0.targets.lock();
        let fresh = targets.iter_mut().filter(|(_, target)| !target.subscribed);
        fresh
            .map(|(destination, target)| {
                target.subscribed = true;
                Key::Outbound(*destination)
            })
            .collect()
    }

    async fn asked(&self) {
        self.0.asked.notified().await;
    }

    fn publish_inbound(&self, policy: InboundPolicy) {
        self.0.inbound.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&policy);
            if changed {
                *current = Some(Arc::new(policy));
            }
            changed
        });
    }

    fn publish(&self, destination: SocketAddr, policy: OutboundPolicy) {
        // An answer to what was forgotten meanwhile goes nowhere.
        if let Some(target) = self.0.targets.lock().get_mut(&destination) {
            target.publish(policy);
        }
    }

    /// Destinations that are known, and ones that are being asked for.
    pub fn counts(&self) -> (usize, usize) {
        let targets = self.0.targets.lock();
        let known = targets.values().filter(|target| target.policy.is_some()).count();
        (known, targets.len() - known)
    }

    /// Everything that is known, for the admin listener.
    pub fn known(&self) -> Vec<(SocketAddr, Arc<OutboundPolicy>)> {
        let targets = self.0.targets.lock();
        let known = targets
            .iter()
            .filter_map(|(destination, target)| Some((*destination, Arc::clone(&target.policy.as_ref()?.borrow()))));
        let mut known: Vec<_> = known.collect();
        known.sort_by_key(|(destination, _)| *destination);
        known
    }

    /// Updates that could not be used, since the start.
    pub fn rejected(&self) -> u64 {
        self.0.rejected.load(Ordering::Relaxed)
    }
}

impl Default for Policies {
    fn default() -> Self {
        Self::new()
    }
}

impl Target {
    fn new() -> Self {
        Self { policy: None, answer: watch::Sender::new(None), used: Instant::now(), subscribed: false }
    }

    fn publish(&mut self, policy: OutboundPolicy) {
        let Some(sender) = &self.policy else {
            let (sender, receiver) = watch::channel(Arc::new(policy));
            self.policy = Some(sender);
            self.answer.send_replace(Some(receiver));
            return;
        };
        sender.send_if_modified(|current| {
            let changed = **current != policy;
            if changed {
                *current = Arc::new(policy);
            }
            changed
        });
    }

    /// Whether a connection still reads it; one receiver is the copy in `answer`.
    fn is_held(&self) -> bool {
        self.answer.receiver_count() > 0 || self.policy.as_ref().is_some_and(|policy| policy.receiver_count() > 1)
    }
}

/// Makes room: first what was never answered, then what is unused for longest.
fn forget_oldest(targets: &mut HashMap<SocketAddr, Target>) {
    let oldest = targets.iter().min_by_key(|(_, target)| (target.policy.is_some(), target.used));
    if let Some(destination) = oldest.map(|(destination, _)| *destination) {
        targets.remove(&destination);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_waits_for_its_first_answer_and_no_longer() {
        let policies = Policies::new();
        let waiting = policies.outbound(address(1));
        tokio::pin!(waiting);
        assert!(poll!(&mut waiting).is_pending());
        assert_eq!(policies.take_asked(), [Key::Outbound(address(1))]);
        assert_eq!(policies.take_asked(), [], "told once per stream");
        policies.publish(address(1), OutboundPolicy::External);
        assert_eq!(**waiting.await.unwrap().borrow(), OutboundPolicy::External);

        let begun = Instant::now();
        assert_eq!(policies.outbound(address(2)).await.unwrap_err(), DiscoveryUnavailable(address(2)));
        assert_eq!(begun.elapsed(), FIRST_ANSWER);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_stays_known_and_is_asked_for_again_on_a_new_stream() {
        let policies = Policies::fixed(None, [(address(1), OutboundPolicy::External)]);
        policies.take_asked();
        policies.forget_subscriptions();
        tokio::time::advance(IDLE * 2).await;
        assert!(policies.outbound_cached(address(1)).is_some());
        assert_eq!(policies.take_asked(), [Key::Outbound(address(1))]);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_destinations_are_forgotten_unless_somebody_holds_them() {
        let policies =
            Policies::fixed(None, [(address(1), OutboundPolicy::External), (address(2), OutboundPolicy::External)]);
        let held = policies.outbound_cached(address(1)).unwrap();
        tokio::time::advance(IDLE * 2).await;
        assert_eq!(policies.forget_idle(), [Key::Outbound(address(2))]);
        drop(held);
        assert_eq!(policies.forget_idle(), [Key::Outbound(address(1))]);
    }

    #[tokio::test(start_paused = true)]
    async fn destinations_are_bounded() {
        let policies = Policies::new();
        for port in 0..u16::try_from(MAX_TARGETS).unwrap() {
            policies.ask(SocketAddr::from(([10, 0, 0, 1], port)));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        policies.publish(SocketAddr::from(([10, 0, 0, 1], 0)), OutboundPolicy::External);
        policies.ask(address(9));
        let targets = policies.0.targets.lock();
        assert_eq!(targets.len(), MAX_TARGETS);
        assert!(targets.contains_key(&SocketAddr::from(([10, 0, 0, 1], 0))), "known ones go last");
        assert!(!targets.contains_key(&SocketAddr::from(([10, 0, 0, 1], 1))));
    }
}
