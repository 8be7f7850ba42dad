//! Label selectors and the endpoints of Services. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use k8s_openapi::{
    api::core::v1::{Pod, Service, ServicePort},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// Whether the labels are selected; no selector selects everything (as in webhook configurations).
pub(crate) fn matches(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return true };
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let value = labels.get(&requirement.key);
            let listed = value.is_some_and(|value| requirement.values.iter().flatten().any(|one| one == value));
            match requirement.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// One port of a Service and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Cluster IP and port.
    pub(crate) service: SocketAddr,
    /// Ready pods.
    pub(crate) endpoints: Vec<SocketAddr>,
}

/// The TCP ports of all Services with a cluster IP and a selector, with the pods that are ready.
pub(crate) fn destinations<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    pods: &[(&Pod, Ipv4Addr, bool)],
) -> Vec<Destination> {
    let mut destinations = Vec::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(address) = spec.cluster_ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok()) else { continue };
        if spec.selector.as_ref().is_none_or(Labels::is_empty) {
            continue;
        }
        let selected: Vec<_> = pods.iter().filter(|(pod, _, ready)| *ready && is_member(service, pod)).collect();
        for port in spec.ports.iter().flatten().filter(|port| port.protocol.as_deref().is_none_or(|name| name == "TCP"))
        {
            let Ok(number) = u16::try_from(port.port) else { continue };
            destinations.push(Destination {
                service: SocketAddr::new(address, number),
                endpoints: selected
                    .iter()
                    .filter_map(|(pod, ip, _)| Some(SocketAddr::new(IpAddr::V4(*ip), target_port(port, pod)?)))
                    .collect(),
            });
        }
    }
    destinations
}

/// Whether the Service selects the pod. Without a selector it selects none.
pub(crate) fn is_member(service: &Service, pod: &Pod) -> bool {
    let selector =
        service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
    let labels = pod.metadata.labels.as_ref();
    pod.metadata.namespace == service.metadata.namespace
        && selector.is_some_and(|selector| {
            selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        })
}

/// The container port that a port of a Service means in a pod.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &port.target_port {
        None => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => named_port(pod, name),
    }
}

/// A port of a pod by its name.
pub(crate) fn named_port(pod: &Pod, name: &str) -> Option<u16> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let port = containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some(name));
    u16::try_from(port?.container_port).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn selectors_mean_what_kubernetes_means() {
        let selector = |value| serde_json::from_value::<LabelSelector>(value).unwrap();
        let rule = |operator: &str, values: &[&str]| {
            selector(json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}))
        };
        for (selector, with, without) in [
            (selector(json!({})), true, true),
            (selector(json!({"matchLabels": {"a": "1"}})), true, false),
            (selector(json!({"matchLabels": {"a": "2"}})), false, false),
            (rule("In", &["1", "3"]), true, false),
            (rule("In", &["2"]), false, false),
            (rule("NotIn", &["1"]), false, true),
            (rule("NotIn", &["2"]), true, true),
            (rule("Exists", &[]), true, false),
            (rule("DoesNotExist", &[]), false, true),
            (rule("Like", &["1"]), false, false),
        ] {
            assert_eq!(matches(Some(&selector), &labels(&[("a", "1")])), with, "{selector:?}");
            assert_eq!(matches(Some(&selector), &labels(&[])), without, "{selector:?}");
        }
        assert!(matches(None, &labels(&[])));
    }

    #[test]
    fn a_service_leads_to_the_ready_pods_it_selects_by_number_or_name() {
        let service = |ports: serde_json::Value| -> Service {
            serde_json::from_value(json!({
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.10", "ports": ports},
            }))
            .unwrap()
        };
        let pod = |namespace: &str, app: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": namespace, "labels": {"app": app}},
                "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
            }))
            .unwrap()
        };
        let (web, other, foreign) = (pod("shop", "web"), pod("shop", "db"), pod("else", "web"));
        let ip = |last| Ipv4Addr::new(10, 244, 0, last);
        let pods = [(&web, ip(2), true), (&web, ip(3), false), (&other, ip(4), true), (&foreign, ip(5), true)];
        let services = [service(json!([
            {"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 9000}, {"port": 82},
            {"port": 83, "targetPort": "unknown"}, {"port": 53, "protocol": "UDP"},
        ]))];
        let found: Vec<String> = destinations(&services, &pods)
            .iter()
            .map(|destination| format!("{} {:?}", destination.service, destination.endpoints))
            .collect();
        assert_eq!(
            found,
            [
                "10.96.0.10:80 [10.244.0.2:8080]",
                "10.96.0.10:81 [10.244.0.2:9000]",
                "10.96.0.10:82 [10.244.0.2:82]",
                "10.96.0.10:83 []",
            ]
        );
    }
}
