//! The conversation on the configuration stream, as values.
//!
//! A proxy says hello, subscribes to keys, and acknowledges or rejects every versioned update. Transport is
//! [`crate::client`] and [`crate::server`].

use std::net::SocketAddr;

use crate::{inbound::InboundPolicy, outbound::OutboundPolicy, trust::TrustBundle};

/// Version of the messages of this release. One minor release of skew is accepted both ways (contracts §5).
pub const PROTOCOL_VERSION: u32 = 1;

/// What can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The inbound policy of the pod that said hello (never of another one).
    Inbound,
    /// Where traffic to this original destination goes.
    Outbound(SocketAddr),
    /// The roots of trust.
    TrustBundle,
}

/// From the proxy.
#[derive(Debug, Clone, PartialEq)]
pub enum ProxyMessage {
    /// The first message.
    Hello(Hello),
    /// Starts updates of a key.
    Subscribe(Key),
    /// Ends them.
    Unsubscribe(Key),
    /// This version is in force.
    Ack {
        /// The key.
        key: Key,
        /// The version.
        version: u64,
    },
    /// This version could not be used; the last good one stays in force.
    Reject {
        /// The key.
        key: Key,
        /// The version.
        version: u64,
        /// Why, for people.
        reason: String,
    },
    /// The proxy has begun to drain.
    DrainStarted {
        /// Whether it reads [`ControllerMessage::Holding`]: the stream of an older one would end with it.
        reads_holding: bool,
    },
}

/// Who the proxy is. The certificate proves the service account; the controller checks the rest (contracts §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// Name of the pod.
    pub pod_name: String,
    /// Uid of the pod.
    pub pod_uid: String,
    /// Release of the proxy.
    pub proxy_version: String,
    /// [`PROTOCOL_VERSION`] of the proxy.
    pub protocol_version: u32,
}

/// From the controller.
#[derive(Debug, Clone, PartialEq)]
pub enum ControllerMessage {
    /// The answer to a hello that was accepted.
    Welcome {
        /// Release of the controller.
        controller_version: String,
        /// [`PROTOCOL_VERSION`] of the controller.
        protocol_version: u32,
    },
    /// A new value of a key.
    Update(Update),
    /// Who still sends to the pod, which drains.
    Holding(Holding),
}

/// Who still sends to a pod that drains, as far as its controller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Whether a Service still leads to the pod.
    pub offered: bool,
    /// Once none does: proxies that have not acknowledged it.
    pub clients: u32,
}

impl Holding {
    /// Nobody does.
    pub const NOBODY: Self = Self { offered: false, clients: 0 };
}

/// A new value of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The key.
    pub key: Key,
    /// Grows with every update of the key within one life of the controller.
    pub version: u64,
    /// The value, of the key's kind.
    pub value: Value,
}

/// What is published under a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of [`Key::Inbound`].
    Inbound(InboundPolicy),
    /// Of [`Key::Outbound`].
    Outbound(OutboundPolicy),
    /// Of [`Key::TrustBundle`].
    TrustBundle(TrustBundle),
}

impl Value {
    /// Whether it is a value that belongs under `key`.
    pub fn fits(&self, key: &Key) -> bool {
        matches!(
            (self, key),
            (Self::Inbound(_), Key::Inbound)
                | (Self::Outbound(_), Key::Outbound(_))
                | (Self::TrustBundle(_), Key::TrustBundle)
        )
    }
}
