//! The pages of the admin port, from what the parts of the proxy say of themselves. No secret goes into one.

use std::{collections::HashMap, time::SystemTime};

use mesh_proto::{
    admin::{
        API_VERSION, Backend, Certificate, Config, Controller, Endpoint, Endpoints, Holding, Inbound, Load, MAX_ITEMS,
        Port, Root, Target, TrustBundle,
    },
    endpoint,
    inbound::{Action, PortPolicy},
    outbound::OutboundPolicy,
    workload::Protocol,
};
use mesh_runtime::build_info;

use super::Admin;
use crate::policy::{InboundSummary, OutboundSummary, Summary};

type Loads = HashMap<endpoint::Endpoint, Load, ahash::RandomState>;

impl Admin {
    pub(super) fn config_page(&self) -> Config {
        let pod = &self.config.pod;
        Config {
            api_version: API_VERSION.to_owned(),
            kind: "Config".to_owned(),
            version: build_info::VERSION.to_owned(),
            commit: build_info::COMMIT.to_owned(),
            pod: format!("{}/{}", pod.namespace, pod.name),
            identity: self.credentials.identity().to_string(),
            log: self.log.current(),
            ready: self.readiness.is_ready(),
            waiting_for: self.readiness.pending().iter().map(ToString::to_string).collect(),
            draining: self.drain.is_draining(),
            holding: self.drain.holding().map(|holding| Holding { offered: holding.offered, clients: holding.clients }),
            age_seconds: self.started.elapsed().as_secs_f64(),
            settings: self.config.settings(),
            controller: Controller {
                connected: self.policies.is_connected(),
                age_seconds: self.policies.age().as_secs(),
            },
            inbound: self.policies.summary().inbound.map(inbound),
            targets: self.policies.len(),
            certificate: self.credentials.facts().map(|facts| Certificate {
                serial: facts.serial,
                issuer: facts.issuer,
                not_before: utc(facts.not_before),
                not_after: utc(facts.not_after),
            }),
            trust_bundle: self.trust.roots().ok().map(|(roots, source)| TrustBundle {
                trust_domain: roots.bundle().trust_domain.clone(),
                source: source.as_str().to_owned(),
                roots: roots.list().count(),
                root_list: roots
                    .list()
                    .map(|(subject, not_after)| Root { subject: subject.to_string(), not_after: utc(not_after) })
                    .collect(),
            }),
        }
    }
}

/// Every destination, the balancers' view of its endpoints beside them.
pub(super) fn endpoints(known: Summary, loads: &Loads) -> Endpoints {
    let left_out = known.outbound.len().saturating_sub(MAX_ITEMS);
    Endpoints {
        api_version: API_VERSION.to_owned(),
        kind: "Endpoints".to_owned(),
        items: known.outbound.iter().take(MAX_ITEMS).map(|target| show(target, loads)).collect(),
        waiting: known.asked.into_iter().take(MAX_ITEMS).collect(),
        left_out,
    }
}

fn show(target: &OutboundSummary, loads: &Loads) -> Target {
    let endpoints = |endpoints: &[endpoint::Endpoint]| endpoints.iter().map(|it| endpoint(it, loads)).collect();
    let (kind, name, protocol, backends) = match &*target.policy {
        OutboundPolicy::Service(service) => {
            let backends = service.backends.iter().map(|backend| Backend {
                service: Some(backend.service.to_string()),
                endpoints: endpoints(&backend.endpoints),
            });
            ("service", Some(service.service.to_string()), service.protocol, backends.collect())
        }
        OutboundPolicy::Pod(pod) => {
            let name = pod.endpoint.pod.as_ref().map(ToString::to_string);
            let backend = Backend { service: None, endpoints: endpoints(std::slice::from_ref(&pod.endpoint)) };
            ("pod", name, pod.protocol, vec![backend])
        }
        OutboundPolicy::External => ("external", None, Protocol::Opaque, vec![]),
    };
    let routes = match &*target.policy {
        OutboundPolicy::Service(service) => service.routes.iter().map(|route| route.name.to_string()).collect(),
        _ => vec![],
    };
    Target {
        destination: target.destination,
        kind: kind.to_owned(),
        name,
        protocol: protocol.as_str().to_owned(),
        version: target.version,
        age_seconds: target.age.as_secs_f64(),
        backends,
        routes,
    }
}

fn endpoint(endpoint: &endpoint::Endpoint, loads: &Loads) -> Endpoint {
    let pod = endpoint.pod.as_ref();
    Endpoint {
        address: endpoint.address,
        namespace: pod.map(|pod| pod.namespace.to_string()),
        pod: pod.map(|pod| pod.name.to_string()),
        workload: pod.and_then(|pod| pod.workload.as_ref()).map(ToString::to_string),
        identity: endpoint.identity.as_ref().map(ToString::to_string),
        load: loads.get(endpoint).cloned(),
    }
}

fn inbound(known: InboundSummary) -> Inbound {
    Inbound {
        version: known.version,
        age_seconds: known.age.as_secs_f64(),
        ports: known.policy.ports.iter().map(|(number, policy)| port(Some(*number), policy)).collect(),
        default: port(None, &known.policy.default),
    }
}

fn port(number: Option<u16>, policy: &PortPolicy) -> Port {
    let rules = policy.rules.iter().map(|rule| {
        let action = match rule.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        };
        format!("{action} {}", rule.name)
    });
    Port {
        port: number,
        protocol: policy.protocol.as_str().to_owned(),
        default_policy: policy.default.as_str().to_owned(),
        rules: rules.collect(),
    }
}

/// RFC 3339, to the second; nothing where the year is beyond the calendar.
fn utc(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
