//! What a Service is to the mesh: what is spoken on its ports, which pods are behind it, and what of it deserves a word.
//! Pure; the workloads behind it are described as any other.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};
use mesh_controller::index::ports;
use mesh_proto::workload::Protocol;
use serde::Serialize;
use serde_json::Value;

use crate::cluster::PodInfo;

/// A Service.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Said {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) ports: Vec<ServedPort>,
    pub(super) pods: usize,
    pub(super) ready: usize,
    pub(super) meshed: usize,
    /// Of the pods that it picks.
    pub(super) workloads: BTreeSet<String>,
    pub(super) warnings: Vec<String>,
}

/// A port of a Service.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServedPort {
    pub(super) port: i32,
    /// Number or name.
    pub(super) target: String,
    /// As it is declared, or taken for by its number; `detect`: told from the first bytes.
    pub(super) protocol: &'static str,
    pub(super) udp: bool,
}

/// What is said of `service`, which picks these pods.
pub(super) fn of(service: &Service, picked: &[(PodInfo, Value)]) -> Said {
    let spec = service.spec.clone().unwrap_or_default();
    let ports: Vec<ServedPort> = spec.ports.iter().flatten().map(port).collect();
    let count = |is: fn(&PodInfo) -> bool| picked.iter().filter(|(pod, _)| is(pod)).count();
    let (ready, meshed) = (count(|pod| pod.ready), count(|pod| pod.meshed));
    let mut warnings = Vec::new();
    if spec.type_.as_deref() == Some("ExternalName") {
        warnings.push("an ExternalName is another name in DNS: what it leads to is asked for as that".to_owned());
    } else if spec.selector.is_none_or(|selector| selector.is_empty()) {
        warnings.push("it has no selector: its endpoints are those that somebody writes (EndpointSlice)".to_owned());
    } else if picked.is_empty() {
        warnings.push("its selector picks no pod: requests are answered 503 no-endpoints".to_owned());
    } else {
        if ready == 0 {
            warnings.push("none of its pods is ready".to_owned());
        }
        if meshed > 0 && meshed < picked.len() {
            warnings
                .push(format!("{} of its pods are not meshed: they are spoken to in the clear", picked.len() - meshed));
        }
        warnings.extend(ports.iter().filter_map(|port| nowhere(port, picked)));
    }
    Said {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        service: service.metadata.name.clone().unwrap_or_default(),
        ports,
        pods: picked.len(),
        ready,
        meshed,
        workloads: picked.iter().map(|(pod, _)| pod.workload_or_name()).collect(),
        warnings,
    }
}

fn port(port: &ServicePort) -> ServedPort {
    let target = match &port.target_port {
        Some(IntOrString::Int(number)) => number.to_string(),
        Some(IntOrString::String(name)) => name.clone(),
        None => port.port.to_string(),
    };
    let mut protocol = ports::declared(port.app_protocol.as_deref(), port.name.as_deref());
    if protocol == Protocol::Detect {
        protocol = u16::try_from(port.port).map_or(protocol, ports::default_protocol);
    }
    ServedPort { port: port.port, target, protocol: protocol.as_str(), udp: port.protocol.as_deref() == Some("UDP") }
}

/// A port by name that no pod has.
fn nowhere(port: &ServedPort, picked: &[(PodInfo, Value)]) -> Option<String> {
    let is_named = |pod: &Value| {
        let containers =
            ["containers", "initContainers"].into_iter().flat_map(|list| mesh_injector::pod::list(pod, list));
        containers
            .flat_map(|container| container["ports"].as_array().into_iter().flatten())
            .any(|one| one["name"] == port.target.as_str())
    };
    let leads = port.target.parse::<u16>().is_ok() || picked.iter().any(|(_, pod)| is_named(pod));
    (!leads).then(|| format!("port {} leads to {:?}, and no pod has a port of that name", port.port, port.target))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::fixture;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})).unwrap()
    }

    #[test]
    fn what_is_wrong_with_a_service_is_said() {
        let (meshed, plain) = (
            fixture::pod("web-1", Some("web"), true, "10.0.0.1"),
            fixture::pod("web-2", Some("web"), false, "10.0.0.2"),
        );
        let object =
            json!({"spec": {"containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}]}});
        let both = [(meshed, object.clone()), (plain, object)];
        let ports = |target: Value| json!([{"port": 80, "targetPort": target}]);
        let selector = json!({"app": "web"});
        for (spec, picked, says) in [
            (json!({"selector": selector, "ports": ports(json!("http"))}), &both[..1], ""),
            (json!({"selector": selector, "ports": ports(json!(9))}), &both[..1], ""),
            (json!({"selector": selector, "ports": ports(json!("nope"))}), &both[..1], "\"nope\", and no pod"),
            (json!({"selector": selector}), &both[..], "1 of its pods are not meshed"),
            (json!({"selector": selector}), &[][..], "picks no pod"),
            (json!({}), &[][..], "no selector"),
            (json!({"type": "ExternalName", "externalName": "a.b"}), &[][..], "ExternalName"),
        ] {
            let said = of(&service(spec.clone()), picked);
            assert_eq!(said.warnings.is_empty(), says.is_empty(), "{spec}: {said:?}");
            assert!(said.warnings.iter().all(|warning| warning.contains(says)), "{spec}: {said:?}");
        }
    }

    #[test]
    fn a_port_speaks_what_it_declares_or_what_its_number_says() {
        let port = |value: Value| port(&serde_json::from_value(value).unwrap());
        for (value, protocol, target) in [
            (json!({"port": 80, "name": "http", "targetPort": "web"}), Protocol::Http1, "web"),
            (json!({"port": 80, "name": "http", "appProtocol": "grpc"}), Protocol::Grpc, "80"),
            (json!({"port": 5432}), Protocol::Opaque, "5432"),
            (json!({"port": 81, "targetPort": 8081}), Protocol::Detect, "8081"),
        ] {
            let port = port(value);
            assert_eq!((port.protocol, port.target.as_str(), port.udp), (protocol.as_str(), target, false));
        }
        assert!(port(json!({"port": 53, "protocol": "UDP"})).udp);
    }
}
