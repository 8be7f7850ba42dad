//! Addresses whose meshed pod is gone from the index, remembered for a while.
//!
//! A pod that was deleted by force, or whose object was lost, may still run: an address that led to an identity a
//! moment ago is not "outside the mesh" at once (contracts §3). Called by [`super`], which tells the time.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use crate::index::Facts;

/// How long a departed pod's address is not taken for a place outside: longer than any grace period in practice, and
/// far longer than a node that lost the API server takes to notice that its pod is to go.
pub const REMEMBERED: Duration = Duration::from_mins(5);

/// Addresses that lead to a meshed pod (none), or did until a moment ago.
pub(super) struct Departed {
    remembered: Duration,
    addresses: HashMap<IpAddr, Option<Instant>>,
}

impl Departed {
    pub(super) fn new(remembered: Duration) -> Self {
        Self { remembered, addresses: HashMap::new() }
    }

    /// Takes in that something about an address may have changed.
    pub(super) fn touched(&mut self, facts: &Facts, ip: IpAddr) {
        match facts.pod_at(ip) {
            Some(pod) if pod.meshed.is_some() => {
                self.addresses.insert(ip, None);
            }
            // Somebody else has it now.
            Some(_) => {
                self.addresses.remove(&ip);
            }
            None if facts.service_at(ip).is_some() => {
                self.addresses.remove(&ip);
            }
            None => {
                if let Some(since) = self.addresses.get_mut(&ip) {
                    since.get_or_insert_with(Instant::now);
                }
            }
        }
    }

    /// Whether a meshed pod had this address a moment ago and nobody has it since.
    pub(super) fn remembers(&self, ip: IpAddr) -> bool {
        let since = self.addresses.get(&ip.to_canonical());
        since.is_some_and(|since| since.is_some_and(|since| since.elapsed() < self.remembered))
    }

    /// Addresses that are remembered no longer; told once.
    pub(super) fn forget(&mut self) -> Vec<IpAddr> {
        let remembered = self.remembered;
        let old = self.addresses.extract_if(|_, since| since.is_some_and(|since| since.elapsed() >= remembered));
        old.map(|(ip, _)| ip).collect()
    }
}
