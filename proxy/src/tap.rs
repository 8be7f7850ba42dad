//! Live traffic: hands finished requests and connections to whoever watches, and costs nothing while nobody does.
//!
//! The data path asks [`Hub::is_active`] (one relaxed load), holds a request's head until it is known how it ends, and
//! publishes; the admin listener serves the watchers. All heads together are at most 1 MiB (contracts §9): half of it waits
//! for answers, half for watchers. What does not fit is counted; the data path never waits for anybody.

use std::{
    collections::VecDeque,
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
use prometheus_client::metrics::counter::Counter;
use tokio::{sync::mpsc, time::Instant};

/// Watchers at a time: a person, a dashboard and a few more.
const MAX_WATCHERS: usize = 16;
/// Events that wait for a watcher, and the bytes of their heads.
const QUEUE: usize = 256;
const QUEUED: usize = MAX_HEADS / 2 / MAX_WATCHERS;
/// Most bytes of heads that are in memory for taps.
const MAX_HEADS: usize = 1024 * 1024;
/// What an event or a held head costs beside its texts.
const FIXED: usize = 256;
/// Where a watcher does not say.
const DEFAULT_PER_SECOND: u32 = 100;

/// All watchers of one proxy; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    active: Arc<AtomicUsize>,
    watchers: Arc<Mutex<Vec<Watcher>>>,
    /// What any of them asked for by name.
    wanted: Arc<Mutex<Arc<Wanted>>>,
    /// Bytes of heads whose answer is awaited.
    held: Arc<AtomicUsize>,
    overflow: Counter,
}

/// What is kept only because a watcher asked for it by name (contracts §9).
#[derive(Debug, Default)]
pub struct Wanted {
    /// Queries.
    pub query: bool,
    /// Headers, lower case.
    pub headers: Vec<String>,
}

/// A head that is held; dropping it makes room.
#[derive(Debug)]
pub struct Held {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Watcher {
    filter: TapFilter,
    events: mpsc::Sender<TapEvent>,
    window: Instant,
    in_window: u32,
    dropped: u64,
    /// Heads that were too many, as far as this watcher was told.
    overflow: u64,
    /// Sizes of what waits in the queue, oldest first.
    queued: VecDeque<usize>,
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

    /// What watchers asked for by name.
    pub fn wanted(&self) -> Arc<Wanted> {
        if self.is_active() { Arc::clone(&self.wanted.lock()) } else { Arc::default() }
    }

    /// Holds a head with texts of so many bytes until its request ends. None, and counted, where too many are held.
    pub fn hold(&self, texts: usize) -> Option<Held> {
        let bytes = FIXED + texts;
        // Taken first and given back: no two workers can take the last room.
        let held = Held { held: Arc::clone(&self.held), bytes };
        if self.held.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_HEADS / 2 {
            self.overflow.inc();
            return None;
        }
        Some(held)
    }

    /// Registers what is counted of it.
    pub fn register(&self, metrics: &mesh_runtime::metrics::Metrics) {
        let help = "requests and connections that no tap could show, because 512 KiB of heads were held already";
        metrics.register("tap_overflow", help, &[], self.overflow.clone());
    }

    /// Shows an event to every watcher whose filter it matches. Never blocks; the event is made only if anybody watches.
    pub fn publish(&self, event: impl FnOnce() -> TapEvent) {
        if !self.is_active() {
            return;
        }
        let event = event();
        let (now, overflow) = (Instant::now(), self.overflow.get());
        let mut watchers = self.watchers.lock();
        watchers.retain_mut(|watcher| {
            watcher.show(&event, now, overflow);
            !watcher.events.is_closed()
        });
        if watchers.len() != self.active.load(Ordering::Relaxed) {
            self.changed(&watchers);
        }
    }

    /// Somebody came or left.
    fn changed(&self, watchers: &[Watcher]) {
        let mut headers: Vec<String> = watchers.iter().flat_map(|it| it.filter.show_headers.iter().cloned()).collect();
        headers.sort();
        headers.dedup();
        let query = watchers.iter().any(|watcher| watcher.filter.show_query);
        *self.wanted.lock() = Arc::new(Wanted { query, headers });
        self.active.store(watchers.len(), Ordering::Relaxed);
    }
}

impl Watcher {
    fn show(&mut self, event: &TapEvent, now: Instant, overflow: u64) {
        if !self.filter.matches(event) {
            return;
        }
        let event = self.own(event);
        self.dropped += overflow - std::mem::replace(&mut self.overflow, overflow);
        let waiting = self.events.max_capacity() - self.events.capacity();
        self.queued.drain(..self.queued.len().saturating_sub(waiting));
        let size = size(&event);
        let fits = self.queued.iter().sum::<usize>() + size <= QUEUED;
        if now.duration_since(self.window) >= Duration::from_secs(1) {
            (self.window, self.in_window) = (now, 0);
        }
        let most = if self.filter.max_per_second == 0 { DEFAULT_PER_SECOND } else { self.filter.max_per_second };
        let may = fits && self.in_window < most;
        let shown = may && self.events.try_send(TapEvent { dropped: self.dropped, ..event }).is_ok();
        if shown {
            self.queued.push_back(size);
            self.in_window += 1;
            self.dropped = 0;
        } else {
            self.dropped += 1;
        }
    }

    /// The event with nothing that only other watchers asked for.
    fn own(&self, event: &TapEvent) -> TapEvent {
        let mut event = event.clone();
        if let Some(request) = &mut event.request {
            if !self.filter.show_query {
                request.query.clear();
            }
            for headers in [&mut request.request_headers, &mut request.response_headers] {
                headers.retain(|header| self.filter.show_headers.contains(&header.name));
            }
        }
        event
    }
}

/// What an event costs while it waits. Names and identities are shared with others.
fn size(event: &TapEvent) -> usize {
    let head = event.request.as_ref().map_or(0, |it| {
        let headers = it.request_headers.iter().chain(&it.response_headers);
        let headers: usize = headers.map(|header| header.name.len() + header.value.len()).sum();
        it.method.len() + it.path.len() + it.authority.len() + it.query.len() + headers
    });
    FIXED + head + event.outcome.len() + event.route.len()
}

impl TapService for Hub {
    async fn watch(&self, filter: TapFilter) -> Result<mpsc::Receiver<TapEvent>, Refusal> {
        let (events, receiver) = mpsc::channel(QUEUE);
        let mut watchers = self.watchers.lock();
        watchers.retain(|watcher| !watcher.events.is_closed());
        if watchers.len() >= MAX_WATCHERS {
            return Err(Refusal::new(Outcome::Overloaded, format!("{MAX_WATCHERS} taps are running already")));
        }
        watchers.push(Watcher {
            filter,
            events,
            window: Instant::now(),
            in_window: 0,
            dropped: 0,
            overflow: self.overflow.get(),
            queued: VecDeque::new(),
        });
        self.changed(&watchers);
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::tap::{Direction, TapHeader, TapRequestInfo};

    use super::*;

    fn event(latency_us: u64) -> TapEvent {
        let (source, destination) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        TapEvent { latency_us, ..TapEvent::between(Direction::Inbound, source, destination) }
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
    async fn heads_are_bounded_and_a_watcher_is_told_how_many_it_does_not_see() {
        let hub = Hub::new();
        let mut watcher = hub.watch(TapFilter::default()).await.unwrap();
        let held: Vec<_> = std::iter::from_fn(|| hub.hold(2000)).collect();
        assert!((200..MAX_HEADS / 2 / 2000).contains(&held.len()), "{}", held.len());
        assert!(hub.hold(10).is_none() || hub.hold(2000).is_none());
        hub.publish(|| event(1));
        assert!(watcher.recv().await.unwrap().dropped >= 1);
        drop(held);
        assert_eq!(hub.held.load(Ordering::Relaxed), 0, "also what was refused is given back");
        assert!(hub.hold(2000).is_some());
    }

    #[tokio::test]
    async fn what_waits_for_a_watcher_is_bounded_in_bytes() {
        let hub = Hub::new();
        let mut watcher = hub.watch(TapFilter { max_per_second: 10_000, ..TapFilter::default() }).await.unwrap();
        let long = || TapEvent { route: "x".repeat(3000), ..event(1) };
        for _ in 0..QUEUE {
            hub.publish(long);
        }
        assert_eq!(watcher.len(), QUEUED / (3000 + FIXED));
        watcher.recv().await.unwrap();
        hub.publish(long);
        assert_eq!(watcher.len(), QUEUED / (3000 + FIXED), "what was taken has made room");
    }

    #[tokio::test]
    async fn a_watcher_sees_of_queries_and_headers_only_what_it_asked_for_itself() {
        let hub = Hub::new();
        let mut plain = hub.watch(TapFilter::default()).await.unwrap();
        assert!(!hub.wanted().query && hub.wanted().headers.is_empty());
        let asks = TapFilter { show_query: true, show_headers: vec!["x-id".into()], ..TapFilter::default() };
        let mut curious = hub.watch(asks).await.unwrap();
        assert!(hub.wanted().query && hub.wanted().headers == ["x-id"]);
        let header = |name: &str| TapHeader { name: name.into(), value: "1".into() };
        let request = TapRequestInfo {
            query: "a=b".into(),
            request_headers: vec![header("x-id"), header("x-other")],
            ..TapRequestInfo::default()
        };
        hub.publish(|| TapEvent { request: Some(request.clone()), ..event(1) });
        let seen = [plain.recv().await.unwrap(), curious.recv().await.unwrap()].map(|event| event.request.unwrap());
        assert_eq!((seen[0].query.as_str(), seen[0].request_headers.len()), ("", 0));
        assert_eq!((seen[1].query.as_str(), &seen[1].request_headers[..]), ("a=b", &[header("x-id")][..]));
        drop(curious);
        hub.publish(|| event(1));
        assert!(!hub.wanted().query, "nobody wants it any more");
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
