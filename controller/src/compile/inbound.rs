//! What a pod lets in, port by port (contracts §7).

use std::collections::BTreeSet;

use mesh_proto::{
    inbound::{Action, DefaultPolicy, InboundPolicy, PortPolicy, Rule},
    names,
    workload::Protocol,
};

use super::{Reads, pod_protocol, services_of};
use crate::index::{
    Facts, Name,
    authorizations::{AuthorizationFacts, Clients},
    pods::PodFacts,
    services::ServiceFacts,
};

/// Compiles the policy of a pod; none for a pod that is not known. `mesh_default` is in force where neither pod nor
/// namespace set one.
pub fn inbound(facts: &Facts, pod: &Name, mesh_default: DefaultPolicy, reads: &mut Reads) -> Option<InboundPolicy> {
    reads.pod(pod);
    reads.namespace(&pod.namespace);
    let pod = facts.pod(pod)?;
    let namespace = facts.namespace(&pod.name.namespace);
    let default =
        pod.default_policy.or(namespace.and_then(|namespace| namespace.default_policy)).unwrap_or(mesh_default);
    let policies = facts.authorizations_in(&pod.name.namespace);
    let policies: Vec<_> = policies.filter(|policy| policy.protects(pod, |name| facts.service(name))).collect();
    let services = services_of(facts, pod, reads);
    let ports = ports(pod, &services, &policies).into_iter();
    let ports = ports.map(|port| {
        let protocol = pod_protocol(pod, &services, port);
        (port, port_policy(&policies, Some(port), protocol, default))
    });
    Some(InboundPolicy { ports: ports.collect(), default: port_policy(&policies, None, Protocol::Detect, default) })
}

/// Most opaque ports of a pod that get an entry of their own: keeps `1-65535` out of messages.
const MOST_OPAQUE_PORTS: usize = 1024;

/// Every port about which there is something to say.
fn ports(pod: &PodFacts, services: &[&ServiceFacts], policies: &[&AuthorizationFacts]) -> BTreeSet<u16> {
    let targets = services.iter().flat_map(|service| &service.ports).filter_map(|port| port.target.on(pod));
    let containers = pod.ports.iter().map(|port| port.port);
    let selected = policies.iter().flat_map(|policy| policy.ports.iter().copied());
    let opaque = pod
        .opaque
        .ranges()
        .iter()
        .cloned()
        .flatten()
        .take(MOST_OPAQUE_PORTS)
        .chain(names::DEFAULT_OPAQUE_PORTS.iter().copied());
    targets.chain(containers).chain(selected).chain(opaque).collect()
}

/// `port` is none for every port without an entry of its own: only policies about all ports concern those.
fn port_policy(
    policies: &[&AuthorizationFacts],
    port: Option<u16>,
    protocol: Protocol,
    default: DefaultPolicy,
) -> PortPolicy {
    let mut policy = PortPolicy { protocol, default, rules: Vec::new() };
    for written in policies {
        if !written.ports.is_empty() && port.is_none_or(|port| !written.ports.contains(&port)) {
            continue;
        }
        let clients = match &written.clients {
            Clients::Everyone => Vec::new(),
            // Lets nobody in. A rule cannot say so (without clients it matches everyone), a default can.
            Clients::These(clients) if clients.is_empty() && written.action == Action::Allow => {
                policy.default = DefaultPolicy::Deny;
                continue;
            }
            Clients::These(clients) => clients.clone(),
        };
        policy.rules.push(Rule { name: written.name.to_string().into(), action: written.action, clients });
    }
    policy
}
