//! A controller that does what a test says: real gRPC over real TLS, certificates by script, streams by hand.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use mesh_proto::{
    client::{Certified, Certify},
    config::{ControllerMessage, Holding, Key, PROTOCOL_VERSION, ProxyMessage, Update, Value},
    identity::Identity,
    outcome::Outcome,
    server::{self, ConfigService, IdentityService, Peer, ProxyMessages, Refusal},
    trust::TrustBundle,
};
use mesh_proxy::tls::peer_identity;
use mesh_runtime::{tasks::Tasks, tls};
use parking_lot::Mutex;
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::CertificateDer;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::TlsAcceptor;

use super::SOON;
use crate::authority::{Authority, Issued};

/// Its identity, as contracts §5 has it.
pub(crate) const CONTROLLER: &str = "spiffe://cluster.local/ns/mesh-system/sa/mesh-controller";

/// What it answers to a certificate request.
#[derive(Clone)]
pub(crate) enum Signs {
    /// A certificate for so long.
    For(Duration),
    /// A certificate for somebody else.
    SomebodyElse(Arc<Authority>),
    /// Nothing, for this reason.
    Not(Outcome),
}

/// A running controller; its end is the value's.
pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    /// What it answers to the next certificate request.
    pub(crate) signs: Arc<Mutex<Signs>>,
    /// Tokens that were shown to it, one after the other.
    pub(crate) tokens: mpsc::UnboundedReceiver<String>,
    sessions: mpsc::UnboundedReceiver<Session>,
    tasks: Tasks,
}

/// One stream, in the test's hand.
pub(crate) struct Session {
    /// Who showed which certificate.
    pub(crate) identity: Identity,
    said: mpsc::Receiver<ProxyMessage>,
    says: mpsc::Sender<Result<ControllerMessage, Refusal>>,
}

impl Controller {
    /// On a free port, as itself.
    pub(crate) async fn start(authority: &Arc<Authority>) -> Self {
        let leaf = authority.issue(CONTROLLER, |_| {});
        Self::start_at("127.0.0.1:0".parse().unwrap(), authority, leaf).await
    }

    /// On this port, showing this certificate.
    pub(crate) async fn start_at(address: SocketAddr, authority: &Arc<Authority>, leaf: Issued) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let signs = Arc::new(Mutex::new(Signs::For(Duration::from_hours(24))));
        let (token, tokens) = mpsc::unbounded_channel();
        let (session, sessions) = mpsc::unbounded_channel();
        let tasks = Tasks::new();
        let script =
            Script { authority: authority.clone(), signs: signs.clone(), token, session, tasks: tasks.clone() };
        let script = Arc::new(script);
        let routes = server::controller(script.clone(), script).into_axum_router();
        let acceptor = TlsAcceptor::from(Arc::new(tls_config(authority, leaf)));
        let (accepting, cancelled) = (tasks.clone(), tasks.cancelled());
        let serve = async move {
            loop {
                let (tcp, peer) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let connection = serve(acceptor.clone(), tcp, peer, routes.clone(), accepting.clone());
                let cancelled = accepting.cancelled();
                accepting.spawn("connection", async move {
                    tokio::select! {
                        () = connection => {}
                        () = cancelled => {}
                    }
                });
            }
        };
        tasks.spawn("controller", async move {
            tokio::select! {
                () = serve => {}
                () = cancelled => {}
            }
        });
        Self { address, signs, tokens, sessions, tasks }
    }

    /// The next stream that a proxy opens.
    pub(crate) async fn session(&mut self) -> Session {
        tokio::time::timeout(SOON, self.sessions.recv()).await.expect("a proxy opens a stream").unwrap()
    }

    /// The same, with its hello accepted.
    pub(crate) async fn welcomed(&mut self) -> Session {
        let mut session = self.session().await;
        session.welcome().await;
        session
    }

    /// The next certificate request's token.
    pub(crate) async fn token(&mut self) -> String {
        tokio::time::timeout(SOON, self.tokens.recv()).await.expect("a proxy asks for a certificate").unwrap()
    }

    /// Gone, with every connection.
    pub(crate) async fn stop(self) {
        assert!(self.tasks.shutdown(SOON).await.is_clean());
    }
}

impl Session {
    /// What the proxy says next.
    pub(crate) async fn said(&mut self) -> ProxyMessage {
        tokio::time::timeout(SOON, self.said.recv()).await.expect("the proxy says something").unwrap()
    }

    /// Accepts the hello, and reads the subscriptions of every proxy.
    pub(crate) async fn welcome(&mut self) {
        assert!(matches!(self.said().await, ProxyMessage::Hello(_)));
        let (controller_version, protocol_version) = ("test".into(), PROTOCOL_VERSION);
        self.says.send(Ok(ControllerMessage::Welcome { controller_version, protocol_version })).await.unwrap();
        assert_eq!(self.said().await, ProxyMessage::Subscribe(Key::Inbound));
        assert_eq!(self.said().await, ProxyMessage::Subscribe(Key::TrustBundle));
    }

    /// Sends an update.
    pub(crate) async fn update(&self, key: Key, version: u64, value: Value) {
        self.says.send(Ok(ControllerMessage::Update(Update { key, version, value }))).await.unwrap();
    }

    /// Says who still sends to the pod.
    pub(crate) async fn holding(&self, holding: Holding) {
        self.says.send(Ok(ControllerMessage::Holding(holding))).await.unwrap();
    }

    /// Sends an update that the proxy takes.
    pub(crate) async fn taken(&mut self, key: Key, version: u64, value: Value) {
        self.update(key, version, value).await;
        assert_eq!(self.said().await, ProxyMessage::Ack { key, version });
    }
}

/// What only a controller does with an authority.
impl Authority {
    /// Its root as text.
    pub(crate) fn pem(&self) -> String {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let text = BASE64_STANDARD.encode(&self.root);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    /// Signs a request as it stands, for so long.
    pub(crate) fn sign(&self, csr: &[u8], life: Duration) -> CertificateDer<'static> {
        let mut request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        request.params.not_after = (SystemTime::now() + life).into();
        request.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        request.signed_by(&self.issuer).unwrap().der().clone()
    }
}

/// The client certificate is optional in TLS; every method checks for itself (contracts §5).
fn tls_config(authority: &Authority, (chain, key): Issued) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    for root in authority.bundle().roots {
        roots.add(root.to_vec().into()).unwrap();
    }
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), tls::provider());
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(tls::TLS13)
        .unwrap()
        .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn serve(
    acceptor: TlsAcceptor,
    tcp: tokio::net::TcpStream,
    address: SocketAddr,
    routes: axum::Router,
    tasks: Tasks,
) {
    // A proxy that does not believe us breaks off here.
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    let identity = peer_identity(tls.get_ref().1.peer_certificates()).ok();
    let service = TowerToHyperService::new(routes.layer(axum::Extension(Peer { address, identity })));
    let server = hyper::server::conn::http2::Builder::new(tasks.executor("stream"));
    let _ = server.serve_connection(TokioIo::new(tls), service).await;
}

struct Script {
    authority: Arc<Authority>,
    signs: Arc<Mutex<Signs>>,
    token: mpsc::UnboundedSender<String>,
    session: mpsc::UnboundedSender<Session>,
    tasks: Tasks,
}

impl IdentityService for Script {
    async fn certify(&self, certify: Certify) -> Result<Certified, Refusal> {
        let _ = self.token.send(certify.token);
        let signs = self.signs.lock().clone();
        let trust_bundle: TrustBundle = self.authority.bundle();
        match signs {
            Signs::For(life) => {
                let leaf = self.authority.sign(&certify.csr, life);
                Ok(Certified { chain: vec![leaf.as_ref().to_vec().into()], trust_bundle })
            }
            Signs::SomebodyElse(authority) => {
                let (chain, _) = authority.issue("spiffe://cluster.local/ns/shop/sa/somebody-else", |_| {});
                Ok(Certified { chain: vec![chain[0].as_ref().to_vec().into()], trust_bundle: authority.bundle() })
            }
            Signs::Not(outcome) => Err(Refusal::new(outcome, "as the test says")),
        }
    }
}

impl ConfigService for Script {
    async fn connect(
        &self,
        _address: SocketAddr,
        identity: Identity,
        mut messages: ProxyMessages,
    ) -> Result<mpsc::Receiver<Result<ControllerMessage, Refusal>>, Refusal> {
        let (says, to_proxy) = mpsc::channel(64);
        let (from_proxy, said) = mpsc::channel(64);
        self.tasks.spawn("what a proxy says", async move {
            while let Ok(Some(message)) = messages.next().await {
                if from_proxy.send(message).await.is_err() {
                    return;
                }
            }
        });
        let _ = self.session.send(Session { identity, said, says });
        Ok(to_proxy)
    }
}
