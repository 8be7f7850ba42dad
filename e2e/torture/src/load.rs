//! Many requests for as long as something is done to the mesh, and what came of them.
//!
//! A load with a rate is paced: latency counts from when a request was due, so that a pause of the mesh is not hidden by a client
//! that waited with it (coordinated omission). Each load is a thread in the client's network.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use mesh_runtime::tasks::Tasks;
use mesh_testbed::{Member, envoy::Envoy};
use tokio::time::{Instant, MissedTickBehavior};

use crate::oracle::{
    Oracle,
    client::{Client, Verdict, Version},
};

/// How many failures are told in words.
const EXAMPLES: usize = 3;

/// Whatever has a network of its own.
pub(crate) trait Place: Sync {
    /// Runs `f` on a thread in that network.
    fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T>;

    /// Runs a future on a thread in that network.
    fn block_on<T: Send, F: Future<Output = anyhow::Result<T>>>(
        &self,
        f: impl FnOnce() -> F + Send,
    ) -> anyhow::Result<T> {
        self.enter(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(f()))?
    }
}

impl Place for Member {
    fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.run(f)
    }
}

impl Place for Envoy {
    fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.pod().run(f)
    }
}

impl Place for mesh_netlab::Pod {
    fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.run(f)
    }
}

/// What is asked, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) to: SocketAddr,
    pub(crate) version: Version,
    pub(crate) connections: usize,
    /// Requests a second, over all connections; none: as many as come back.
    pub(crate) rate: Option<f64>,
    /// Bytes of a request and of its answer.
    pub(crate) sizes: (usize, usize),
    /// Each request by a connection of its own.
    pub(crate) fresh: bool,
}

impl Load {
    /// Over HTTP/1 connections that are kept, with bodies of some hundred bytes.
    pub(crate) fn new(to: SocketAddr, connections: usize, rate: impl Into<Option<f64>>) -> Self {
        Self { to, version: Version::Http1, connections, rate: rate.into(), sizes: (100, 300), fresh: false }
    }

    async fn run(&self, oracle: &Oracle, stop: &AtomicBool, done: &AtomicU64) -> Tally {
        let tasks = Tasks::new();
        let clients = (0..self.connections).map(|nth| self.one(nth, oracle, stop, done, &tasks));
        let mut all = Tally::default();
        for tally in futures_util::future::join_all(clients).await {
            all.add(tally);
        }
        tasks.token().cancel();
        all
    }

    async fn one(&self, nth: usize, oracle: &Oracle, stop: &AtomicBool, done: &AtomicU64, tasks: &Tasks) -> Tally {
        let (mut tally, mut client) = (Tally::default(), Client::new(self.to, self.version, tasks));
        let mut due = self.rate.map(|rate| {
            let period = Duration::from_secs_f64(self.connections as f64 / rate);
            // Not all at once.
            let first = Instant::now() + period.mul_f64(nth as f64 / self.connections as f64);
            let mut due = tokio::time::interval_at(first, period);
            due.set_missed_tick_behavior(MissedTickBehavior::Burst);
            due
        });
        while !stop.load(Ordering::Relaxed) {
            let begun = match &mut due {
                Some(due) => due.tick().await,
                None => Instant::now(),
            };
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if self.fresh {
                client.let_go();
            }
            let verdict = client.ask(oracle, self.sizes.0, self.sizes.1).await;
            tally.count(verdict, begun.elapsed());
            done.fetch_add(1, Ordering::Relaxed);
        }
        tally
    }
}

/// What came of many requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) good: usize,
    pub(crate) failed: usize,
    pub(crate) wrong: usize,
    examples: Vec<String>,
    /// Milliseconds.
    latencies: Vec<f64>,
}

impl Tally {
    fn count(&mut self, verdict: Verdict, latency: Duration) {
        let (counter, example) = match verdict {
            Verdict::Good => (&mut self.good, None),
            Verdict::Failed(why) => (&mut self.failed, Some(why)),
            Verdict::Wrong(why) => (&mut self.wrong, Some(why)),
        };
        *counter += 1;
        self.examples.extend(example);
        self.examples.truncate(EXAMPLES);
        self.latencies.push(latency.as_secs_f64() * 1000.0);
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.good += other.good;
        self.failed += other.failed;
        self.wrong += other.wrong;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
        self.latencies.extend(other.latencies);
    }

    pub(crate) fn all(&self) -> usize {
        self.good + self.failed + self.wrong
    }

    /// Milliseconds that so many percent of the requests do not exceed (nearest rank).
    pub(crate) fn percentile(&mut self, percent: usize) -> f64 {
        self.latencies.sort_by(f64::total_cmp);
        let rank = (self.latencies.len() * percent).div_ceil(100).max(1);
        self.latencies.get(rank - 1).copied().unwrap_or(f64::INFINITY)
    }

    /// The first failures, in words.
    pub(crate) fn examples(&self) -> String {
        if self.examples.is_empty() { String::new() } else { format!(" ({})", self.examples.join("; ")) }
    }
}

/// Does `act` while `client` asks. `act` is told how many requests are over.
pub(crate) fn during<T>(
    client: &impl Place,
    oracle: &Oracle,
    loads: &[Load],
    act: impl FnOnce(&dyn Fn() -> u64) -> anyhow::Result<T>,
) -> anyhow::Result<(T, Tally)> {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let asking: Vec<_> = loads
            .iter()
            .map(|load| scope.spawn(|| client.block_on(|| async { Ok(load.run(oracle, &stop, &done).await) })))
            .collect();
        let acted = act(&|| done.load(Ordering::Relaxed));
        stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for asking in asking {
            all.add(asking.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok((acted?, all))
    })
}
