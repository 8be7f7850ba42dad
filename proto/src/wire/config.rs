//! The configuration conversation, to and from the wire.

use super::{WireError, controller_message, key, proxy_message, required, update};
use crate::config::{ControllerMessage, Hello, Holding, Key, ProxyMessage, Update, Value};

impl From<Key> for super::Key {
    fn from(key: Key) -> Self {
        let key = match key {
            Key::Inbound => key::Key::Inbound(super::Empty {}),
            Key::Outbound(address) => key::Key::Outbound(address.into()),
            Key::TrustBundle => key::Key::TrustBundle(super::Empty {}),
        };
        Self { key: Some(key) }
    }
}

impl TryFrom<super::Key> for Key {
    type Error = WireError;

    fn try_from(wire: super::Key) -> Result<Self, WireError> {
        Ok(match required(wire.key, "key")? {
            key::Key::Inbound(super::Empty {}) => Self::Inbound,
            key::Key::Outbound(address) => Self::Outbound(address.try_into()?),
            key::Key::TrustBundle(super::Empty {}) => Self::TrustBundle,
        })
    }
}

impl From<ProxyMessage> for super::ProxyMessage {
    fn from(message: ProxyMessage) -> Self {
        use proxy_message::Message;
        let message = match message {
            ProxyMessage::Hello(hello) => Message::Hello(super::Hello {
                pod_namespace: hello.pod_namespace,
                pod_name: hello.pod_name,
                pod_uid: hello.pod_uid,
                proxy_version: hello.proxy_version,
                protocol_version: hello.protocol_version,
            }),
            ProxyMessage::Subscribe(key) => Message::Subscribe(key.into()),
            ProxyMessage::Unsubscribe(key) => Message::Unsubscribe(key.into()),
            ProxyMessage::Ack { key, version } => Message::Ack(super::Ack { key: Some(key.into()), version }),
            ProxyMessage::Reject { key, version, reason } => {
                Message::Reject(super::Reject { key: Some(key.into()), version, reason })
            }
            ProxyMessage::DrainStarted { reads_holding } => {
                Message::DrainStarted(super::DrainStarted { reads_holding })
            }
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<super::ProxyMessage> for ProxyMessage {
    type Error = WireError;

    fn try_from(wire: super::ProxyMessage) -> Result<Self, WireError> {
        use proxy_message::Message;
        Ok(match required(wire.message, "message")? {
            Message::Hello(hello) => Self::Hello(Hello {
                pod_namespace: hello.pod_namespace,
                pod_name: hello.pod_name,
                pod_uid: hello.pod_uid,
                proxy_version: hello.proxy_version,
                protocol_version: hello.protocol_version,
            }),
            Message::Subscribe(key) => Self::Subscribe(key.try_into()?),
            Message::Unsubscribe(key) => Self::Unsubscribe(key.try_into()?),
            Message::Ack(ack) => Self::Ack { key: required(ack.key, "ack.key")?.try_into()?, version: ack.version },
            Message::Reject(reject) => Self::Reject {
                key: required(reject.key, "reject.key")?.try_into()?,
                version: reject.version,
                reason: reject.reason,
            },
            Message::DrainStarted(super::DrainStarted { reads_holding }) => Self::DrainStarted { reads_holding },
        })
    }
}

impl From<ControllerMessage> for super::ControllerMessage {
    fn from(message: ControllerMessage) -> Self {
        use controller_message::Message;
        let message = match message {
            ControllerMessage::Welcome { controller_version, protocol_version } => {
                Message::Welcome(super::Welcome { controller_version, protocol_version })
            }
            ControllerMessage::Update(Update { key, version, value }) => {
                let value = match value {
                    Value::Inbound(policy) => update::Value::Inbound(policy.into()),
                    Value::Outbound(policy) => update::Value::Outbound(policy.into()),
                    Value::TrustBundle(bundle) => update::Value::TrustBundle(bundle.into()),
                };
                Message::Update(super::Update { key: Some(key.into()), version, value: Some(value) })
            }
            ControllerMessage::Holding(Holding { offered, clients }) => {
                Message::Holding(super::Holding { offered, clients })
            }
        };
        Self { message: Some(message) }
    }
}

/// What a proxy reads: a message, or an update it can name and therefore reject.
pub(crate) fn read_controller(wire: super::ControllerMessage) -> Result<Read, WireError> {
    use controller_message::Message;
    match required(wire.message, "message")? {
        Message::Welcome(super::Welcome { controller_version, protocol_version }) => {
            Ok(Read::Message(ControllerMessage::Welcome { controller_version, protocol_version }))
        }
        Message::Holding(super::Holding { offered, clients }) => {
            Ok(Read::Message(ControllerMessage::Holding(Holding { offered, clients })))
        }
        Message::Update(wire) => {
            let key: Key = required(wire.key, "update.key")?.try_into()?;
            let version = wire.version;
            Ok(match value(wire.value).and_then(|value| check_fit(value, &key)) {
                Ok(value) => Read::Message(ControllerMessage::Update(Update { key, version, value })),
                Err(error) => Read::Unusable { key, version, error },
            })
        }
    }
}

/// See [`read_controller`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Read {
    /// Understood.
    Message(ControllerMessage),
    /// An update whose value is not: to be rejected by key and version.
    Unusable {
        /// The key.
        key: Key,
        /// The version.
        version: u64,
        /// Why.
        error: WireError,
    },
}

fn value(wire: Option<update::Value>) -> Result<Value, WireError> {
    Ok(match required(wire, "update.value")? {
        update::Value::Inbound(policy) => Value::Inbound(policy.try_into()?),
        update::Value::Outbound(policy) => Value::Outbound(policy.try_into()?),
        update::Value::TrustBundle(bundle) => Value::TrustBundle(bundle.try_into()?),
    })
}

fn check_fit(value: Value, key: &Key) -> Result<Value, WireError> {
    if value.fits(key) { Ok(value) } else { Err(WireError::invalid("update.value", "it is not of the key's kind")) }
}
