//! Names and ports that objects of the files name: are they there? What a controller could only say with a whole cluster.

use gateway_api::apis::standard::httproutes::HttpRoute;
use mesh_controller::{
    index::{Facts, Name, services::ServiceFacts},
    source::Object,
};
use mesh_proto::crd::{AuthorizationPolicy, TargetKind};

use super::{Place, Template};
use crate::check::Finding;

/// What the files have that can be named.
pub(super) struct References<'a> {
    pub(super) facts: &'a Facts,
    pub(super) pods: &'a [Template<'a>],
}

impl References<'_> {
    /// Looks at the names of one object.
    pub(super) fn judge(
        &self,
        object: &Object,
        place: Place<'_>,
        backends: &mut Vec<Finding>,
        ports: &mut Vec<Finding>,
    ) {
        match object {
            Object::HttpRoute(route) => self.route(route, place, backends, ports),
            Object::AuthorizationPolicy(policy) => self.policy(policy, place, ports),
            _ => {}
        }
    }

    fn route(&self, route: &HttpRoute, place: Place<'_>, backends: &mut Vec<Finding>, ports: &mut Vec<Finding>) {
        let own = route.metadata.namespace.as_deref().unwrap_or("default");
        let name = format!("HTTPRoute {own}/{}", route.metadata.name.as_deref().unwrap_or_default());
        let mut look = |what: String, namespace: Option<&str>, service: &str, port: Option<i32>| {
            let service = Name::new(namespace.unwrap_or(own), service);
            match self.facts.service(&service) {
                None => backends.push(Finding::new(format!("{place}: {name}: {what}: there is no Service {service}"))),
                Some(facts) => {
                    if let Some(port) = port.filter(|port| !has_port(facts, *port)) {
                        let text = format!("{place}: {name}: {what}: Service {service} has no port {port}");
                        ports.push(Finding::new(format!("{text}; it has {}", list(facts))));
                    }
                }
            }
        };
        for (number, parent) in route.spec.parent_refs.iter().flatten().enumerate() {
            if parent.kind.as_deref() == Some("Service") {
                look(format!("parentRefs[{number}]"), parent.namespace.as_deref(), &parent.name, parent.port);
            }
        }
        for (number, rule) in route.spec.rules.iter().flatten().enumerate() {
            for (place, backend) in rule.backend_refs.iter().flatten().enumerate() {
                if matches!(backend.kind.as_deref(), None | Some("Service")) {
                    let what = format!("rules[{number}].backendRefs[{place}]");
                    look(what, backend.namespace.as_deref(), &backend.name, backend.port);
                }
            }
        }
    }

    fn policy(&self, policy: &AuthorizationPolicy, place: Place<'_>, ports: &mut Vec<Finding>) {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or("default");
        let services = policy.spec.target_refs.iter().filter(|target| target.kind == TargetKind::Service);
        let services = services.filter_map(|target| self.facts.service(&Name::new(namespace, &target.name)));
        let services: Vec<&ServiceFacts> = services.collect();
        let selected = |pod: &&Template<'_>| {
            pod.namespace == namespace
                && match &policy.spec.selector {
                    Some(selector) => {
                        selector.match_labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
                    }
                    None if policy.spec.target_refs.iter().any(|target| target.kind == TargetKind::Service) => {
                        services.iter().any(|service| service.selects(&pod.labels))
                    }
                    None => true,
                }
        };
        let pods: Vec<&Template<'_>> = self.pods.iter().filter(selected).collect();
        // A container may listen on a port that it does not declare: only where all is declared can something be said.
        if pods.is_empty() || pods.iter().any(|pod| pod.ports.is_empty()) {
            return;
        }
        let name = format!("AuthorizationPolicy {namespace}/{}", policy.metadata.name.as_deref().unwrap_or_default());
        for port in policy.spec.ports.iter().filter(|port| !pods.iter().any(|pod| pod.ports.contains(port))) {
            let mut known: Vec<String> = pods.iter().flat_map(|pod| &pod.ports).map(ToString::to_string).collect();
            known.sort();
            known.dedup();
            let text = format!(
                "{place}: {name}: no pod that it protects declares port {port}; they have {}",
                known.join(", ")
            );
            ports.push(Finding::new(text));
        }
    }
}

fn has_port(service: &ServiceFacts, port: i32) -> bool {
    service.ports.iter().any(|known| i32::from(known.port) == port)
}

fn list(service: &ServiceFacts) -> String {
    service.ports.iter().map(|port| port.port.to_string()).collect::<Vec<_>>().join(", ")
}
