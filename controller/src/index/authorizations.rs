//! AuthorizationPolicy -> facts. Called by [`super::Facts`]; pure.
//!
//! What cannot be understood never lets anybody in (contracts §7). A malformed client of an Allow matches nobody; of a
//! Deny it may have meant anybody, so that everyone is denied. [`Clients`] keeps nobody and everyone apart.

use std::{collections::BTreeMap, sync::Arc};

use mesh_proto::{
    crd::{AuthorizationPolicy, PolicyAction, PolicySource, TargetKind},
    identity::Identity,
    inbound::{Action, ClientMatch},
};

use super::{Converted, Name, pods::PodFacts, services::ServiceFacts};

/// Most entries of one policy, ports times clients: each is in the message of every pod that it protects.
const MOST_ENTRIES: usize = 16_384;
/// Most ports of one policy.
const MOST_PORTS: usize = 1024;

/// What matters of an AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationFacts {
    /// Namespace and name.
    pub name: Name,
    /// Pods of its namespace that it protects.
    pub targets: Vec<Target>,
    /// What it does.
    pub action: Action,
    /// Container ports; empty means all.
    pub ports: Vec<u16>,
    /// To whom.
    pub clients: Clients,
}

/// Pods of the policy's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All.
    Namespace,
    /// Those that a Service picks.
    Service(Name),
    /// Those with these labels.
    Labels(BTreeMap<String, String>),
}

/// Whom a policy is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// Every client, meshed or not.
    Everyone,
    /// Whoever any of these matches; nobody if there is none.
    These(Vec<ClientMatch>),
}

impl AuthorizationFacts {
    /// Whether it protects `pod`. `service` looks a Service up.
    pub fn protects<'a>(&self, pod: &PodFacts, service: impl Fn(&Name) -> Option<&'a ServiceFacts>) -> bool {
        pod.name.namespace == self.name.namespace
            && self.targets.iter().any(|target| match target {
                Target::Namespace => true,
                Target::Service(name) => service(name).is_some_and(|service| service.selects(&pod.labels)),
                Target::Labels(labels) => super::selects(labels, &pod.labels),
            })
    }
}

pub(super) fn facts(policy: &AuthorizationPolicy) -> Converted<AuthorizationFacts> {
    let mut problems = Vec::new();
    let name = Name::of(&policy.metadata);
    let spec = &policy.spec;
    let mut targets = Vec::new();
    for target in &spec.target_refs {
        match (target.kind, target.group.as_str()) {
            (_, group) if !group.is_empty() && group != "core" => {
                problems.push(format!("targetRefs: {group}/{:?} is nothing a policy can be attached to", target.kind));
            }
            (TargetKind::Namespace, _) if target.name == *name.namespace => targets.push(Target::Namespace),
            (TargetKind::Namespace, _) => {
                problems.push(format!("targetRefs: namespace {} is not the policy's own", target.name));
            }
            (TargetKind::Service, _) => targets.push(Target::Service(Name::new(&name.namespace, &target.name))),
        }
    }
    if let Some(selector) = &spec.selector {
        targets.push(Target::Labels(selector.match_labels.clone()));
    } else if spec.target_refs.is_empty() {
        targets.push(Target::Namespace);
    }
    if targets.is_empty() {
        problems.push("not in force: it has no target that it could be attached to, so it protects nothing".into());
    }
    let action = match spec.action {
        PolicyAction::Allow => Action::Allow,
        PolicyAction::Deny => Action::Deny,
    };
    let mut malformed = Vec::new();
    let these = spec.from.iter().flat_map(|source| matches(source, &name, &mut malformed)).collect();
    let clients = match action {
        _ if spec.from.is_empty() => Clients::Everyone,
        Action::Deny if !malformed.is_empty() => Clients::Everyone,
        Action::Allow | Action::Deny => Clients::These(these),
    };
    let mut ports = spec.ports.clone();
    let entries = ports.len().max(1) * spec.from.iter().map(entries).sum::<usize>().max(1);
    let clients = if entries > MOST_ENTRIES || ports.len() > MOST_PORTS {
        problems.push(format!(
            "{} ports for {} clients are more than {MOST_ENTRIES} entries, or more than {MOST_PORTS} ports: write \
             several policies; until then {}",
            ports.len(),
            entries / ports.len().max(1),
            match action {
                Action::Allow => "it lets nobody in",
                Action::Deny => "it denies everyone",
            }
        ));
        ports.truncate(if ports.len() > MOST_PORTS { 0 } else { MOST_PORTS });
        match action {
            Action::Allow => Clients::These(Vec::new()),
            Action::Deny => Clients::Everyone,
        }
    } else {
        clients
    };
    let meaning = match action {
        Action::Allow => "it matches nobody",
        Action::Deny => "it may mean anybody, so everyone is denied",
    };
    problems.extend(malformed.into_iter().map(|reason| format!("{reason}; {meaning}")));
    Converted { facts: AuthorizationFacts { name, targets, action, ports, clients }, problems }
}

fn entries(source: &PolicySource) -> usize {
    source.service_accounts.len() + source.namespaces.len() + source.identities.len()
}

/// Clients of an entry; none where it stands for one that could not be read ([`crate::source::stand_in`]).
fn matches(source: &PolicySource, policy: &Name, malformed: &mut Vec<String>) -> Vec<ClientMatch> {
    let mut clients = Vec::new();
    for account in &source.service_accounts {
        let (namespace, name) = account.split_once('/').unwrap_or((&policy.namespace, account));
        match Identity::new("any", namespace, name) {
            Ok(_) => clients.push(ClientMatch::ServiceAccount { namespace: namespace.into(), name: name.into() }),
            Err(error) => malformed.push(format!("from.serviceAccounts: {error}")),
        }
    }
    for namespace in &source.namespaces {
        match Identity::new("any", namespace, "any") {
            Ok(_) => clients.push(ClientMatch::Namespace(Arc::from(namespace.as_str()))),
            Err(error) => malformed.push(format!("from.namespaces: {error}")),
        }
    }
    for identity in &source.identities {
        match identity.parse() {
            Ok(identity) => clients.push(ClientMatch::Identity(identity)),
            Err(error) => malformed.push(format!("from.identities: {error}")),
        }
    }
    clients
}
