//! What is behind an original destination (contracts §3, first four rows).

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_proto::{
    endpoint::Endpoint,
    outbound::{Backend, OutboundPolicy, PathMatch, PodTarget, RequestMatch, Route, ServiceTarget, WeightedBackend},
    workload::ServicePort,
};

use super::{Reads, pod_protocol, service_protocol, services_of};
use crate::index::{
    Facts, Name,
    pods::PodFacts,
    routes::{BackendFacts, RouteFacts},
    services::{PortFacts, ServiceFacts},
};

/// Most endpoints of one backend: a message to a proxy has 4 MiB at most, and with more its stream would end.
const MOST_ENDPOINTS: usize = 10_000;

/// Compiles the target of `address` for clients in `zone`, where that is known; none for one that must not be dialled at
/// all.
pub fn outbound(
    facts: &Facts,
    address: SocketAddr,
    zone: Option<&Arc<str>>,
    reads: &mut Reads,
) -> Option<OutboundPolicy> {
    // An IPv4 address in IPv6 clothes is the same destination.
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    reads.address(address.ip());
    if let Some(service) = facts.service_at(address.ip()) {
        reads.service(&service.name);
        return match service.ports.iter().find(|port| port.port == address.port()) {
            Some(port) => {
                let backends = Backends { facts, family: address.ip(), zone, reads, list: Vec::new() };
                Some(OutboundPolicy::Service(service_target(facts, service, port, backends)))
            }
            // It may lead to pods with an identity.
            None if service.incomplete => None,
            None => Some(OutboundPolicy::External),
        };
    }
    let Some(pod) = facts.pod_at(address.ip()) else { return Some(OutboundPolicy::External) };
    reads.pod(&pod.name);
    if pod.unidentified {
        return None;
    }
    let protocol = pod_protocol(pod, &services_of(facts, pod, reads), address.port());
    Some(OutboundPolicy::Pod(PodTarget { endpoint: endpoint(address, Some(pod)), protocol }))
}

fn service_target(
    facts: &Facts,
    service: &ServiceFacts,
    port: &PortFacts,
    mut backends: Backends<'_>,
) -> ServiceTarget {
    backends.push(service, port);
    let routes = routes(facts, service, port, &mut backends);
    let backends = backends.list;
    ServiceTarget {
        service: service_port(service, port),
        protocol: service_protocol(facts, service, port),
        routes,
        backends,
    }
}

/// Rules of the routes attached to a Service port, one per match, in the order in which the Gateway API lets them win.
fn routes(facts: &Facts, service: &ServiceFacts, port: &PortFacts, backends: &mut Backends<'_>) -> Vec<Route> {
    let attached: Vec<&RouteFacts> =
        facts.routes_of(&service.name).filter(|route| attaches(route, service, port)).collect();
    let mut candidates = Vec::new();
    for route in &attached {
        for (number, rule) in route.rules.iter().enumerate() {
            for (place, one) in rule.matches.iter().enumerate() {
                let rank = (precedence(one), route.created, &route.name, number, place);
                candidates.push((rank, one, rule));
            }
        }
    }
    candidates.sort_by(|one, other| one.0.cmp(&other.0));
    let mut routes: Vec<Route> = Vec::with_capacity(candidates.len());
    for ((_, _, name, number, _), one, rule) in candidates {
        let weighted = rule.backends.iter().flatten().map(|backend| backends.weighted(backend)).collect();
        let matches = if *one == RequestMatch::default() { Vec::new() } else { vec![one.clone()] };
        routes.push(Route { name: format!("{name}#{number}").into(), matches, backends: weighted });
    }
    // A Service without routes takes everything. One whose routes have no rule that can be told must not.
    if let (true, Some(first)) = (routes.is_empty(), attached.first()) {
        routes.push(Route { name: format!("{}#0", first.name).into(), matches: Vec::new(), backends: Vec::new() });
    }
    routes
}

fn attaches(route: &RouteFacts, service: &ServiceFacts, port: &PortFacts) -> bool {
    route.parents.iter().any(|parent| {
        parent.service == service.name
            && parent.port.is_none_or(|number| number == port.port)
            && parent.section.as_ref().is_none_or(|section| port.name.as_ref() == Some(section))
    })
}

/// Smaller wins: exact path, then longer prefix, then a method, then more headers (Gateway API, HTTPRouteRule.matches).
fn precedence(one: &RequestMatch) -> impl Ord + use<> {
    let (kind, length) = match &one.path {
        Some(PathMatch::Exact(path)) => (0, path.len()),
        Some(PathMatch::Prefix(path)) => (1, path.len()),
        None => (1, 1),
    };
    (kind, Reverse(length), Reverse(one.method.is_some()), Reverse(one.headers.len()))
}

/// Backends of a target, each once.
struct Backends<'a> {
    facts: &'a Facts,
    family: IpAddr,
    zone: Option<&'a Arc<str>>,
    reads: &'a mut Reads,
    list: Vec<Backend>,
}

impl Backends<'_> {
    fn weighted(&mut self, wanted: &BackendFacts) -> WeightedBackend {
        let backend = wanted.service.as_ref().and_then(|(name, number)| {
            self.reads.service(name);
            let service = self.facts.service(name)?;
            let port = service.ports.iter().find(|port| port.port == *number)?;
            Some(self.push(service, port))
        });
        WeightedBackend { backend, weight: wanted.weight }
    }

    fn push(&mut self, service: &ServiceFacts, port: &PortFacts) -> usize {
        let name = service_port(service, port);
        if let Some(place) = self.list.iter().position(|known| known.service == name) {
            return place;
        }
        let mut endpoints = endpoints(self.facts, service, port, self.zone, self.reads);
        if endpoints.iter().any(|endpoint| endpoint.address.is_ipv4() == self.family.is_ipv4()) {
            // A pod with addresses of both families is one endpoint, not two.
            endpoints.retain(|endpoint| endpoint.address.is_ipv4() == self.family.is_ipv4());
        }
        self.list.push(Backend { service: name, endpoints });
        self.list.len() - 1
    }
}

/// Ready endpoints of a Service port: from its slices, or from its pods where it has none.
fn endpoints(
    facts: &Facts,
    service: &ServiceFacts,
    port: &PortFacts,
    zone: Option<&Arc<str>>,
    reads: &mut Reads,
) -> Vec<Endpoint> {
    let mut slices = facts.slices_of(&service.name).peekable();
    let mut endpoints = Vec::new();
    if slices.peek().is_none() {
        let picked =
            facts.picked_by(service).filter(|pod| !pod.unidentified && (pod.ready || service.publish_not_ready));
        for pod in picked {
            if let Some(number) = port.target.on(pod) {
                endpoints.extend(pod.ips.iter().map(|ip| endpoint(SocketAddr::new(*ip, number), Some(pod))));
            }
        }
    }
    let mut hinted = Vec::new();
    for slice in slices {
        let numbers = slice.ports.iter().filter(|(name, _)| *name == port.name).map(|(_, number)| *number);
        for number in numbers {
            for one in &slice.endpoints {
                reads.address(one.ip);
                let holder = facts.pod_at(one.ip);
                // Said to be a pod that is not known here, or no longer: it may be meshed, so it is not dialled at all
                // (contracts §1, no downgrade).
                let known = one.pod.as_ref().is_none_or(|pod| {
                    reads.pod(pod);
                    holder.is_some_and(|holder| holder.name == *pod) || shares_its_node(facts, pod)
                });
                if known && holder.is_none_or(|holder| !holder.unidentified) {
                    hinted.push((endpoint(SocketAddr::new(one.ip, number), holder), &*one.for_zones));
                }
            }
        }
    }
    endpoints.extend(near(hinted, zone));
    endpoints.sort_by_key(|endpoint| endpoint.address);
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    endpoints.truncate(MOST_ENDPOINTS);
    endpoints
}

/// Those that hints mean for the clients of a zone. Hints are followed as kube-proxy does: only where every endpoint has
/// some, and they leave the zone an endpoint.
fn near(hinted: Vec<(Endpoint, &[Arc<str>])>, zone: Option<&Arc<str>>) -> impl Iterator<Item = Endpoint> {
    let meant = move |zones: &[Arc<str>]| zone.is_some_and(|zone| zones.contains(zone));
    let followed = hinted.iter().all(|(_, zones)| !zones.is_empty()) && hinted.iter().any(|(_, zones)| meant(zones));
    hinted.into_iter().filter(move |(_, zones)| !followed || meant(zones)).map(|(endpoint, _)| endpoint)
}

/// Whether a pod is known, unmeshed, and without an address of its own: it uses its node's.
fn shares_its_node(facts: &Facts, pod: &Name) -> bool {
    facts.pod(pod).is_some_and(|pod| pod.meshed.is_none() && pod.host_network)
}

fn endpoint(address: SocketAddr, pod: Option<&PodFacts>) -> Endpoint {
    Endpoint {
        address,
        identity: pod.and_then(|pod| pod.identity(address.port()).cloned()),
        pod: pod.map(PodFacts::pod_ref),
    }
}

fn service_port(service: &ServiceFacts, port: &PortFacts) -> ServicePort {
    ServicePort {
        namespace: Arc::clone(&service.name.namespace),
        name: Arc::clone(&service.name.name),
        port: port.port,
    }
}
