//! The end of a proxy's life: draining keeps serving what is open and what still arrives, until clients have let go or
//! the deadline passes.
//!
//! The wiring starts a drain at SIGTERM or `mesh-proxy drain`; the data path asks whether one runs and holds a [`Guard`]
//! per live connection. Knows no connections.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// Shared by all parts of a proxy; clones are the same drain.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    started: CancellationToken,
    begun: Arc<OnceLock<Instant>>,
    aborted: CancellationToken,
    live: Arc<watch::Sender<usize>>,
}

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
        self.started.is_cancelled()
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
    async fn an_abort_does_not_wait() {
        let drain = Drain::new();
        let _open = drain.guard();
        drain.abort();
        assert_eq!(drain.finish(LONG).await, Drained::Cut(1));
    }
}
