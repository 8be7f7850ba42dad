//! The end of a proxy's life: draining keeps serving what is open and what still arrives, until clients have let go or
//! the deadline passes.
//!
//! The wiring starts a drain at SIGTERM or `mesh-proxy drain`; the data path asks whether one runs, holds a [`Guard`]
//! per live connection and says when something comes for the application ([`Drain::comes`]). Knows no connections.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// Clients have let go of the application when for so long nothing came and nothing was open: longer than the mesh takes to
/// tell them (300 ms, docs/benchmarks.md) and than kube-proxy takes for those outside (a second between its rounds).
const QUIET: Duration = Duration::from_secs(1);
/// Who waits for a drain waits so long for its begin: the kubelet runs the hooks of a pod at the same time, and one of them
/// begins it. It runs the same hooks when it only restarts a container, and then there is none.
const BEGIN: Duration = Duration::from_secs(2);

/// Shared by all parts of a proxy; clones are the same drain.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    started: CancellationToken,
    begun: Arc<OnceLock<Instant>>,
    aborted: CancellationToken,
    live: Arc<watch::Sender<usize>>,
    work: Arc<Work>,
}

/// What came for the application, and what of it is over. Both only grow.
#[derive(Debug, Default)]
struct Work {
    came: AtomicU64,
    over: AtomicU64,
}

/// Something for the application, not yet answered; dropping it says that it is.
#[derive(Debug)]
pub struct Open(Arc<Work>);

/// A live connection; dropping it says that it has ended.
#[derive(Debug)]
pub struct Guard(Arc<watch::Sender<usize>>);

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Nothing was open any more.
    Idle,
    /// The deadline passed, or a second signal came, with so many connections open.
    Cut(usize),
}

impl Drain {
    /// Not draining.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins. Idempotent.
    pub fn start(&self) {
        self.begun.get_or_init(Instant::now);
        self.started.cancel();
    }

    /// Ends everything now. Idempotent.
    pub fn abort(&self) {
        self.start();
        self.aborted.cancel();
    }

    /// Whether it has begun.
    pub fn is_draining(&self) -> bool {
        self.begun.get().is_some()
    }

    /// Whether it is over, and what is left is cut.
    pub fn is_aborted(&self) -> bool {
        self.aborted.is_cancelled()
    }

    /// Waits until it begins.
    pub async fn started(&self) {
        self.started.cancelled().await;
    }

    /// Waits until everything has to end.
    pub async fn aborted(&self) {
        self.aborted.cancelled().await;
    }

    /// Counts a connection as live.
    pub fn guard(&self) -> Guard {
        self.live.send_modify(|live| *live += 1);
        Guard(Arc::clone(&self.live))
    }

    /// Something comes for the application.
    pub fn comes(&self) -> Open {
        self.work.came.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.work))
    }

    /// Waits until the application may end: a drain has begun and its clients have let go, or no drain begins. Says which.
    pub async fn let_go(&self) -> bool {
        if tokio::time::timeout(BEGIN, self.started()).await.is_err() {
            return false;
        }
        loop {
            let came = self.work.came.load(Ordering::Relaxed);
            tokio::time::sleep(QUIET).await;
            // In this order: what ends meanwhile came before.
            let over = self.work.over.load(Ordering::Acquire);
            if came == over && came == self.work.came.load(Ordering::Relaxed) {
                return true;
            }
        }
    }

    /// Waits until no connection is live; when aborted, or so long after the drain began, the rest is cut. The time that
    /// a pod has for its end begins with the preStop hook, not with the signal.
    pub async fn finish(&self, deadline: Duration) -> Drained {
        let begun = *self.begun.get_or_init(Instant::now);
        let mut live = self.live.subscribe();
        tokio::select! {
            // The sender is in `self`, so it cannot be gone.
            _ = live.wait_for(|live| *live == 0) => Drained::Idle,
            () = self.aborted.cancelled() => Drained::Cut(*self.live.borrow()),
            () = tokio::time::sleep_until(begun + deadline) => {
                let cut = *self.live.borrow();
                self.aborted.cancel();
                Drained::Cut(cut)
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send_modify(|live| *live -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_when_the_last_connection_does() {
        let drain = Drain::new();
        let (first, second) = (drain.guard(), drain.guard());
        drain.start();
        assert!(drain.is_draining());
        let finish = drain.finish(LONG);
        tokio::pin!(finish);
        drop(first);
        assert!(futures_util::poll!(&mut finish).is_pending());
        drop(second);
        assert_eq!(finish.await, Drained::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_cuts_what_is_left() {
        let drain = Drain::new();
        let _open = drain.guard();
        drain.start();
        assert_eq!(drain.finish(Duration::from_secs(5)).await, Drained::Cut(1));
        drain.aborted().await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_counts_from_the_begin_of_the_drain() {
        let drain = Drain::new();
        let _open = drain.guard();
        drain.start();
        tokio::time::advance(Duration::from_secs(20)).await;
        drain.start();
        let waited = Instant::now();
        assert_eq!(drain.finish(Duration::from_secs(25)).await, Drained::Cut(1));
        assert_eq!(waited.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_have_let_go_once_nothing_came_and_nothing_was_open_for_a_while() {
        let drain = Drain::new();
        drop(drain.comes());
        let open = drain.comes();
        drain.start();
        let waited = drain.let_go();
        tokio::pin!(waited);
        let begun = Instant::now();
        assert!(tokio::time::timeout(5 * QUIET, &mut waited).await.is_err());
        drop(open);
        assert!(tokio::time::timeout(QUIET / 2, &mut waited).await.is_err());
        drop(drain.comes());
        assert!(waited.await);
        let waited = begun.elapsed();
        assert!(waited >= 6 * QUIET + QUIET / 2 && waited <= 8 * QUIET, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_drain_begins_nobody_waits_long() {
        let begun = Instant::now();
        assert!(!Drain::new().let_go().await);
        assert_eq!(begun.elapsed(), BEGIN);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abort_does_not_wait() {
        let drain = Drain::new();
        let _open = drain.guard();
        drain.abort();
        assert_eq!(drain.finish(LONG).await, Drained::Cut(1));
    }
}
