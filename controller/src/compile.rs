//! Facts -> what proxies are told. Pure: no clock, no channel, no log; the same facts give the same values.
//!
//! Called by [`crate::publish`], which asks again when one of the [`Mark`]s that were read is touched.

mod inbound;
mod offers;
mod outbound;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use mesh_proto::workload::Protocol;

pub use self::{
    inbound::inbound,
    offers::{Offers, offers},
    outbound::outbound,
};
use crate::index::{
    Facts, Mark, Name,
    pods::PodFacts,
    ports,
    services::{PortFacts, ServiceFacts},
};

/// What a compiled value depends on, collected on the way.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reads(pub BTreeSet<Mark>);

impl Reads {
    fn address(&mut self, ip: IpAddr) {
        self.0.insert(Mark::Address(ip));
    }

    fn service(&mut self, name: &Name) {
        self.0.insert(Mark::Service(name.clone()));
    }

    fn pod(&mut self, name: &Name) {
        self.0.insert(Mark::Pod(name.clone()));
    }

    fn namespace(&mut self, name: &Arc<str>) {
        self.0.insert(Mark::Namespace(Arc::clone(name)));
    }
}

/// The Services that pick a pod. A change of one of them counts as a change of the pod.
fn services_of<'a>(facts: &'a Facts, pod: &'a PodFacts, reads: &mut Reads) -> Vec<&'a ServiceFacts> {
    reads.pod(&pod.name);
    facts.picking(pod).collect()
}

/// What a port of a pod speaks: opaque by annotation, else what the Services that lead to it declare (if they agree),
/// else its own name. Both ends of a connection are told the same.
fn pod_protocol(pod: &PodFacts, picked_by: &[&ServiceFacts], port: u16) -> Protocol {
    if pod.opaque.contains(port) {
        return Protocol::Opaque;
    }
    let leading_here =
        picked_by.iter().flat_map(|service| &service.ports).filter(|known| known.target.on(pod) == Some(port));
    let declared: BTreeSet<Protocol> =
        leading_here.map(|known| known.declared).filter(|protocol| *protocol != Protocol::Detect).collect();
    match declared.first() {
        Some(protocol) if declared.len() == 1 => *protocol,
        _ => pod.protocol(port),
    }
}

/// What a port of a Service speaks.
fn service_protocol(facts: &Facts, service: &ServiceFacts, port: &PortFacts) -> Protocol {
    let mut picked = facts.picked_by(service).filter_map(|pod| Some((pod, port.target.on(pod)?)));
    if picked.any(|(pod, target)| pod.opaque.contains(target)) {
        return Protocol::Opaque;
    }
    match port.declared {
        Protocol::Detect => ports::default_protocol(port.port),
        declared => declared,
    }
}
