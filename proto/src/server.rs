//! The services as traits to implement, and the one place that decides who may call them.
//!
//! The listener puts a [`Peer`] on every connection (`tonic`'s `ConnectInfo`). `Certify` takes a token and nothing else;
//! every other method of the controller's port needs a client certificate, checked per call (contracts §5). Tap has no
//! caller identity: its listener is loopback.

use std::{future::Future, net::SocketAddr, sync::Arc};

use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    client::{Certified, Certify},
    config::{ControllerMessage, ProxyMessage},
    identity::Identity,
    names,
    outcome::Outcome,
    tap::{TapEvent, TapFilter},
    wire,
};

/// Who is at the other end of a connection, as TLS proved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The identity of its client certificate, if it showed one.
    pub identity: Option<Identity>,
}

/// A call that is refused, with its code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{outcome}: {detail}")]
pub struct Refusal {
    /// The code.
    pub outcome: Outcome,
    /// What exactly was wrong, for people. No secrets.
    pub detail: String,
}

impl Refusal {
    /// With a detail.
    pub fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { outcome, detail: detail.into() }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let facts = refusal.outcome.facts();
        let mut status = Self::new(Code::from_i32(facts.grpc_status.into()), refusal.detail);
        status.metadata_mut().insert(names::HEADER_ERROR, tonic::metadata::MetadataValue::from_static(facts.code));
        status
    }
}

/// Signs certificate requests.
pub trait IdentityService: Send + Sync + 'static {
    /// Answers a request; the token is the only proof.
    fn certify(&self, certify: Certify) -> impl Future<Output = Result<Certified, Refusal>> + Send;
}

/// Talks to proxies.
pub trait ConfigService: Send + Sync + 'static {
    /// Serves one proxy. Returns what it is told; ends with the stream, with a refusal, or when the returned channel
    /// closes.
    fn connect(
        &self,
        address: SocketAddr,
        identity: Identity,
        messages: ProxyMessages,
    ) -> impl Future<Output = Result<mpsc::Receiver<Result<ControllerMessage, Refusal>>, Refusal>> + Send;
}

/// Shows live traffic.
pub trait TapService: Send + Sync + 'static {
    /// Starts to watch; dropping the receiver ends it.
    fn watch(&self, filter: TapFilter) -> impl Future<Output = Result<mpsc::Receiver<TapEvent>, Refusal>> + Send;
}

/// What a proxy says, message by message.
#[derive(Debug)]
pub struct ProxyMessages(Streaming<wire::ProxyMessage>);

impl ProxyMessages {
    /// The next message; none at the end. A message that cannot be understood ends the stream with an error.
    pub async fn next(&mut self) -> Result<Option<ProxyMessage>, Refusal> {
        let bad = |detail: String| Refusal::new(Outcome::BadRequest, detail);
        let Some(message) = self.0.message().await.map_err(|status| bad(status.message().to_owned()))? else {
            return Ok(None);
        };
        message.try_into().map(Some).map_err(|error: wire::WireError| bad(error.to_string()))
    }
}

/// Largest message that the controller reads, in bytes: tokens, certificate requests and reasons are a few KiB, and who
/// calls `Certify` is a stranger until the token is checked.
const LARGEST_MESSAGE: usize = 64 * 1024;

/// The gRPC services of the controller's port, ready to be served.
pub fn controller<I: IdentityService, C: ConfigService>(identity: Arc<I>, config: Arc<C>) -> tonic::service::Routes {
    let identity = wire::identity_server::IdentityServer::new(IdentityAdapter(identity));
    let config = wire::config_server::ConfigServer::new(ConfigAdapter(config));
    tonic::service::Routes::new(identity.max_decoding_message_size(LARGEST_MESSAGE))
        .add_service(config.max_decoding_message_size(LARGEST_MESSAGE))
}

/// The gRPC service of a proxy's loopback admin listener.
pub fn tap<T: TapService>(tap: Arc<T>) -> tonic::service::Routes {
    tonic::service::Routes::new(wire::tap_server::TapServer::new(TapAdapter(tap)))
}

struct IdentityAdapter<S>(Arc<S>);

#[tonic::async_trait]
impl<S: IdentityService> wire::identity_server::Identity for IdentityAdapter<S> {
    async fn certify(&self, request: Request<wire::CertifyRequest>) -> Result<Response<wire::CertifyResponse>, Status> {
        let request = request.into_inner();
        let identity: Identity = request
            .identity
            .parse()
            .map_err(|error| Refusal::new(Outcome::IdentityMismatch, format!("identity asked for: {error}")))?;
        let certify = Certify { token: request.token, identity, csr: request.csr };
        let certified = self.0.certify(certify).await?;
        Ok(Response::new(wire::CertifyResponse {
            chain: certified.chain,
            trust_bundle: Some(certified.trust_bundle.into()),
        }))
    }
}

struct ConfigAdapter<S>(Arc<S>);

#[tonic::async_trait]
impl<S: ConfigService> wire::config_server::Config for ConfigAdapter<S> {
    type StreamStream = Outgoing<wire::ControllerMessage>;

    async fn stream(
        &self,
        request: Request<Streaming<wire::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (address, identity) = authenticate(&request)?;
        let messages = self.0.connect(address, identity, ProxyMessages(request.into_inner())).await?;
        let messages = ReceiverStream::new(messages);
        let messages = messages.map(|message| message.map(Into::into).map_err(Status::from));
        Ok(Response::new(Box::pin(messages)))
    }
}

/// The one interceptor: who calls, by certificate, for every method that is not `Certify`.
fn authenticate<T>(request: &Request<T>) -> Result<(SocketAddr, Identity), Refusal> {
    let peer = request.extensions().get::<Peer>();
    match peer.map(|peer| (peer.address, peer.identity.clone())) {
        Some((address, Some(identity))) => Ok((address, identity)),
        _ => Err(Refusal::new(Outcome::ClientCertificateRequired, "the connection has no client certificate")),
    }
}

struct TapAdapter<S>(Arc<S>);

#[tonic::async_trait]
impl<S: TapService> wire::tap_server::Tap for TapAdapter<S> {
    type WatchStream = Outgoing<wire::TapEvent>;

    async fn watch(&self, request: Request<wire::TapRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let filter = request
            .into_inner()
            .try_into()
            .map_err(|error: wire::WireError| Refusal::new(Outcome::BadRequest, error.to_string()))?;
        Ok(Response::new(outgoing(self.0.watch(filter).await?)))
    }
}

type Outgoing<W> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<W, Status>> + Send>>;

fn outgoing<D: Send + 'static, W: From<D> + 'static>(messages: mpsc::Receiver<D>) -> Outgoing<W> {
    Box::pin(ReceiverStream::new(messages).map(|message| Ok(message.into())))
}
