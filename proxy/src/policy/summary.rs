//! Everything that is known at one moment, for the admin pages.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_proto::{inbound::InboundPolicy, outbound::OutboundPolicy};
use tokio::time::Instant;

use super::{Policies, Target};

/// What is known.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The pod's own policy.
    pub inbound: Option<InboundSummary>,
    /// Destinations with an answer, in their order.
    pub outbound: Vec<OutboundSummary>,
    /// Destinations without an answer, in their order.
    pub asked: Vec<SocketAddr>,
}

/// The pod's own policy.
#[derive(Debug, Clone)]
pub struct InboundSummary {
    /// In force.
    pub policy: Arc<InboundPolicy>,
    /// Its version.
    pub version: u64,
    /// Since it came.
    pub age: Duration,
}

/// One destination.
#[derive(Debug, Clone)]
pub struct OutboundSummary {
    /// Which.
    pub destination: SocketAddr,
    /// In force.
    pub policy: Arc<OutboundPolicy>,
    /// Its version.
    pub version: u64,
    /// Since it came.
    pub age: Duration,
}

impl Policies {
    /// All of it, now.
    pub fn summary(&self) -> Summary {
        let now = Instant::now();
        let mut summary = Summary::default();
        if let Some(policy) = self.0.inbound.borrow().clone() {
            let (version, since) = *self.0.inbound_version.lock();
            summary.inbound = Some(InboundSummary { policy, version, age: now - since });
        }
        for (destination, target) in &*self.0.targets.read() {
            match target {
                Target::Asked { .. } => summary.asked.push(*destination),
                Target::Known { policy, version, since, .. } => summary.outbound.push(OutboundSummary {
                    destination: *destination,
                    policy: Arc::clone(&policy.borrow()),
                    version: *version,
                    age: now - *since,
                }),
            }
        }
        summary.asked.sort_unstable();
        summary.outbound.sort_unstable_by_key(|target| target.destination);
        summary
    }
}
