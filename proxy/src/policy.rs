//! What the controller said about this pod and about the destinations it dials: one writer, many readers.
//!
//! [`client`] writes, the data path reads. A destination is subscribed when it is first dialled. Everything known is kept
//! while the controller is away; while it is there, what was idle for a day is let go. It knows no stream.

pub mod client;
mod summary;
mod writer;

pub use summary::{InboundSummary, OutboundSummary, Summary};

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use mesh_proto::{inbound::InboundPolicy, outbound::OutboundPolicy};
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Notify, futures::OwnedNotified, watch},
    time::{Duration, Instant},
};

/// Most destinations known at once.
pub const MAX_TARGETS: usize = 10_000;
/// Longest to wait for the first answer about a destination (contracts §3).
pub const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// How long a destination must be idle before it is let go: a day and an hour, so that what a daily job dials is still known
/// when the controller is not there to ask. What this may keep is bounded by [`MAX_TARGETS`].
const IDLE: Duration = Duration::from_hours(25);

/// Where traffic to one destination goes, now and after every change.
pub type TargetWatch = watch::Receiver<Arc<OutboundPolicy>>;

/// All that is known. Cloning is a reference count.
#[derive(Clone)]
pub struct Policies(Arc<Shared>);

struct Shared {
    inbound: watch::Sender<Option<Arc<InboundPolicy>>>,
    /// Version of the inbound policy in force, and since when.
    inbound_version: Mutex<(u64, Instant)>,
    targets: RwLock<HashMap<SocketAddr, Target, ahash::RandomState>>,
    /// Subscriptions that the stream has not been told of.
    changes: Mutex<VecDeque<Change>>,
    changed: Notify,
    link: Mutex<Link>,
    epoch: Instant,
    /// Without a controller ([`Policies::fixed`]) there is nobody to ask.
    asks: bool,
}

/// A destination.
enum Target {
    /// Asked about, and not answered yet.
    Asked { answered: Arc<Notify> },
    /// Answered.
    Known { policy: watch::Sender<Arc<OutboundPolicy>>, version: u64, since: Instant, used: AtomicU64 },
}

/// What the stream is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Subscribe(SocketAddr),
    Unsubscribe(SocketAddr),
}

/// Whether there is a controller to listen to.
#[derive(Debug, Clone, Copy)]
enum Link {
    Up,
    /// Since then. What is known is at least so old.
    Down(Instant),
}

/// A destination was never resolved, and there was no answer in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("resolve {destination}: {reason}")]
pub struct DiscoveryUnavailable {
    /// What was dialled.
    pub destination: SocketAddr,
    /// Why it is not known.
    pub reason: Unresolved,
}

/// Why a destination is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// No answer within [`FIRST_ANSWER`].
    NoAnswer,
    /// [`MAX_TARGETS`] are in use.
    TooMany,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => write!(f, "the controller did not answer within {FIRST_ANSWER:?}"),
            Self::TooMany => write!(f, "{MAX_TARGETS} destinations are in use already"),
        }
    }
}

impl Policies {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::build(true)
    }

    /// Knows exactly this and asks nobody: for tests of the data path.
    pub fn fixed(
        inbound: Option<InboundPolicy>,
        outbound: impl IntoIterator<Item = (SocketAddr, OutboundPolicy)>,
    ) -> Self {
        let policies = Self::build(false);
        policies.0.inbound.send_replace(inbound.map(Arc::new));
        for (destination, policy) in outbound {
            let known = policies.known(policy, 0);
            policies.0.targets.write().insert(destination, known);
        }
        policies
    }

    fn build(asks: bool) -> Self {
        let epoch = Instant::now();
        Self(Arc::new(Shared {
            inbound: watch::Sender::new(None),
            inbound_version: Mutex::new((0, epoch)),
            targets: RwLock::default(),
            changes: Mutex::default(),
            changed: Notify::new(),
            link: Mutex::new(Link::Down(epoch)),
            epoch,
            asks,
        }))
    }

    /// The pod's own policy. None until received: nothing may be let in.
    pub fn inbound(&self) -> watch::Receiver<Option<Arc<InboundPolicy>>> {
        self.0.inbound.subscribe()
    }

    /// Where traffic to `destination` goes: at once when it is known; else it is asked for, and waited for at most
    /// [`FIRST_ANSWER`].
    pub async fn outbound(&self, destination: SocketAddr) -> Result<TargetWatch, DiscoveryUnavailable> {
        let unavailable = |reason| DiscoveryUnavailable { destination, reason };
        if let Some(policy) = self.outbound_cached(destination) {
            return Ok(policy);
        }
        let answered = self.ask(destination).map_err(unavailable)?;
        if let Some(answered) = answered {
            // No answer in time is seen below.
            let _ = tokio::time::timeout(FIRST_ANSWER, answered).await;
        }
        self.outbound_cached(destination).ok_or(unavailable(Unresolved::NoAnswer))
    }

    /// As [`Policies::outbound`] where it is known already; for the hot path.
    pub fn outbound_cached(&self, destination: SocketAddr) -> Option<TargetWatch> {
        match self.0.targets.read().get(&destination) {
            Some(Target::Known { policy, used, .. }) => {
                used.store(self.now(), Ordering::Relaxed);
                Some(policy.subscribe())
            }
            _ => None,
        }
    }

    /// Asks about a destination; there may be nothing to wait for.
    fn ask(&self, destination: SocketAddr) -> Result<Option<OwnedNotified>, Unresolved> {
        let mut targets = self.0.targets.write();
        match targets.get(&destination) {
            Some(Target::Known { .. }) => return Ok(None),
            Some(Target::Asked { answered }) => return Ok(Some(Arc::clone(answered).notified_owned())),
            None => {}
        }
        if targets.len() >= MAX_TARGETS && !self.make_room(&mut targets) {
            return Err(Unresolved::TooMany);
        }
        if !self.0.asks {
            return Ok(None);
        }
        let answered = Arc::new(Notify::new());
        // Taken before anybody can answer, so that no answer is missed.
        let waiting = Arc::clone(&answered).notified_owned();
        targets.insert(destination, Target::Asked { answered });
        // Still under the lock: a new stream sees the target in the map or the change in the queue, not both.
        self.tell(Change::Subscribe(destination));
        Ok(Some(waiting))
    }

    fn tell(&self, change: Change) {
        let connected = self.is_connected();
        let mut changes = self.0.changes.lock();
        if !connected && changes.len() >= MAX_TARGETS {
            // Nobody is listening, and a new stream is told everything anyway.
            changes.clear();
        }
        changes.push_back(change);
        drop(changes);
        self.0.changed.notify_one();
    }

    /// Lets go of what nobody waits for and, while the controller is there to ask again, of the longest idle tenth.
    fn make_room(&self, targets: &mut HashMap<SocketAddr, Target, ahash::RandomState>) -> bool {
        let connected = self.is_connected();
        let mut idle: Vec<_> = targets
            .iter()
            .filter_map(|(destination, target)| match target {
                // One reference is the map's: nobody waits.
                Target::Asked { answered } if Arc::strong_count(answered) == 1 => Some((0, *destination)),
                Target::Known { policy, used, .. } if connected && policy.receiver_count() == 0 => {
                    Some((used.load(Ordering::Relaxed), *destination))
                }
                _ => None,
            })
            .collect();
        idle.sort_unstable();
        idle.truncate(MAX_TARGETS / 10);
        self.let_go(targets, idle.into_iter().map(|(_, destination)| destination));
        targets.len() < MAX_TARGETS
    }

    fn let_go(
        &self,
        targets: &mut HashMap<SocketAddr, Target, ahash::RandomState>,
        destinations: impl Iterator<Item = SocketAddr>,
    ) {
        for destination in destinations {
            targets.remove(&destination);
            self.tell(Change::Unsubscribe(destination));
        }
    }

    fn known(&self, policy: OutboundPolicy, version: u64) -> Target {
        let used = AtomicU64::new(self.now());
        Target::Known { policy: watch::Sender::new(Arc::new(policy)), version, since: Instant::now(), used }
    }

    /// Seconds of the proxy's life.
    fn now(&self) -> u64 {
        self.0.epoch.elapsed().as_secs()
    }

    /// Whether there is a controller to listen to.
    pub fn is_connected(&self) -> bool {
        matches!(*self.0.link.lock(), Link::Up)
    }

    /// How old what is known may be: zero while the controller is there.
    pub fn age(&self) -> Duration {
        match *self.0.link.lock() {
            Link::Up => Duration::ZERO,
            Link::Down(since) => since.elapsed(),
        }
    }

    /// Destinations known or asked for.
    pub fn len(&self) -> usize {
        self.0.targets.read().len()
    }

    /// Whether no destination was asked for yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Policies {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies")
            .field("inbound", &self.0.inbound.borrow().is_some())
            .field("targets", &self.0.targets.read().len())
            .field("connected", &self.is_connected())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from(0x0a00_0000 + n), 80).into()
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_destination_is_asked_for_once_and_given_up_after_a_second() {
        let policies = Policies::new();
        let begun = Instant::now();
        let (first, second) = tokio::join!(policies.outbound(address(1)), policies.outbound(address(1)));
        assert_eq!(begun.elapsed(), FIRST_ANSWER);
        assert_eq!(first.unwrap_err().reason, Unresolved::NoAnswer);
        assert!(second.is_err());
        assert_eq!(policies.next_change().await, Change::Subscribe(address(1)));
        assert!(policies.0.changes.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_ends_the_wait_and_later_ones_reach_whoever_holds_it() {
        let policies = Policies::new();
        let answer = async {
            assert_eq!(policies.next_change().await, Change::Subscribe(address(1)));
            assert!(policies.set_outbound(address(1), OutboundPolicy::External, 7));
        };
        let (policy, ()) = tokio::join!(policies.outbound(address(1)), answer);
        let mut policy = policy.expect("answered");
        assert!(!policies.set_outbound(address(2), OutboundPolicy::External, 1), "nobody asked");

        assert!(policies.set_outbound(address(1), OutboundPolicy::External, 8));
        assert!(!policy.has_changed().unwrap(), "an equal value wakes nobody");
        let pod = OutboundPolicy::Pod(mesh_proto::outbound::PodTarget {
            endpoint: mesh_proto::endpoint::Endpoint { address: address(1), identity: None, pod: None },
            protocol: mesh_proto::workload::Protocol::Detect,
        });
        assert!(policies.set_outbound(address(1), pod.clone(), 9));
        assert_eq!(**policy.borrow_and_update(), pod);
    }

    #[test]
    fn while_the_controller_is_away_what_it_would_be_told_is_bounded() {
        let policies = Policies::new();
        for n in 0..u32::try_from(3 * MAX_TARGETS).unwrap() {
            drop(policies.ask(address(n)));
        }
        assert!(policies.0.changes.lock().len() <= MAX_TARGETS);
        assert!(policies.len() <= MAX_TARGETS);
        assert_eq!(policies.link_up().len(), policies.len());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_outlives_the_controller_and_tells_its_age() {
        let policies = Policies::new();
        policies.accepted();
        let (_, ()) = tokio::join!(policies.outbound(address(1)), async {
            policies.next_change().await;
            policies.set_outbound(address(1), OutboundPolicy::External, 1);
        });
        assert_eq!(policies.age(), Duration::ZERO);
        policies.link_down();
        tokio::time::advance(Duration::from_hours(2)).await;
        assert!(policies.outbound(address(1)).await.is_ok());
        assert_eq!(policies.age(), Duration::from_hours(2));
        assert_eq!(policies.link_up(), [address(1)], "a new stream subscribes to all of it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_idle_for_more_than_a_day_is_let_go_unless_it_is_in_use() {
        let policies = Policies::fixed(None, [1, 2].map(|n| (address(n), OutboundPolicy::External)));
        let _in_use = policies.outbound_cached(address(1)).unwrap();
        tokio::time::advance(Duration::from_hours(24)).await;
        policies.sweep();
        assert_eq!(policies.len(), 2);
        tokio::time::advance(Duration::from_hours(1)).await;
        policies.sweep();
        assert!(policies.outbound_cached(address(1)).is_some());
        assert!(policies.outbound_cached(address(2)).is_none());
        assert_eq!(policies.next_change().await, Change::Unsubscribe(address(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_cache_lets_the_longest_idle_go_but_only_while_it_could_ask_again() {
        let many = u32::try_from(MAX_TARGETS).unwrap();
        let policies = Policies::fixed(None, (0..many).map(|n| (address(n), OutboundPolicy::External)));
        tokio::time::advance(Duration::from_secs(5)).await;
        drop(policies.outbound_cached(address(0)));
        assert_eq!(policies.outbound(address(many)).await.unwrap_err().reason, Unresolved::TooMany);
        policies.accepted();
        assert_eq!(policies.outbound(address(many)).await.unwrap_err().reason, Unresolved::NoAnswer);
        assert_eq!(policies.0.targets.read().len(), MAX_TARGETS - MAX_TARGETS / 10);
        assert!(policies.outbound_cached(address(0)).is_some(), "it was used last");
    }
}
