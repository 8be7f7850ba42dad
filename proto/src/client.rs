//! The services as a caller sees them: domain types in and out over a [`Channel`] that the caller has connected.
//!
//! Proxies use [`IdentityClient`] and [`ConfigClient`]; `meshctl` uses [`TapClient`]. Knows no addresses, no TLS and no
//! reconnecting.

use bytes::Bytes;
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming, transport::Channel};

use crate::{
    config::{ControllerMessage, Key, ProxyMessage},
    identity::Identity,
    names,
    outcome::Outcome,
    tap::{TapEvent, TapFilter},
    trust::TrustBundle,
    wire,
};

/// A call that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{call}: {message}{}", .outcome.map(|outcome| format!(" [{outcome}]")).unwrap_or_default())]
pub struct CallError {
    /// Name of the call.
    pub call: &'static str,
    /// The code that the server gave, where it refused; none where it could not be reached or broke off.
    pub outcome: Option<Outcome>,
    /// What the server or the transport said.
    pub message: String,
}

impl CallError {
    fn new(call: &'static str, status: &Status) -> Self {
        let code = status.metadata().get(names::HEADER_ERROR).and_then(|value| value.to_str().ok());
        let mut message = status.message().to_owned();
        let mut source = std::error::Error::source(status);
        while let Some(error) = source {
            message = format!("{message}: {error}");
            source = error.source();
        }
        Self { call, outcome: code.and_then(Outcome::from_code), message }
    }

    fn unusable(call: &'static str, error: &wire::WireError) -> Self {
        Self { call, outcome: None, message: format!("the answer cannot be used: {error}") }
    }
}

/// Asks for certificates.
#[derive(Debug, Clone)]
pub struct IdentityClient(wire::identity_client::IdentityClient<Channel>);

/// What a proxy asks to be certified.
#[derive(Debug, Clone)]
pub struct Certify {
    /// Bootstrap proof.
    pub token: String,
    /// The identity asked for.
    pub identity: Identity,
    /// PKCS#10, DER.
    pub csr: Bytes,
}

/// A certificate, as the controller signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// DER, leaf first, without the root. Never empty.
    pub chain: Vec<Bytes>,
    /// The roots in force.
    pub trust_bundle: TrustBundle,
}

impl IdentityClient {
    /// Over a connected channel.
    pub fn new(channel: Channel) -> Self {
        Self(wire::identity_client::IdentityClient::new(channel))
    }

    /// Has a certificate request signed.
    pub async fn certify(&mut self, certify: Certify) -> Result<Certified, CallError> {
        const CALL: &str = "certify";
        let request =
            wire::CertifyRequest { token: certify.token, identity: certify.identity.to_string(), csr: certify.csr };
        let answer = self.0.certify(request).await.map_err(|status| CallError::new(CALL, &status))?.into_inner();
        if answer.chain.is_empty() {
            return Err(CallError::unusable(CALL, &wire::WireError::Missing("chain")));
        }
        let bundle = answer.trust_bundle.ok_or(wire::WireError::Missing("trust_bundle"));
        let trust_bundle = bundle.and_then(TryInto::try_into).map_err(|error| CallError::unusable(CALL, &error))?;
        Ok(Certified { chain: answer.chain, trust_bundle })
    }
}

/// Opens configuration streams.
#[derive(Debug, Clone)]
pub struct ConfigClient(wire::config_client::ConfigClient<Channel>);

impl ConfigClient {
    /// Over a connected channel.
    pub fn new(channel: Channel) -> Self {
        Self(wire::config_client::ConfigClient::new(channel))
    }

    /// Opens the stream. `messages` is what the proxy says, a hello first; dropping its sender ends the stream.
    pub async fn connect(
        &mut self,
        messages: tokio::sync::mpsc::Receiver<ProxyMessage>,
    ) -> Result<ConfigStream, CallError> {
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(messages).map(wire::ProxyMessage::from);
        let incoming =
            self.0.stream(outgoing).await.map_err(|status| CallError::new("configuration stream", &status))?;
        Ok(ConfigStream(incoming.into_inner()))
    }
}

/// What the controller says, message by message.
#[derive(Debug)]
pub struct ConfigStream(Streaming<wire::ControllerMessage>);

/// One thing read from a [`ConfigStream`].
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// Understood.
    Message(ControllerMessage),
    /// An update that cannot be used: reject it by key and version, and keep the last good one.
    Unusable {
        /// Its key.
        key: Key,
        /// Its version.
        version: u64,
        /// Why, for the reject and the log.
        reason: String,
    },
}

impl ConfigStream {
    /// The next message; none where the controller ended the stream in order.
    pub async fn next(&mut self) -> Result<Option<Incoming>, CallError> {
        const CALL: &str = "configuration stream";
        let Some(message) = self.0.message().await.map_err(|status| CallError::new(CALL, &status))? else {
            return Ok(None);
        };
        match wire::read_controller(message).map_err(|error| CallError::unusable(CALL, &error))? {
            wire::Read::Message(message) => Ok(Some(Incoming::Message(message))),
            wire::Read::Unusable { key, version, error } => {
                Ok(Some(Incoming::Unusable { key, version, reason: error.to_string() }))
            }
        }
    }
}

/// Watches the live traffic of one proxy.
#[derive(Debug, Clone)]
pub struct TapClient(wire::tap_client::TapClient<Channel>);

impl TapClient {
    /// Over a channel connected to the proxy's admin listener.
    pub fn new(channel: Channel) -> Self {
        Self(wire::tap_client::TapClient::new(channel))
    }

    /// Starts to watch.
    pub async fn watch(&mut self, filter: TapFilter) -> Result<TapStream, CallError> {
        let stream = self.0.watch(wire::TapRequest::from(filter)).await;
        Ok(TapStream(stream.map_err(|status| CallError::new("tap", &status))?.into_inner()))
    }
}

/// Events of one proxy.
#[derive(Debug)]
pub struct TapStream(Streaming<wire::TapEvent>);

impl TapStream {
    /// The next event; none where the proxy ended the stream in order.
    pub async fn next(&mut self) -> Result<Option<TapEvent>, CallError> {
        let Some(event) = self.0.message().await.map_err(|status| CallError::new("tap", &status))? else {
            return Ok(None);
        };
        event.try_into().map(Some).map_err(|error| CallError::unusable("tap", &error))
    }
}
