//! The controller's port: TLS 1.3, a client certificate checked where one is shown, limits on everything.
//!
//! Hands [`Connection`]s to tonic, each with its [`Peer`]. Who may call what is decided per call, in
//! [`mesh_proto::server`].

mod budget;
mod connections;
mod live;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use mesh_proto::{identity::Identity, outcome::Outcome, server::Peer};
use mesh_runtime::{serve, tasks::Tasks, tls};
use rustls::{
    ServerConfig,
    server::{ResolvesServerCert, danger::ClientCertVerifier},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::budget::{Budget, Stage};
pub use self::{
    connections::{Connection, Connections},
    live::Live,
};
use crate::{
    ca::{Authority, CaError, issuer},
    metrics::Metrics,
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Finished handshakes that wait to be served.
const READY: usize = 64;

/// Why the port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate of its own.
    #[error("certify the controller itself: {0}")]
    Ca(#[from] CaError),
    /// The certificate or the roots cannot be used.
    #[error("configure TLS: {0}")]
    Config(String),
}

/// The configuration of the port, with a certificate that can be renewed under it.
pub struct Port {
    live: Arc<Live>,
    config: Arc<ServerConfig>,
    trust_domain: String,
}

impl Port {
    /// With a certificate of its own from `authority`.
    pub fn new(authority: &Authority) -> Result<Self, TlsError> {
        let live = Arc::new(Live::new(authority)?);
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(tls::TLS13)
            .map_err(|error| TlsError::Config(error.to_string()))?
            .with_client_cert_verifier(Arc::clone(&live) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::clone(&live) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would skip the check of the client's certificate.
        config.send_tls13_tickets = 0;
        let trust_domain = authority.trust_bundle().trust_domain;
        Ok(Self { live, config: Arc::new(config), trust_domain })
    }

    /// What changes under the port.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Accepts for as long as the receiver of connections lives.
    pub fn listen(
        self,
        listener: TcpListener,
        tasks: &Tasks,
        connections: Connections,
        metrics: Metrics,
    ) -> mpsc::Receiver<io::Result<Connection>> {
        let (ready, receiver) = mpsc::channel(READY);
        let (acceptor, trust_domain) = (TlsAcceptor::from(self.config), Arc::<str>::from(self.trust_domain));
        let budget = Budget::default();
        let own = tasks.clone();
        tasks.spawn("controller accept", async move {
            loop {
                let (tcp, address) = tokio::select! {
                    accepted = serve::accept(&listener) => accepted,
                    () = ready.closed() => return,
                };
                let Some(place) = budget.take(address.ip(), Stage::Handshake) else {
                    refuse(&metrics, address);
                    continue;
                };
                // Best effort: without it a message waits for an acknowledgement of the one before.
                let _ = tcp.set_nodelay(true);
                let (acceptor, trust_domain) = (acceptor.clone(), Arc::clone(&trust_domain));
                let (ready, connections) = (ready.clone(), connections.clone());
                let (budget, metrics) = (budget.clone(), metrics.clone());
                own.spawn("controller handshake", async move {
                    match tokio::time::timeout(HANDSHAKE, handshake(&acceptor, tcp, address, &trust_domain)).await {
                        Ok(Ok((tls, peer))) => {
                            let stage = if peer.identity.is_some() { Stage::Member } else { Stage::Stranger };
                            drop(place);
                            match budget.take(address.ip(), stage) {
                                // Nobody to serve it any more: the process is going.
                                Some(place) => {
                                    let _ = ready.send(Ok(connections.add(tls, peer, place))).await;
                                }
                                None => refuse(&metrics, address),
                            }
                        }
                        Ok(Err(reason)) => tracing::debug!(%address, %reason, "handshake"),
                        Err(_) => tracing::debug!(%address, "handshake: not done within {HANDSHAKE:?}"),
                    }
                });
            }
        });
        receiver
    }
}

fn refuse(metrics: &Metrics, address: SocketAddr) {
    metrics.refused("connect", Outcome::Overloaded);
    tracing::debug!(%address, "connection refused: too many connections, in all or from this address");
}

async fn handshake(
    acceptor: &TlsAcceptor,
    tcp: TcpStream,
    address: SocketAddr,
    trust_domain: &str,
) -> Result<(TlsStream<TcpStream>, Peer), String> {
    let tls = acceptor.accept(tcp).await.map_err(|error| error.to_string())?;
    let identity = match tls.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        None => None,
        Some(leaf) => Some(client(leaf, trust_domain)?),
    };
    Ok((tls, Peer { address, identity }))
}

fn client(leaf: &[u8], trust_domain: &str) -> Result<Identity, String> {
    let identity = issuer::identity_of(leaf)?;
    if identity.trust_domain() != trust_domain {
        return Err(format!("{identity} is not of the trust domain {trust_domain}"));
    }
    Ok(identity)
}
