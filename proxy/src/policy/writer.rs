//! The writer's side of [`Policies`]: [`super::client`] alone.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use mesh_proto::{inbound::InboundPolicy, outbound::OutboundPolicy};
use tokio::time::Instant;

use super::{Change, IDLE, Link, Policies, Target};

impl Policies {
    pub(crate) fn set_inbound(&self, policy: InboundPolicy, version: u64) {
        *self.0.inbound_version.lock() = (version, Instant::now());
        self.0.inbound.send_replace(Some(Arc::new(policy)));
    }

    /// Puts an answer in force; false where nobody asked (any more).
    pub(crate) fn set_outbound(&self, destination: SocketAddr, policy: OutboundPolicy, version: u64) -> bool {
        let mut targets = self.0.targets.write();
        let Some(target) = targets.get_mut(&destination) else {
            return false;
        };
        match target {
            Target::Known { policy: known, version: last, since, .. } => {
                (*last, *since) = (version, Instant::now());
                known.send_if_modified(|known| {
                    let differs = **known != policy;
                    if differs {
                        *known = Arc::new(policy);
                    }
                    differs
                });
            }
            Target::Asked { answered } => {
                let answered = Arc::clone(answered);
                *target = self.known(policy, version);
                answered.notify_waiters();
            }
        }
        true
    }

    /// A stream begins: what it must be told first. Changes that were not told are part of it.
    pub(crate) fn link_up(&self) -> Vec<SocketAddr> {
        let targets = self.0.targets.write();
        self.0.changes.lock().clear();
        targets.keys().copied().collect()
    }

    /// The controller has accepted the stream.
    pub(crate) fn accepted(&self) {
        *self.0.link.lock() = Link::Up;
    }

    /// The stream ended. Everything known is kept.
    pub(crate) fn link_down(&self) {
        let mut link = self.0.link.lock();
        if matches!(*link, Link::Up) {
            *link = Link::Down(Instant::now());
        }
    }

    /// The next change that the stream must be told.
    pub(crate) async fn next_change(&self) -> Change {
        loop {
            let changed = self.0.changed.notified();
            if let Some(change) = self.0.changes.lock().pop_front() {
                return change;
            }
            changed.await;
        }
    }

    /// Lets go of what was idle for [`IDLE`] and is not in use.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        let mut targets = self.0.targets.write();
        let idle: Vec<_> = targets
            .iter()
            .filter(|(_, target)| match target {
                Target::Asked { answered } => Arc::strong_count(answered) == 1,
                Target::Known { policy, used, .. } => {
                    policy.receiver_count() == 0 && now.saturating_sub(used.load(Ordering::Relaxed)) >= IDLE.as_secs()
                }
            })
            .map(|(destination, _)| *destination)
            .collect();
        self.let_go(&mut targets, idle.into_iter());
    }
}
