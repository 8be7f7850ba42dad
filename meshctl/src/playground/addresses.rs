//! Addresses of pods and Services: given out in the order of the manifests, so that every start is alike.

use std::net::Ipv4Addr;

use anyhow::Context as _;

/// Pods: 10.244.0.0/16, the node has the first.
const PODS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 0);
/// Services: 10.96.0.0/16.
const SERVICES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
/// The node's own address.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Both networks are /16.
const LAST: u32 = 0xfffe;

/// Gives out each address once.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    pods: u32,
    services: u32,
}

impl Allocator {
    /// For the next pod.
    pub(crate) fn pod(&mut self) -> anyhow::Result<Ipv4Addr> {
        self.pods += 1;
        nth(PODS, self.pods + 1).context("more pods than the playground's network has addresses")
    }

    /// For the next Service.
    pub(crate) fn service(&mut self) -> anyhow::Result<Ipv4Addr> {
        self.services += 1;
        nth(SERVICES, self.services + 9).context("more Services than the playground's network has addresses")
    }
}

fn nth(network: Ipv4Addr, number: u32) -> Option<Ipv4Addr> {
    (number <= LAST).then(|| Ipv4Addr::from_bits(network.to_bits() + number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_each_other_and_end() {
        let mut addresses = Allocator::default();
        assert_eq!(addresses.pod().unwrap().to_string(), "10.244.0.2");
        assert_eq!(addresses.pod().unwrap().to_string(), "10.244.0.3");
        assert_eq!(addresses.service().unwrap().to_string(), "10.96.0.10");
        let mut full = Allocator { pods: LAST, services: LAST };
        assert!(full.pod().is_err() && full.service().is_err());
    }
}
