//! EndpointSlice -> facts. Called by [`super::Facts`]; pure.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{Converted, Name, ports};

/// Label that names the Service of a slice.
const LABEL_SERVICE: &str = "kubernetes.io/service-name";

/// What matters of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceFacts {
    /// Namespace and name.
    pub name: Name,
    /// The Service that it is about.
    pub service: Option<Name>,
    /// Its TCP ports: name of the Service's port, and the number on the endpoints.
    pub ports: Vec<(Option<String>, u16)>,
    /// Ready endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Zones of the nodes that they are on: so nobody needs to read Nodes.
    pub zones: BTreeMap<Arc<str>, Arc<str>>,
}

/// A ready endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address. Slices list several for one endpoint only by mistake; the first counts, as the API says.
    pub ip: IpAddr,
    /// The pod that it is said to be.
    pub pod: Option<Name>,
    /// Zones whose clients are to use it, as hints say; empty where there are none.
    pub for_zones: Vec<Arc<str>>,
}

pub(super) fn facts(slice: &EndpointSlice) -> Converted<SliceFacts> {
    let mut problems = Vec::new();
    let name = Name::of(&slice.metadata);
    let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_SERVICE));
    let service = service.map(|service| Name::new(&name.namespace, service));
    let tcp = slice.ports.iter().flatten();
    let tcp = tcp.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    let ports =
        tcp.filter_map(|port| Some((port.name.clone().filter(|name| !name.is_empty()), ports::number(port.port?)?)));
    let ports = ports.collect();
    let (mut endpoints, mut zones) = (Vec::new(), BTreeMap::new());
    // FQDN endpoints are nothing that could be dialled by address.
    let by_address = slice.address_type != "FQDN";
    for endpoint in slice.endpoints.iter().filter(|_| by_address) {
        // An unknown condition counts as ready (discovery.k8s.io/v1).
        if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
            continue;
        }
        let Some(text) = endpoint.addresses.first() else { continue };
        let Ok(ip) = text.parse() else {
            problems.push(format!("endpoints: {text:?} is not an address"));
            continue;
        };
        let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let pod = pod.and_then(|target| {
            let namespace = target.namespace.as_deref().unwrap_or(&name.namespace);
            Some(Name { namespace: namespace.into(), name: Arc::from(target.name.as_deref()?) })
        });
        if let (Some(node), Some(zone)) = (&endpoint.node_name, &endpoint.zone) {
            zones.insert(Arc::from(node.as_str()), Arc::from(zone.as_str()));
        }
        let hints = endpoint.hints.iter().flat_map(|hints| hints.for_zones.iter().flatten());
        let for_zones = hints.map(|zone| Arc::from(zone.name.as_str())).collect();
        endpoints.push(SliceEndpoint { ip, pod, for_zones });
    }
    Converted { facts: SliceFacts { name, service, ports, endpoints, zones }, problems }
}
