//! Which Services lead to a pod, and which of them stop when it ends. Pure; asked by [`crate::publish`] while a pod drains.

use std::collections::BTreeSet;

use mesh_proto::{config::Value, outbound::OutboundPolicy};

use crate::index::{Facts, Name, pods::PodFacts, services::ServiceFacts};

/// The Services that lead to a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers {
    /// Whether there is one that stops when the pod ends.
    pub offered: bool,
    /// Those that do not stop, whether a pod is ready or not (`publishNotReadyAddresses`): what a client has of them says
    /// nothing.
    pub kept: BTreeSet<Name>,
}

/// What leads to a pod now; nothing leads to one that is not known any more.
pub fn offers(facts: &Facts, pod: &Name) -> Offers {
    let mut offers = Offers::default();
    let Some(pod) = facts.pod(pod) else { return offers };
    for service in facts.picking(pod) {
        if service.publish_not_ready {
            offers.kept.insert(service.name.clone());
        } else {
            offers.offered |= leads_to(facts, service, pod);
        }
    }
    offers
}

impl Offers {
    /// Whether a client that has this in force sends to the pod, and will stop.
    pub fn are_in(&self, value: &Value, pod: &Name) -> bool {
        let Value::Outbound(OutboundPolicy::Service(target)) = value else { return false };
        let stops = |service: &Name| !self.kept.contains(service);
        target.backends.iter().any(|backend| {
            let of_pod =
                |known: &mesh_proto::workload::PodRef| known.namespace == pod.namespace && known.name == pod.name;
            let service = Name { namespace: backend.service.namespace.clone(), name: backend.service.name.clone() };
            stops(&service) && backend.endpoints.iter().any(|endpoint| endpoint.pod.as_ref().is_some_and(of_pod))
        })
    }
}

/// Ready endpoints are those of its slices, or its pods where it has none.
fn leads_to(facts: &Facts, service: &ServiceFacts, pod: &PodFacts) -> bool {
    let mut slices = facts.slices_of(&service.name).peekable();
    if slices.peek().is_none() {
        return pod.ready;
    }
    slices.flat_map(|slice| &slice.endpoints).any(|endpoint| pod.ips.contains(&endpoint.ip))
}
