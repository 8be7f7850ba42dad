//! The proxy's credentials and the TLS configurations made from them, swapped as a whole on renewal.
//!
//! The data path asks for a configuration at every handshake; a connection made before a renewal lives on. Nothing here
//! asks for certificates: that is `identity`. The identity of an endpoint is compared by whoever dialled it.

pub mod verify;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use mesh_proto::{identity::Identity, names, trust::TrustBundle};
use mesh_runtime::tls;
use rustls::{ClientConfig, ServerConfig, client::Resumption, server::NoServerSessionStorage};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

pub use verify::{PeerIdentityError, peer_identity};
use verify::{PeerVerifier, Roots, UnusableRoots};

/// What two proxies agree to speak on a connection (contracts §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/1 requests.
    Http1,
    /// HTTP/2 requests.
    H2,
    /// Bytes.
    Tcp,
    /// Not known yet.
    Detect,
}

impl Alpn {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http1, Self::H2, Self::Tcp, Self::Detect];

    /// As in the handshake.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Http1 => names::ALPN_HTTP1,
            Self::H2 => names::ALPN_H2,
            Self::Tcp => names::ALPN_TCP,
            Self::Detect => names::ALPN_DETECT,
        }
    }

    /// One of ours, or none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|alpn| alpn.as_bytes() == bytes)
    }
}

/// What the controller's gRPC speaks.
const ALPN_GRPC: &[u8] = b"h2";

/// The pod's certificate and what follows from it. Clones share it.
#[derive(Debug, Clone)]
pub struct Credentials {
    identity: Identity,
    current: Arc<ArcSwapOption<Current>>,
    generation: Arc<watch::Sender<u64>>,
}

/// There is no certificate that could be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoCertificate {
    /// None was received yet.
    #[error("the proxy has received no certificate yet")]
    NotYet,
    /// The last one has expired.
    #[error("the proxy's certificate has expired")]
    Expired,
}

/// Why a certificate was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The roots are no certificates.
    #[error(transparent)]
    Roots(#[from] UnusableRoots),
    /// The certificate is not one of this pod.
    #[error("the certificate is not this pod's: {0}")]
    Identity(String),
    /// Certificate and key do not fit, or rustls does not take them.
    #[error("the certificate cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Facts about the certificate in force, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Serial number in hexadecimal.
    pub serial: String,
    /// Distinguished name of whoever signed it.
    pub issuer: String,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
}

#[derive(Debug)]
struct Current {
    mesh: [Arc<ClientConfig>; 4],
    controller: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    facts: CertificateFacts,
}

impl Credentials {
    /// None yet, for a pod with this identity.
    pub fn new(identity: Identity) -> Self {
        Self { identity, current: Arc::default(), generation: Arc::default() }
    }

    /// The pod's own identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Puts a certificate and the roots into force for every handshake from now on.
    pub fn install(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundle: &TrustBundle,
    ) -> Result<CertificateFacts, InstallError> {
        let current = Current::new(&self.identity, chain, key, bundle)?;
        let facts = current.facts.clone();
        self.current.store(Some(Arc::new(current)));
        self.generation.send_modify(|generation| *generation += 1);
        Ok(facts)
    }

    /// Puts other roots into force, with the certificate that is there. Nothing happens where there is none yet.
    pub fn trust(&self, bundle: &TrustBundle) -> Result<(), InstallError> {
        if let Some(current) = self.current.load_full() {
            self.install(current.chain.clone(), current.key.clone_key(), bundle)?;
        }
        Ok(())
    }

    /// To dial a peer proxy: offers exactly this ALPN, shows our certificate, and takes any identity of the trust domain
    /// (the caller compares it with the endpoint's).
    pub fn client(&self, alpn: Alpn) -> Result<Arc<ClientConfig>, NoCertificate> {
        let place = Alpn::ALL.iter().position(|one| *one == alpn).unwrap_or_default();
        self.valid().map(|current| Arc::clone(&current.mesh[place]))
    }

    /// To dial the controller with our certificate.
    pub fn controller(&self) -> Result<Arc<ClientConfig>, NoCertificate> {
        self.valid().map(|current| Arc::clone(&current.controller))
    }

    /// To answer a peer proxy.
    pub fn server(&self) -> Result<Arc<ServerConfig>, NoCertificate> {
        self.valid().map(|current| Arc::clone(&current.server))
    }

    /// Facts about the certificate in force; also of one that has expired.
    pub fn facts(&self) -> Option<CertificateFacts> {
        self.current.load().as_ref().map(|current| current.facts.clone())
    }

    /// Waits until there is a certificate.
    pub async fn until_certified(&self) {
        let mut generation = self.generation.subscribe();
        // The sender is in `self`, so it cannot be gone.
        let _ = generation.wait_for(|generation| *generation > 0).await;
    }

    /// Grows with every installed certificate and every change of roots.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    fn valid(&self) -> Result<Arc<Current>, NoCertificate> {
        let current = self.current.load_full().ok_or(NoCertificate::NotYet)?;
        if SystemTime::now() > current.facts.not_after {
            return Err(NoCertificate::Expired);
        }
        Ok(current)
    }
}

impl Current {
    fn new(
        identity: &Identity,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundle: &TrustBundle,
    ) -> Result<Self, InstallError> {
        match peer_identity(Some(&chain)) {
            Ok(own) if own == *identity => {}
            Ok(other) => return Err(InstallError::Identity(format!("it is for {other}, we are {identity}"))),
            Err(error) => return Err(InstallError::Identity(error.to_string())),
        }
        let facts = CertificateFacts::read(&chain[0]).map_err(InstallError::Identity)?;
        let verifier = Arc::new(PeerVerifier::new(Roots::new(bundle)?));
        let client = |alpn: &[u8]| -> Result<Arc<ClientConfig>, rustls::Error> {
            let mut config = client_builder(&verifier)?.with_client_auth_cert(chain.clone(), key.clone_key())?;
            harden(&mut config, alpn);
            Ok(Arc::new(config))
        };
        let [http1, h2, tcp, detect] = Alpn::ALL.map(|alpn| client(alpn.as_bytes()));
        let mesh = [http1?, h2?, tcp?, detect?];
        let controller = client(ALPN_GRPC)?;
        let mut server = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(tls::TLS13)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols = Alpn::ALL.map(|alpn| alpn.as_bytes().to_vec()).into();
        // Resumption would skip the check of the client's certificate (design §5).
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { mesh, controller, server: Arc::new(server), chain, key, facts })
    }
}

/// To dial the controller before there is a certificate: it must still prove to be the controller.
pub fn bootstrap(bundle: &TrustBundle) -> Result<ClientConfig, InstallError> {
    let verifier = Arc::new(PeerVerifier::new(Roots::new(bundle)?));
    let mut config = client_builder(&verifier)?.with_no_client_auth();
    harden(&mut config, ALPN_GRPC);
    Ok(config)
}

fn client_builder(
    verifier: &Arc<PeerVerifier>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(tls::TLS13)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(verifier) as _))
}

/// Names go nowhere in the clear, and nothing is resumed.
fn harden(config: &mut ClientConfig, alpn: &[u8]) {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
}

impl CertificateFacts {
    fn read(leaf: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, certificate) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
        let time = |time: x509_parser::time::ASN1Time| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
        };
        Ok(Self {
            serial: certificate.raw_serial_as_string(),
            issuer: certificate.issuer().to_string(),
            not_before: time(certificate.validity().not_before),
            not_after: time(certificate.validity().not_after),
        })
    }
}
