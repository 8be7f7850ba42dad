//! Service -> facts. Called by [`super::Facts`]; pure.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::util::intstr::IntOrString};
use mesh_proto::workload::Protocol;

use super::{Converted, Name, pods::PodFacts, ports};

/// Most ports of a Service: each is a port of the policy of every pod that it picks.
const MOST_PORTS: usize = 1024;

/// What matters of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Namespace and name.
    pub name: Name,
    /// Cluster IPs; none for a headless Service.
    pub ips: Vec<IpAddr>,
    /// Pods it picks; none where somebody else keeps its slices.
    pub selector: Option<BTreeMap<String, String>>,
    /// Its TCP ports.
    pub ports: Vec<PortFacts>,
    /// Whether it may have ports that are not among these: then nobody can say what is behind another one.
    pub incomplete: bool,
    /// Whether pods count before they are ready.
    pub publish_not_ready: bool,
}

/// A TCP port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFacts {
    /// Number.
    pub port: u16,
    /// Its name; none where it is the only one.
    pub name: Option<String>,
    /// Where it leads on a pod.
    pub target: Target,
    /// What was declared; [`Protocol::Detect`] where nothing was.
    pub declared: Protocol,
}

/// A port of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By number.
    Number(u16),
    /// By name, which each pod resolves for itself.
    Name(String),
}

impl Target {
    /// The port on this pod.
    pub fn on(&self, pod: &PodFacts) -> Option<u16> {
        match self {
            Self::Number(port) => Some(*port),
            Self::Name(name) => pod.named_port(name),
        }
    }
}

impl ServiceFacts {
    /// Whether its selector picks a pod of its namespace with these labels.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_some_and(|selector| super::selects(selector, labels))
    }
}

pub(super) fn facts(service: &Service) -> Converted<ServiceFacts> {
    let mut problems = Vec::new();
    let spec = service.spec.clone().unwrap_or_default();
    let mut ips = Vec::new();
    for text in spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.iter()) {
        if text.is_empty() || text == "None" {
            continue;
        }
        match text.parse() {
            Ok(ip) if !ips.contains(&ip) => ips.push(ip),
            Ok(_) => {}
            Err(_) => problems.push(format!("spec.clusterIPs: {text:?} is not an address")),
        }
    }
    let mut ports = Vec::new();
    // The API server takes none without ports; one that stands in for an unreadable one has none.
    let mut incomplete = !ips.is_empty() && spec.ports.as_ref().is_none_or(Vec::is_empty);
    for port in
        spec.ports.iter().flatten().filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
    {
        let target = match &port.target_port {
            None => ports::number(port.port).map(Target::Number),
            Some(IntOrString::Int(number)) => ports::number(*number).map(Target::Number),
            Some(IntOrString::String(name)) => Some(Target::Name(name.clone())),
        };
        let (Some(number), Some(target)) = (ports::number(port.port), target) else {
            problems.push(format!("spec.ports: {} is not a port", port.port));
            incomplete = true;
            continue;
        };
        let declared = ports::declared(port.app_protocol.as_deref(), port.name.as_deref());
        if ports.len() == MOST_PORTS {
            problems.push(format!("spec.ports: more than {MOST_PORTS} ports; the rest is left out"));
            incomplete = true;
            break;
        }
        ports.push(PortFacts { port: number, name: port.name.clone(), target, declared });
    }
    let facts = ServiceFacts {
        name: Name::of(&service.metadata),
        ips,
        selector: spec.selector.filter(|selector| !selector.is_empty()),
        ports,
        incomplete,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
    };
    Converted { facts, problems }
}
