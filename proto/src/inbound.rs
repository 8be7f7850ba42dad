//! What a proxy enforces on connections to its pod, and the decision itself.
//!
//! The evaluator is pure, so that proxy, controller and `meshctl` cannot differ. It knows no sockets: the caller
//! says who the client is.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use crate::{identity::Identity, workload::Protocol};

/// Policy of one pod, by port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundPolicy {
    /// Ports with a setting of their own.
    pub ports: BTreeMap<u16, PortPolicy>,
    /// Every other port.
    pub default: PortPolicy,
}

impl InboundPolicy {
    /// The policy in force on `port`.
    pub fn port(&self, port: u16) -> &PortPolicy {
        self.ports.get(&port).unwrap_or(&self.default)
    }
}

/// Policy of one port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortPolicy {
    /// What the port was declared to speak.
    pub protocol: Protocol,
    /// In force where no Allow rule selects the port.
    pub default: DefaultPolicy,
    /// Enforced rules that select the port, in order of name.
    pub rules: Vec<Rule>,
}

/// Who is let in where no rule says otherwise (annotation `meshctl.dev/default-policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DefaultPolicy {
    /// Everyone.
    #[default]
    Allow,
    /// Whoever has an identity of the mesh.
    Authenticated,
    /// Whoever has an identity of the pod's own namespace.
    SameNamespace,
    /// Nobody.
    Deny,
    /// Everyone, but what `Authenticated` would refuse is counted and logged.
    Audit,
}

impl DefaultPolicy {
    /// Every value, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Allow, Self::Authenticated, Self::SameNamespace, Self::Deny, Self::Audit];

    /// As written in the annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Authenticated => "authenticated",
            Self::SameNamespace => "same-namespace",
            Self::Deny => "deny",
            Self::Audit => "audit",
        }
    }
}

/// Not one of the default policies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a default policy: allow, authenticated, same-namespace, deny or audit")]
pub struct UnknownDefaultPolicy(pub String);

impl FromStr for DefaultPolicy {
    type Err = UnknownDefaultPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownDefaultPolicy> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| UnknownDefaultPolicy(text.chars().take(64).collect()))
    }
}

/// One AuthorizationPolicy as far as it concerns a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `namespace/name` of the AuthorizationPolicy.
    pub name: Arc<str>,
    /// What it does to the clients it matches.
    pub action: Action,
    /// Matches when any does; empty matches everyone, meshed or not.
    pub clients: Vec<ClientMatch>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Lets in; a port with an Allow rule denies everyone whom none matches.
    Allow,
    /// Refuses; wins over Allow.
    Deny,
}

/// Which clients a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClientMatch {
    /// Exactly this identity.
    Identity(Identity),
    /// A service account, in the trust domain of the pod.
    ServiceAccount {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// Any service account of this namespace, in the trust domain of the pod.
    Namespace(Arc<str>),
}

impl ClientMatch {
    fn matches(&self, server: &Identity, client: &Identity) -> bool {
        match self {
            Self::Identity(identity) => identity == client,
            Self::ServiceAccount { namespace, name } => {
                client.trust_domain() == server.trust_domain()
                    && client.namespace() == &**namespace
                    && client.service_account() == &**name
            }
            Self::Namespace(namespace) => {
                client.trust_domain() == server.trust_domain() && client.namespace() == &**namespace
            }
        }
    }
}

/// The decision, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let in.
    Allow(Basis),
    /// Let in, though `Authenticated` would refuse: to be counted.
    Audit,
    /// Refused.
    Deny(Basis),
}

/// What a verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// The rule of this name.
    Rule(Arc<str>),
    /// The default policy.
    Default(DefaultPolicy),
    /// The port has Allow rules and none matches.
    NoRuleMatches,
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(name) => write!(f, "authorization policy {name}"),
            Self::Default(policy) => write!(f, "default policy {}", policy.as_str()),
            Self::NoRuleMatches => f.write_str("no authorization policy of this port allows the client"),
        }
    }
}

impl PortPolicy {
    /// Decides on a connection to a pod with identity `server` from `client` (none: not meshed). Deny wins; an Allow
    /// rule that selects the port turns its default into deny (contracts §7).
    pub fn authorize(&self, server: &Identity, client: Option<&Identity>) -> Verdict {
        let matching = |action: Action| {
            self.rules.iter().find(|rule| {
                rule.action == action
                    && (rule.clients.is_empty()
                        || client.is_some_and(|client| rule.clients.iter().any(|m| m.matches(server, client))))
            })
        };
        if let Some(rule) = matching(Action::Deny) {
            return Verdict::Deny(Basis::Rule(rule.name.clone()));
        }
        if let Some(rule) = matching(Action::Allow) {
            return Verdict::Allow(Basis::Rule(rule.name.clone()));
        }
        if self.rules.iter().any(|rule| rule.action == Action::Allow) {
            return Verdict::Deny(Basis::NoRuleMatches);
        }
        let same_domain = client.filter(|client| client.trust_domain() == server.trust_domain());
        let allowed = match self.default {
            DefaultPolicy::Allow => true,
            DefaultPolicy::Authenticated | DefaultPolicy::Audit => client.is_some(),
            DefaultPolicy::SameNamespace => same_domain.is_some_and(|c| c.namespace() == server.namespace()),
            DefaultPolicy::Deny => false,
        };
        match (allowed, self.default) {
            (true, policy) => Verdict::Allow(Basis::Default(policy)),
            (false, DefaultPolicy::Audit) => Verdict::Audit,
            (false, policy) => Verdict::Deny(Basis::Default(policy)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(namespace: &str, account: &str) -> Identity {
        Identity::new("cluster.local", namespace, account).unwrap()
    }

    fn rule(name: &str, action: Action, clients: Vec<ClientMatch>) -> Rule {
        Rule { name: name.into(), action, clients }
    }

    fn account(namespace: &str, name: &str) -> ClientMatch {
        ClientMatch::ServiceAccount { namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn a_default_decides_where_no_rule_selects_the_port() {
        let (server, near, far) = (id("shop", "web"), id("shop", "load"), id("other", "load"));
        let foreign = Identity::new("elsewhere", "shop", "load").unwrap();
        for (default, nobody, near_ok, far_ok, foreign_ok) in [
            (DefaultPolicy::Allow, true, true, true, true),
            (DefaultPolicy::Authenticated, false, true, true, true),
            (DefaultPolicy::SameNamespace, false, true, false, false),
            (DefaultPolicy::Deny, false, false, false, false),
        ] {
            let port = PortPolicy { default, ..PortPolicy::default() };
            for (client, allowed) in
                [(None, nobody), (Some(&near), near_ok), (Some(&far), far_ok), (Some(&foreign), foreign_ok)]
            {
                let verdict = port.authorize(&server, client);
                assert_eq!(matches!(verdict, Verdict::Allow(_)), allowed, "{default:?} {client:?} {verdict:?}");
            }
        }
        let audit = PortPolicy { default: DefaultPolicy::Audit, ..PortPolicy::default() };
        assert_eq!(audit.authorize(&server, None), Verdict::Audit);
        assert!(matches!(audit.authorize(&server, Some(&far)), Verdict::Allow(_)));
    }

    #[test]
    fn an_allow_rule_denies_everyone_it_does_not_match() {
        let port = PortPolicy {
            rules: vec![
                rule("shop/a", Action::Allow, vec![account("shop", "web"), ClientMatch::Namespace("ops".into())]),
                rule("shop/b", Action::Allow, vec![ClientMatch::Identity(id("x", "y"))]),
            ],
            ..PortPolicy::default()
        };
        let server = id("shop", "stock");
        let by = |name: &str| Verdict::Allow(Basis::Rule(name.into()));
        for (client, verdict) in [
            (Some(id("shop", "web")), by("shop/a")),
            (Some(id("ops", "any")), by("shop/a")),
            (Some(id("x", "y")), by("shop/b")),
            (Some(id("shop", "load")), Verdict::Deny(Basis::NoRuleMatches)),
            (Some(Identity::new("elsewhere", "shop", "web").unwrap()), Verdict::Deny(Basis::NoRuleMatches)),
            (None, Verdict::Deny(Basis::NoRuleMatches)),
        ] {
            assert_eq!(port.authorize(&server, client.as_ref()), verdict, "{client:?}");
        }
    }

    #[test]
    fn deny_wins_over_allow_and_an_empty_client_list_matches_everyone() {
        let server = id("shop", "web");
        let mut port = PortPolicy {
            rules: vec![rule("a", Action::Allow, vec![]), rule("b", Action::Deny, vec![account("shop", "load")])],
            ..PortPolicy::default()
        };
        assert_eq!(port.authorize(&server, Some(&id("shop", "load"))), Verdict::Deny(Basis::Rule("b".into())));
        assert_eq!(port.authorize(&server, None), Verdict::Allow(Basis::Rule("a".into())));
        port.rules.push(rule("c", Action::Deny, vec![]));
        assert_eq!(port.authorize(&server, None), Verdict::Deny(Basis::Rule("c".into())));
    }

    #[test]
    fn a_deny_rule_alone_keeps_the_default_for_the_rest() {
        let port =
            PortPolicy { rules: vec![rule("b", Action::Deny, vec![account("shop", "load")])], ..PortPolicy::default() };
        assert_eq!(port.authorize(&id("shop", "web"), None), Verdict::Allow(Basis::Default(DefaultPolicy::Allow)));
    }
}
