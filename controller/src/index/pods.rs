//! Pod -> facts. Called by [`super::Facts`]; pure.
//!
//! Nothing about a pod may make it look unmeshed by mistake: whether it is meshed is read from its immutable spec
//! (contracts §1), and what cannot be understood there counts as meshed.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Pod};
use mesh_proto::{
    identity::Identity,
    inbound::DefaultPolicy,
    names,
    ports::{BadList, PortSet},
    workload::{self, PodRef, Protocol},
};

use super::{Converted, Name, namespaces, ports};

/// What matters of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Namespace and name.
    pub name: Name,
    /// Its uid.
    pub uid: String,
    /// Its addresses, if they are its own and it still runs.
    pub ips: Vec<IpAddr>,
    /// Whether it uses the addresses of its node.
    pub host_network: bool,
    /// The node that it is on.
    pub node: Option<Arc<str>>,
    /// Whether it can be sent requests.
    pub ready: bool,
    /// Its service account.
    pub service_account: String,
    /// Who it is, if its sidecar is there to prove it.
    pub meshed: Option<Meshed>,
    /// It has a sidecar and no identity that this could prove: it must not be dialled at all.
    pub unidentified: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What owns it, e.g. `deployment/web`.
    pub workload: Option<Arc<str>>,
    /// TCP ports of its containers.
    pub ports: Vec<ContainerPort>,
    /// Ports that are opaque whatever a Service declares.
    pub opaque: PortSet,
    /// Set by annotation.
    pub default_policy: Option<DefaultPolicy>,
    /// When it was made; tells the newer of two pods with one address. Seconds since 1970.
    pub created: i64,
}

/// What the sidecar of a pod gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meshed {
    /// Its identity.
    pub identity: Identity,
    /// Ports that the sidecar does not take over.
    pub skipped: PortSet,
}

/// A TCP port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// Number.
    pub port: u16,
    /// Its name, unique in the pod.
    pub name: Option<String>,
}

impl PodFacts {
    /// As it travels to proxies.
    pub fn pod_ref(&self) -> PodRef {
        PodRef {
            namespace: Arc::clone(&self.name.namespace),
            name: Arc::clone(&self.name.name),
            workload: self.workload.clone(),
        }
    }

    /// The identity that whoever dials `port` must meet; none where the sidecar does not take the port over.
    pub fn identity(&self, port: u16) -> Option<&Identity> {
        let meshed = self.meshed.as_ref()?;
        // The proxy's own admin port is answered by the proxy itself, in plaintext (contracts §9).
        let taken_over = port != names::PORT_PROXY_ADMIN && !meshed.skipped.contains(port);
        taken_over.then_some(&meshed.identity)
    }

    /// The number of a named port.
    pub fn named_port(&self, name: &str) -> Option<u16> {
        self.ports.iter().find(|port| port.name.as_deref() == Some(name)).map(|port| port.port)
    }

    /// What `port` speaks, by the pod alone.
    pub fn protocol(&self, port: u16) -> Protocol {
        if self.opaque.contains(port) {
            return Protocol::Opaque;
        }
        let name = self.ports.iter().find(|known| known.port == port).and_then(|known| known.name.as_deref());
        match ports::declared(None, name) {
            Protocol::Detect => ports::default_protocol(port),
            declared => declared,
        }
    }
}

pub(super) fn facts(pod: &Pod, trust_domain: &str) -> Converted<PodFacts> {
    let mut problems = Vec::new();
    let metadata = &pod.metadata;
    let name = Name::of(metadata);
    let spec = pod.spec.as_ref();
    let service_account = spec.and_then(|spec| spec.service_account_name.clone());
    let service_account = service_account.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".into());
    let sidecar = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let sidecar = sidecar.into_iter().find(|container| container.name == names::CONTAINER_PROXY);
    let meshed = sidecar.and_then(|sidecar| {
        let identity = Identity::new(trust_domain, &name.namespace, &service_account);
        let identity = identity.map_err(|error| problems.push(error.to_string())).ok()?;
        Some(Meshed { identity, skipped: ports_in(sidecar, names::ENV_SKIP_INBOUND_PORTS, &mut problems) })
    });
    let ips = own_ips(pod, &mut problems);
    let annotations = metadata.annotations.as_ref();
    let opaque = annotations.and_then(|all| all.get(names::ANNOTATION_OPAQUE_PORTS)).map(|text| text.parse());
    let opaque = opaque.transpose().unwrap_or_else(|error: BadList| {
        problems.push(format!("annotation {}: {error}", names::ANNOTATION_OPAQUE_PORTS));
        None
    });
    // Written by the injector where the namespace says it and the pod does not.
    let inherited = sidecar.filter(|_| annotations.is_none_or(|all| !all.contains_key(names::ANNOTATION_OPAQUE_PORTS)));
    let inherited = inherited.map(|sidecar| ports_in(sidecar, names::ENV_OPAQUE_PORTS, &mut problems));
    let default_policy = namespaces::default_policy(annotations, &mut problems);
    let facts = PodFacts {
        host_network: host_network(pod),
        node: spec.and_then(|spec| spec.node_name.as_deref()).map(Arc::from),
        unidentified: meshed.is_none() && sidecar.is_some(),
        uid: metadata.uid.clone().unwrap_or_default(),
        ready: metadata.deletion_timestamp.is_none() && is_ready(pod),
        workload: workload(pod),
        ports: spec.map(container_ports).unwrap_or_default(),
        labels: metadata.labels.clone().unwrap_or_default(),
        created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        opaque: opaque.or(inherited).unwrap_or_default(),
        name,
        ips,
        service_account,
        meshed,
        default_policy,
    };
    Converted { facts, problems }
}

/// Addresses that lead to this pod and no other: not those of its node, and not those of a pod that has ended, which
/// belong to whoever gets them next.
fn own_ips(pod: &Pod, problems: &mut Vec<String>) -> Vec<IpAddr> {
    let Some(status) = pod.status.as_ref().filter(|_| !host_network(pod)) else { return Vec::new() };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let all = status.pod_ips.iter().flatten().map(|one| one.ip.as_str());
    let mut ips = Vec::new();
    for text in all.chain(status.pod_ip.as_deref()).filter(|text| !text.is_empty()) {
        match text.parse() {
            Ok(ip) if !ips.contains(&ip) => ips.push(ip),
            Ok(_) => {}
            Err(_) => problems.push(format!("status.podIPs: {text:?} is not an address")),
        }
    }
    ips
}

fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A list of ports in the environment of the sidecar; one that is no list has no port.
fn ports_in(sidecar: &Container, variable: &str, problems: &mut Vec<String>) -> PortSet {
    let found = sidecar.env.iter().flatten().find(|one| one.name == variable);
    let text = found.and_then(|found| found.value.as_deref()).unwrap_or_default();
    text.parse().unwrap_or_else(|error: BadList| {
        problems.push(format!("{variable} of the sidecar: {error}; it counts as empty"));
        PortSet::default()
    })
}

fn container_ports(spec: &k8s_openapi::api::core::v1::PodSpec) -> Vec<ContainerPort> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let containers = containers.filter(|container| container.name != names::CONTAINER_PROXY);
    let all = containers.flat_map(|container| container.ports.iter().flatten());
    let tcp = all.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    let mut ports: Vec<ContainerPort> = tcp
        .filter_map(|port| Some(ContainerPort { port: ports::number(port.container_port)?, name: port.name.clone() }))
        .collect();
    ports.sort_by_key(|port| port.port);
    ports
}

/// `kind/name` of the owner.
fn workload(pod: &Pod) -> Option<Arc<str>> {
    let owners = pod.metadata.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true)).or(owners.first())?;
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(workload::LABEL_TEMPLATE_HASH));
    Some(workload::of_owner(&owner.kind, &owner.name, hash.map(String::as_str)).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn opaque_ports_are_those_of_the_pod_else_those_the_injector_inherited() {
        for (annotation, inherited, want) in [
            (None, None, ""),
            (Some("9000"), None, "9000"),
            (None, Some("9001"), "9001"),
            (Some("9000"), Some("9001"), "9000"),
            (Some(""), Some("9001"), ""),
            (Some("x"), Some("9001"), ""),
            (None, Some("x"), ""),
        ] {
            let annotations = annotation.map(|text| json!({names::ANNOTATION_OPAQUE_PORTS: text}));
            let env = inherited.map(|text| json!([{"name": names::ENV_OPAQUE_PORTS, "value": text}]));
            let pod = serde_json::from_value(json!({
                "metadata": {"name": "a", "namespace": "shop", "annotations": annotations},
                "spec": {"containers": [], "initContainers": [{"name": names::CONTAINER_PROXY, "env": env}]},
            }));
            let facts = facts(&pod.expect("a pod"), "cluster.local").facts;
            assert_eq!(facts.opaque.to_string(), want, "{annotation:?} {inherited:?}");
        }
    }
}
