//! Live traffic: hands finished requests and connections to whoever watches, and costs nothing while nobody does.
//!
//! The data path asks [`Hub::is_active`] (one relaxed load) and publishes; the admin listener serves the watchers. A
//! slow watcher loses events, which are counted; the data path never waits for one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh_proto::{
    outcome::Outcome,
    server::{Refusal, TapService},
    tap::{TapEvent, TapFilter},
};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};

/// Watchers at a time: a person, a dashboard and a few more.
const MAX_WATCHERS: usize = 16;
/// Events that wait for a watcher. With heads of some 200 bytes below the 1 MiB per proxy of contracts §9.
const QUEUE: usize = 256;
/// Where a watcher does not say.
const DEFAULT_PER_SECOND: u32 = 100;

/// All watchers of one proxy; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    active: Arc<AtomicUsize>,
    watchers: Arc<Mutex<Vec<Watcher>>>,
}

#[derive(Debug)]
struct Watcher {
    filter: TapFilter,
    events: mpsc::Sender<TapEvent>,
    window: Instant,
    in_window: u32,
    dropped: u64,
}

impl Hub {
    /// Nobody watches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether anybody watches: ask before an event is made.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed) > 0
    }

    /// Shows an event to every watcher whose filter it matches. Never blocks; the event is made only if anybody watches.
    pub fn publish(&self, event: impl FnOnce() -> TapEvent) {
        if !self.is_active() {
            return;
        }
        let event = event();
        let now = Instant::now();
        let mut watchers = self.watchers.lock();
        watchers.retain_mut(|watcher| {
            watcher.show(&event, now);
            !watcher.events.is_closed()
        });
        self.active.store(watchers.len(), Ordering::Relaxed);
    }
}

impl Watcher {
    fn show(&mut self, event: &TapEvent, now: Instant) {
        if !self.filter.matches(event) {
            return;
        }
        if now.duration_since(self.window) >= Duration::from_secs(1) {
            (self.window, self.in_window) = (now, 0);
        }
        let most = if self.filter.max_per_second == 0 { DEFAULT_PER_SECOND } else { self.filter.max_per_second };
        let shown =
            self.in_window < most && self.events.try_send(TapEvent { dropped: self.dropped, ..event.clone() }).is_ok();
        if shown {
            self.in_window += 1;
            self.dropped = 0;
        } else {
            self.dropped += 1;
        }
    }
}

impl TapService for Hub {
    async fn watch(&self, filter: TapFilter) -> Result<mpsc::Receiver<TapEvent>, Refusal> {
        let (events, receiver) = mpsc::channel(QUEUE);
        let mut watchers = self.watchers.lock();
        watchers.retain(|watcher| !watcher.events.is_closed());
        if watchers.len() >= MAX_WATCHERS {
            return Err(Refusal::new(Outcome::Overloaded, format!("{MAX_WATCHERS} taps are running already")));
        }
        watchers.push(Watcher { filter, events, window: Instant::now(), in_window: 0, dropped: 0 });
        self.active.store(watchers.len(), Ordering::Relaxed);
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::tap::Direction;

    use super::*;

    fn event(latency_us: u64) -> TapEvent {
        TapEvent {
            direction: Direction::Inbound,
            started_us: 0,
            latency_us,
            source: "10.0.0.1:1".parse().unwrap(),
            destination: "10.0.0.2:2".parse().unwrap(),
            source_identity: None,
            destination_identity: None,
            destination_pod: None,
            service: None,
            tls: false,
            outcome: String::new(),
            bytes_in: 0,
            bytes_out: 0,
            request: None,
            dropped: 0,
            route: String::new(),
        }
    }

    #[tokio::test]
    async fn no_event_is_made_while_nobody_watches() {
        let hub = Hub::new();
        hub.publish(|| panic!("nobody asked"));
        let watcher = hub.watch(TapFilter::default()).await.unwrap();
        assert!(hub.is_active());
        drop(watcher);
        hub.publish(|| event(1));
        assert!(!hub.is_active(), "a watcher that left is forgotten");
    }

    #[tokio::test]
    async fn watchers_see_what_their_filter_matches() {
        let hub = Hub::new();
        let mut all = hub.watch(TapFilter::default()).await.unwrap();
        let mut slow = hub.watch(TapFilter { latency_min_us: 100, ..TapFilter::default() }).await.unwrap();
        hub.publish(|| event(5));
        hub.publish(|| event(500));
        assert_eq!(all.recv().await.unwrap().latency_us, 5);
        assert_eq!(all.recv().await.unwrap().latency_us, 500);
        assert_eq!(slow.recv().await.unwrap().latency_us, 500);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_rate_events_are_counted_not_shown() {
        let hub = Hub::new();
        let mut watcher = hub.watch(TapFilter { max_per_second: 2, ..TapFilter::default() }).await.unwrap();
        for latency in 0..5 {
            hub.publish(|| event(latency));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        hub.publish(|| event(9));
        let shown: Vec<_> = [watcher.recv().await, watcher.recv().await, watcher.recv().await]
            .map(|event| event.map(|event| (event.latency_us, event.dropped)).unwrap())
            .into();
        assert_eq!(shown, [(0, 0), (1, 0), (9, 3)]);
    }

    #[tokio::test]
    async fn watchers_are_bounded() {
        let hub = Hub::new();
        let mut kept = Vec::new();
        for _ in 0..MAX_WATCHERS {
            kept.push(hub.watch(TapFilter::default()).await.unwrap());
        }
        assert_eq!(hub.watch(TapFilter::default()).await.unwrap_err().outcome, Outcome::Overloaded);
        kept.pop();
        assert!(hub.watch(TapFilter::default()).await.is_ok());
    }
}
