//! The controller's port: TLS 1.3, a client certificate checked where one is shown, limits on everything.
//!
//! Hands [`Connection`]s to tonic, each with its [`Peer`]. Who may call what is decided per call, in
//! [`mesh_proto::server`].

mod budget;

use std::{
    collections::HashMap,
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use mesh_proto::{identity::Identity, outcome::Outcome, server::Peer};
use mesh_runtime::{serve, tasks::Tasks, tls};
use parking_lot::Mutex;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    time::Sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use self::budget::{Budget, Place, Stage};
use crate::{
    ca::{Authority, CaError, OwnCertificate, issuer},
    metrics::Metrics,
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection without a client certificate lives: one call that is answered within half of this.
const STRANGER: Duration = Duration::from_mins(1);
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
        let live = Arc::new(Live {
            certificate: ArcSwap::from_pointee(certified(authority.own_certificate()?)?),
            clients: ArcSwap::from_pointee(clients(authority)?),
            changed: Notify::new(),
        });
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

/// The certificate of the moment and the roots that clients are verified with.
#[derive(Debug)]
pub struct Live {
    certificate: ArcSwap<CertifiedKey>,
    clients: ArcSwap<Arc<dyn ClientCertVerifier>>,
    changed: Notify,
}

impl Live {
    /// Takes over the roots and the issuer of an authority that changed.
    pub fn follow(&self, authority: &Authority) -> Result<(), TlsError> {
        self.clients.store(Arc::new(clients(authority)?));
        self.changed.notify_one();
        Ok(())
    }

    /// Renews the certificate at 70 % of its life and when the authority changes, for ever.
    pub async fn renew(self: Arc<Self>, authority: Arc<Authority>) {
        let (renew, again) = (authority.leaf_lifetime().mul_f64(0.7), authority.leaf_lifetime().mul_f64(0.05));
        let mut wait = renew;
        loop {
            // In time or earlier.
            let _ = tokio::time::timeout(wait, self.changed.notified()).await;
            wait = match authority.own_certificate().map_err(TlsError::from).and_then(certified) {
                Ok(key) => {
                    self.certificate.store(Arc::new(key));
                    renew
                }
                Err(error) => {
                    tracing::error!(%error, "renewal of the controller's own certificate");
                    again
                }
            };
        }
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certificate.load_full())
    }
}

/// As [`WebPkiClientVerifier`] does with the roots of the moment.
impl ClientCertVerifier for Live {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Every proxy has one certificate: there is nothing to choose.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.clients.load().verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.load().verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.load().verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.load().supported_verify_schemes()
    }
}

/// Verifies clients with the roots of an authority; a client may show no certificate.
fn clients(authority: &Authority) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let unusable = |error: &dyn std::fmt::Display| TlsError::Config(error.to_string());
    let mut roots = RootCertStore::empty();
    for root in authority.trust_bundle().roots {
        roots.add(root.to_vec().into()).map_err(|error| unusable(&error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| unusable(&error))
}

fn certified(own: OwnCertificate) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(own.chain, own.key, &tls::provider()).map_err(|error| TlsError::Config(error.to_string()))
}

/// Open connections, by the peer's address, so that one can be cut from outside.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<HashMap<SocketAddr, CancellationToken>>>);

impl Connections {
    /// Ends the connection of a peer, whatever is on its way.
    pub fn cut(&self, peer: SocketAddr) {
        if let Some(token) = self.0.lock().get(&peer) {
            token.cancel();
        }
    }

    fn add(&self, tls: TlsStream<TcpStream>, peer: Peer, place: Place) -> Connection {
        let token = CancellationToken::new();
        self.0.lock().insert(peer.address, token.clone());
        let cut = Box::pin(token.cancelled_owned());
        let end = peer.identity.is_none().then(|| Box::pin(tokio::time::sleep(STRANGER)));
        Connection { tls, cut, end, peer, connections: self.clone(), _place: place }
    }
}

/// One connection after its handshake.
pub struct Connection {
    tls: TlsStream<TcpStream>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When a stranger has had its time.
    end: Option<Pin<Box<Sleep>>>,
    peer: Peer,
    connections: Connections,
    _place: Place,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.0.lock().remove(&self.peer.address);
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The one place to look: whoever serves the connection always waits to read.
        let over = self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if over || self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::store::Store;

    #[tokio::test(start_paused = true)]
    async fn the_controllers_own_certificate_is_renewed_at_70_percent_of_its_life() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let authority = Arc::new(Authority::open(&store, None, "cluster.local", Duration::from_mins(100)).unwrap());
        let live = Port::new(&authority).unwrap().live();
        let renew = Arc::clone(&live).renew(authority);
        tokio::pin!(renew);
        let first = live.certificate.load_full();
        // Polled until then, at 69 and 71 minutes of the paused clock, and once more a life later.
        assert!(tokio::time::timeout(Duration::from_mins(69), &mut renew).await.is_err());
        assert!(Arc::ptr_eq(&first, &live.certificate.load_full()));
        assert!(tokio::time::timeout(Duration::from_mins(2), &mut renew).await.is_err());
        let second = live.certificate.load_full();
        assert_ne!(first.cert, second.cert);
        assert!(tokio::time::timeout(Duration::from_mins(70), &mut renew).await.is_err());
        assert_ne!(second.cert, live.certificate.load_full().cert);
    }
}
