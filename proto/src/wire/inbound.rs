//! Inbound policies, to and from the wire.

use std::collections::BTreeMap;

use super::{WireError, port, required};
use crate::{
    inbound::{Action, ClientMatch, DefaultPolicy, InboundPolicy, PortPolicy, Rule},
    workload::Protocol,
};

impl From<InboundPolicy> for super::InboundPolicy {
    fn from(policy: InboundPolicy) -> Self {
        Self {
            ports: policy.ports.into_iter().map(|(port, policy)| port_policy(port, policy)).collect(),
            default: Some(port_policy(0, policy.default)),
        }
    }
}

impl TryFrom<super::InboundPolicy> for InboundPolicy {
    type Error = WireError;

    fn try_from(wire: super::InboundPolicy) -> Result<Self, WireError> {
        let mut ports = BTreeMap::new();
        for policy in wire.ports {
            let number = port(policy.port, "inbound.ports.port")?;
            if ports.insert(number, policy.try_into()?).is_some() {
                return Err(WireError::invalid("inbound.ports", format!("{number} appears twice")));
            }
        }
        Ok(Self { ports, default: required(wire.default, "inbound.default")?.try_into()? })
    }
}

fn port_policy(port: u16, policy: PortPolicy) -> super::PortPolicy {
    super::PortPolicy {
        port: port.into(),
        protocol: super::Protocol::from(policy.protocol).into(),
        default: super::DefaultPolicy::from(policy.default).into(),
        rules: policy.rules.into_iter().map(Into::into).collect(),
    }
}

impl TryFrom<super::PortPolicy> for PortPolicy {
    type Error = WireError;

    fn try_from(wire: super::PortPolicy) -> Result<Self, WireError> {
        Ok(Self {
            protocol: wire.protocol().try_into()?,
            default: wire.default().try_into()?,
            rules: wire.rules.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<Protocol> for super::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Detect => Self::Detect,
            Protocol::Http1 => Self::Http1,
            Protocol::Http2 => Self::Http2,
            Protocol::Grpc => Self::Grpc,
            Protocol::Opaque => Self::Opaque,
            Protocol::Tls => Self::Tls,
        }
    }
}

impl TryFrom<super::Protocol> for Protocol {
    type Error = WireError;

    fn try_from(wire: super::Protocol) -> Result<Self, WireError> {
        Ok(match wire {
            super::Protocol::Unspecified => return Err(WireError::Missing("protocol")),
            super::Protocol::Detect => Self::Detect,
            super::Protocol::Http1 => Self::Http1,
            super::Protocol::Http2 => Self::Http2,
            super::Protocol::Grpc => Self::Grpc,
            super::Protocol::Opaque => Self::Opaque,
            super::Protocol::Tls => Self::Tls,
        })
    }
}

impl From<DefaultPolicy> for super::DefaultPolicy {
    fn from(policy: DefaultPolicy) -> Self {
        match policy {
            DefaultPolicy::Allow => Self::Allow,
            DefaultPolicy::Authenticated => Self::Authenticated,
            DefaultPolicy::SameNamespace => Self::SameNamespace,
            DefaultPolicy::Deny => Self::Deny,
            DefaultPolicy::Audit => Self::Audit,
        }
    }
}

impl TryFrom<super::DefaultPolicy> for DefaultPolicy {
    type Error = WireError;

    fn try_from(wire: super::DefaultPolicy) -> Result<Self, WireError> {
        Ok(match wire {
            // Also what an unknown number reads as: never guessed to be Allow.
            super::DefaultPolicy::Unspecified => return Err(WireError::Missing("default")),
            super::DefaultPolicy::Allow => Self::Allow,
            super::DefaultPolicy::Authenticated => Self::Authenticated,
            super::DefaultPolicy::SameNamespace => Self::SameNamespace,
            super::DefaultPolicy::Deny => Self::Deny,
            super::DefaultPolicy::Audit => Self::Audit,
        })
    }
}

impl From<Rule> for super::AuthorizationRule {
    fn from(rule: Rule) -> Self {
        let action = match rule.action {
            Action::Allow => super::Action::Allow,
            Action::Deny => super::Action::Deny,
        };
        Self {
            name: rule.name.to_string(),
            action: action.into(),
            clients: rule.clients.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<super::AuthorizationRule> for Rule {
    type Error = WireError;

    fn try_from(wire: super::AuthorizationRule) -> Result<Self, WireError> {
        let action = match wire.action() {
            super::Action::Unspecified => return Err(WireError::Missing("rule.action")),
            super::Action::Allow => Action::Allow,
            super::Action::Deny => Action::Deny,
        };
        Ok(Self {
            name: wire.name.into(),
            action,
            clients: wire.clients.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<ClientMatch> for super::ClientMatch {
    fn from(client: ClientMatch) -> Self {
        use super::client_match::Match;
        let one = match client {
            ClientMatch::Identity(identity) => Match::Identity(identity.to_string()),
            ClientMatch::ServiceAccount { namespace, name } => Match::ServiceAccount(super::ServiceAccount {
                namespace: namespace.to_string(),
                name: name.to_string(),
            }),
            ClientMatch::Namespace(namespace) => Match::Namespace(namespace.to_string()),
        };
        Self { r#match: Some(one) }
    }
}

impl TryFrom<super::ClientMatch> for ClientMatch {
    type Error = WireError;

    fn try_from(wire: super::ClientMatch) -> Result<Self, WireError> {
        use super::client_match::Match;
        Ok(match required(wire.r#match, "client.match")? {
            Match::Identity(text) => {
                Self::Identity(text.parse().map_err(|error| WireError::invalid("client.identity", error))?)
            }
            Match::ServiceAccount(account) => {
                Self::ServiceAccount { namespace: account.namespace.into(), name: account.name.into() }
            }
            Match::Namespace(namespace) => Self::Namespace(namespace.into()),
        })
    }
}
