//! What the process may hold at once. Past that it refuses what is new and keeps what it has (docs/limits.md).
//!
//! One budget for all workers: they ask [`Limits::hold`] for every client connection and [`Limits::request`] for every
//! request, which costs one or two atomic loads. [`Limits::watch`], on the control side, looks at descriptors and memory.
//! How a refusal is said to a client is the business of `inbound` and `outbound`.

mod resources;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh_proto::{outcome::Outcome, tap::Direction};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use self::resources::{Resources, Usage};
use crate::{
    config,
    error::{ProxyError, Result},
};

/// Share of the allowed descriptors that may be used (reliability.md §1.3): the rest is for what must go on, such as the
/// stream to the controller, the admin port, and the upstreams of requests on open connections.
const DESCRIPTORS: (u64, u64) = (4, 5);
/// Share of the allowed memory (reliability.md §1.3).
const MEMORY: (u64, u64) = (9, 10);
/// Descriptors per client connection: its own, and one upstream.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;
/// Where the kernel does not say how many descriptors are allowed.
const USUAL_DESCRIPTORS: u64 = 1024;
/// Share of the connections that is kept for each direction: the other one can never have it.
const RESERVED: (usize, usize) = (1, 4);
/// How often descriptors are looked at; and memory, which a burst of requests takes faster, where it has a limit.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AT_MEMORY: Duration = Duration::from_millis(50);
/// Once memory was short, it is while more than this share of the connections is there that were there then: the allocator keeps
/// what the others have left for those that come, so what is resident need not become less.
const STILL: (usize, usize) = (1, 2);

/// Limits of one process; clones are the same.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    /// Most client connections in all, and of one direction.
    most: usize,
    most_of_one: usize,
    memory: Option<u64>,
    /// Client connections of [inbound, outbound].
    held: [AtomicUsize; 2],
    /// What is short: see [`Limit::from_pressure`].
    pressure: AtomicU8,
    /// Client connections when memory became short.
    short_at: AtomicUsize,
    connections: Gauge<i64, AtomicI64>,
    overloaded: Family<Labels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    direction: &'static str,
    limit: &'static str,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Connections,
    Descriptors,
    Memory,
}

/// One client connection counts for as long as this lives.
pub(crate) struct Held {
    limits: Limits,
    direction: Direction,
}

impl Limits {
    /// With nothing held. Allows no more connections than there are descriptors for.
    pub fn new(metrics: &mesh_runtime::metrics::Metrics, settings: &config::Limits) -> Self {
        let for_descriptors = usize::try_from(allowed_descriptors() / DESCRIPTORS_PER_CONNECTION).unwrap_or(usize::MAX);
        let most = settings.connections.min(for_descriptors).max(2);
        let (connections, overloaded) = (Gauge::default(), Family::default());
        metrics.register("proxy_connections", "client connections held now", &[], connections.clone());
        let help =
            "connections and requests refused because a limit was reached: `connections`, `descriptors` or `memory`";
        metrics.register("overloaded", help, &["direction", "limit"], overloaded.clone());
        Self(Arc::new(Inner {
            most,
            most_of_one: most - (most * RESERVED.0 / RESERVED.1).max(1),
            memory: settings.memory,
            held: [AtomicUsize::new(0), AtomicUsize::new(0)],
            pressure: AtomicU8::new(0),
            short_at: AtomicUsize::new(0),
            connections,
            overloaded,
        }))
    }

    /// Takes a place for a client connection.
    pub(crate) fn hold(&self, direction: Direction) -> Result<Held> {
        let Inner { most, most_of_one, .. } = &*self.0;
        if let Some(limit) = self.pressure() {
            return Err(self.refuse(direction, limit));
        }
        let place = self.hold_beside(direction);
        let [inbound, outbound] = self.held();
        let of_direction = if direction == Direction::Inbound { inbound } else { outbound };
        if of_direction > *most_of_one || inbound + outbound > *most {
            return Err(self.refuse(direction, Limit::Connections));
        }
        Ok(place)
    }

    /// Takes a place for a connection that goes on where another ends: it was let in already.
    pub(crate) fn hold_beside(&self, direction: Direction) -> Held {
        self.0.held[index(direction)].fetch_add(1, Ordering::Relaxed);
        self.0.connections.inc();
        Held { limits: self.clone(), direction }
    }

    /// Whether there is memory for one more request. Descriptors are no question here: its connection is open.
    pub(crate) fn request(&self, direction: Direction) -> Result<()> {
        match self.pressure() {
            Some(Limit::Memory) => Err(self.refuse(direction, Limit::Memory)),
            _ => Ok(()),
        }
    }

    /// Looks at descriptors and memory, for ever.
    pub async fn watch(self) {
        let resources = Resources::new(self.0.memory);
        loop {
            let usage = resources.usage();
            self.see(&usage);
            tokio::time::sleep(if usage.memory.is_some() { LOOK_AT_MEMORY } else { LOOK }).await;
        }
    }

    fn see(&self, usage: &Usage) {
        let now = Limit::of(usage);
        if now == Some(Limit::Memory) && self.seen() != now {
            self.0.short_at.store(self.held().iter().sum(), Ordering::Relaxed);
        }
        let before = self.0.pressure.swap(now.map_or(0, Limit::pressure), Ordering::Relaxed);
        match (Limit::from_pressure(before), now) {
            (None, Some(limit)) => tracing::warn!(limit = limit.as_str(), ?usage, "new connections are refused"),
            (Some(limit), None) => tracing::info!(limit = limit.as_str(), ?usage, "new connections are let in again"),
            _ => {}
        }
    }

    fn pressure(&self) -> Option<Limit> {
        let is_still = || {
            let (now, then) = (self.held().iter().sum::<usize>(), self.0.short_at.load(Ordering::Relaxed));
            now * STILL.1 >= then * STILL.0
        };
        self.seen().filter(|limit| *limit != Limit::Memory || is_still())
    }

    /// What was short when it was looked at last.
    fn seen(&self) -> Option<Limit> {
        Limit::from_pressure(self.0.pressure.load(Ordering::Relaxed))
    }

    /// Client connections of [inbound, outbound].
    fn held(&self) -> [usize; 2] {
        self.0.held.each_ref().map(|held| held.load(Ordering::Relaxed))
    }

    fn refuse(&self, direction: Direction, limit: Limit) -> ProxyError {
        self.0.overloaded.get_or_create(&Labels { direction: direction.as_str(), limit: limit.as_str() }).inc();
        ProxyError::new(Outcome::Overloaded, limit.text())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.limits.0.held[index(self.direction)].fetch_sub(1, Ordering::Relaxed);
        self.limits.0.connections.dec();
    }
}

impl Limit {
    fn of(usage: &Usage) -> Option<Self> {
        let reached = |(used, allowed): (u64, u64), (share, of): (u64, u64)| {
            used.saturating_mul(of) >= allowed.saturating_mul(share)
        };
        if usage.memory.is_some_and(|memory| reached(memory, MEMORY)) {
            return Some(Self::Memory);
        }
        usage.descriptors.is_some_and(|descriptors| reached(descriptors, DESCRIPTORS)).then_some(Self::Descriptors)
    }

    fn pressure(self) -> u8 {
        match self {
            Self::Connections => 0,
            Self::Descriptors => 1,
            Self::Memory => 2,
        }
    }

    fn from_pressure(pressure: u8) -> Option<Self> {
        match pressure {
            1 => Some(Self::Descriptors),
            2 => Some(Self::Memory),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Connections => "as many client connections are open as may be",
            Self::Descriptors => "80 % of the file descriptors are used",
            Self::Memory => "90 % of the memory is used",
        }
    }
}

/// Allows this process as many descriptors as it may allow itself: the soft limit is often 1024 for the sake of programs that
/// use `select`. Called once, at the start.
pub fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of file descriptors stays as it is");
    }
}

/// How many descriptors this process may open; refusals begin at 80 % of them.
fn allowed_descriptors() -> u64 {
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(USUAL_DESCRIPTORS, |(soft, _hard)| soft);
    allowed.saturating_mul(DESCRIPTORS.0) / DESCRIPTORS.1
}

fn index(direction: Direction) -> usize {
    match direction {
        Direction::Inbound => 0,
        Direction::Outbound => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: usize) -> (mesh_runtime::metrics::Metrics, Limits) {
        let metrics = mesh_runtime::metrics::Metrics::new();
        let limits = Limits::new(&metrics, &config::Limits { connections, ..config::Limits::default() });
        (metrics, limits)
    }

    #[test]
    fn neither_direction_can_starve_the_other() {
        for (first, second) in [(Direction::Inbound, Direction::Outbound), (Direction::Outbound, Direction::Inbound)] {
            let (metrics, limits) = limits(8);
            let mut held: Vec<_> = (0..8).map_while(|_| limits.hold(first).ok()).collect();
            assert_eq!(held.len(), 6, "three quarters of 8");
            held.extend((0..8).map_while(|_| limits.hold(second).ok()));
            assert_eq!(held.len(), 8, "and the rest for the other");
            assert_eq!(limits.hold(first).err().map(|error| error.outcome), Some(Outcome::Overloaded));
            assert!(metrics.encode().contains("proxy_connections 8\n"));
            drop(held);
            assert!(metrics.encode().contains("proxy_connections 0\n"));
            assert!(limits.hold(first).is_ok());
        }
    }

    #[test]
    fn memory_that_stays_with_the_process_is_not_short_once_half_of_the_connections_are_gone() {
        let (_metrics, limits) = limits(64);
        let short = Usage { descriptors: None, memory: Some((95, 100)) };
        let mut held: Vec<_> = (0..8).filter_map(|_| limits.hold(Direction::Inbound).ok()).collect();
        limits.see(&short);
        for _ in 0..4 {
            limits.see(&short);
            assert!(limits.hold(Direction::Outbound).is_err() && limits.request(Direction::Inbound).is_err());
            held.pop();
        }
        assert!(limits.request(Direction::Inbound).is_err(), "half of them are there");
        held.pop();
        assert!(limits.hold(Direction::Outbound).is_ok() && limits.request(Direction::Inbound).is_ok());
        limits.see(&short);
        let again: Vec<_> = (0..8).filter_map(|_| limits.hold(Direction::Inbound).ok()).collect();
        assert_eq!(again.len(), 1, "not beyond the half");
    }

    #[test]
    fn what_goes_on_where_another_ends_counts_and_is_not_refused() {
        let (metrics, limits) = limits(2);
        let Ok(_one) = limits.hold(Direction::Inbound) else { panic!("there is room") };
        let _goes_on = limits.hold_beside(Direction::Inbound);
        assert!(metrics.encode().contains("proxy_connections 2\n"));
        assert!(limits.hold(Direction::Outbound).is_err(), "all places are taken");
    }

    #[test]
    fn what_is_short_is_refused_from_its_share_on_and_let_in_below_it() {
        let usage = |descriptors, memory| Usage { descriptors, memory };
        for (usage, limit) in [
            (usage(Some((79, 100)), Some((89, 100))), None),
            (usage(Some((80, 100)), None), Some(Limit::Descriptors)),
            (usage(None, Some((90, 100))), Some(Limit::Memory)),
            (usage(Some((80, 100)), Some((90, 100))), Some(Limit::Memory)),
            (usage(None, None), None),
            (usage(Some((u64::MAX, u64::MAX)), None), Some(Limit::Descriptors)),
        ] {
            assert_eq!(Limit::of(&usage), limit, "{usage:?}");
        }
        let (metrics, limits) = limits(8);
        limits.see(&usage(Some((80, 100)), None));
        assert!(limits.hold(Direction::Inbound).is_err());
        assert!(limits.request(Direction::Inbound).is_ok(), "its connection is open already");
        limits.see(&usage(None, Some((95, 100))));
        assert!(limits.request(Direction::Outbound).is_err());
        limits.see(&usage(Some((1, 100)), Some((1, 100))));
        assert!(limits.hold(Direction::Inbound).is_ok() && limits.request(Direction::Outbound).is_ok());
        let text = metrics.encode();
        for line in [
            r#"overloaded_total{direction="inbound",limit="descriptors"} 1"#,
            r#"overloaded_total{direction="outbound",limit="memory"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
