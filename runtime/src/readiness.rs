//! Whether the process is ready: a guard per part, and ready when the last guard is dropped.
//!
//! The wiring takes a guard for each part before it starts; the part drops it when it has what it needs (a
//! certificate, a first list). `/ready` of [`crate::admin`] shows the answer. It does not know what the parts are,
//! and a part that has once been ready stays so: what is wrong later is for metrics and logs, since restarting a pod
//! or taking it out of its Service would not help.

use std::sync::Arc;

use tokio::sync::watch;

/// The process's readiness; clones share it.
#[derive(Clone, Debug)]
pub struct Readiness {
    pending: Arc<watch::Sender<Vec<&'static str>>>,
}

/// Holds readiness back until dropped.
#[derive(Debug)]
#[must_use = "dropping the guard says that the part is ready"]
pub struct BlockReady {
    part: &'static str,
    pending: Arc<watch::Sender<Vec<&'static str>>>,
}

impl Readiness {
    /// Ready at once, until somebody blocks it.
    pub fn new() -> Self {
        Self { pending: Arc::new(watch::Sender::new(Vec::new())) }
    }

    /// Holds readiness back until the guard is dropped. The same part may be blocked more than once.
    pub fn block(&self, part: &'static str) -> BlockReady {
        self.pending.send_modify(|pending| pending.push(part));
        BlockReady { part, pending: Arc::clone(&self.pending) }
    }

    /// Whether no part is pending now.
    pub fn is_ready(&self) -> bool {
        self.pending.borrow().is_empty()
    }

    /// The parts that are not ready, in the order they were blocked.
    pub fn pending(&self) -> Vec<&'static str> {
        self.pending.borrow().clone()
    }

    /// Waits until no part is pending.
    pub async fn ready(&self) {
        let mut pending = self.pending.subscribe();
        // The sender is in `self`, so it cannot be gone.
        let _ = pending.wait_for(Vec::is_empty).await;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        self.pending.send_modify(|pending| {
            if let Some(at) = pending.iter().position(|part| *part == self.part) {
                pending.remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn ready_when_nothing_blocks() {
        assert!(Readiness::new().is_ready());
    }

    #[tokio::test]
    async fn ready_only_when_the_last_guard_is_dropped() {
        let readiness = Readiness::new();
        let identity = readiness.block("identity");
        let policy = readiness.clone().block("policy");
        assert_eq!(readiness.pending(), ["identity", "policy"]);
        assert!(readiness.ready().now_or_never().is_none());

        drop(identity);
        assert_eq!(readiness.pending(), ["policy"]);
        assert!(!readiness.is_ready());

        let waiting = readiness.clone();
        let waiter = async move { waiting.ready().await };
        tokio::join!(waiter, async { drop(policy) });
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_part_blocked_twice_is_pending_until_both_guards_are_gone() {
        let readiness = Readiness::new();
        let first = readiness.block("sync");
        let second = readiness.block("sync");
        drop(first);
        assert_eq!(readiness.pending(), ["sync"]);
        drop(second);
        assert!(readiness.is_ready());
    }
}
