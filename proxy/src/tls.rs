//! The proxy's certificate and roots of trust, and the TLS configurations that follow from them.
//!
//! [`crate::identity`] installs certificates, [`crate::policy::client`] new roots; the data path asks for a configuration
//! per connection and never sees a key. A renewal swaps what is handed out next: connections made before live on. Who may
//! connect is decided by [`verify`]; which peer is expected is the caller's business ([`peer_identity`]).

pub mod verify;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use mesh_proto::{identity::Identity, names, trust::TrustBundle};
use mesh_runtime::tls::{TLS13, provider};
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::sync::watch;

pub use verify::{PeerIdentityError, Roots, RootsError, peer_identity};

/// What two proxies say that a connection carries (contracts §2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Alpn {
    /// HTTP/1 requests, many at once: see [`crate::mux`].
    Mux,
    /// HTTP/1 requests.
    Http1,
    /// HTTP/2 requests.
    H2,
    /// Bytes.
    Tcp,
    /// Not known yet: both ends detect.
    Detect,
}

impl Alpn {
    /// Every one. Of those that a client offers, a server takes the first.
    pub const ALL: [Self; 5] = [Self::Mux, Self::Http1, Self::H2, Self::Tcp, Self::Detect];

    /// As on the wire.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Mux => names::ALPN_MUX,
            Self::Http1 => names::ALPN_HTTP1,
            Self::H2 => names::ALPN_H2,
            Self::Tcp => names::ALPN_TCP,
            Self::Detect => names::ALPN_DETECT,
        }
    }

    /// What a client that wants it offers: a proxy of an earlier release does not know all.
    pub fn offers(self) -> &'static [Self] {
        match self {
            Self::Mux => &[Self::Mux, Self::Http1],
            Self::Http1 => &[Self::Http1],
            Self::H2 => &[Self::H2],
            Self::Tcp => &[Self::Tcp],
            Self::Detect => &[Self::Detect],
        }
    }

    /// From the wire; none where it is not ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|alpn| alpn.as_bytes() == bytes)
    }
}

/// There is no certificate, or it has expired: nothing may be sent or accepted as this pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoCertificate {
    /// None was issued yet.
    #[error("no certificate was issued yet: the log says why, and meshctl identity shows it")]
    NotYet,
    /// It was not renewed in time.
    #[error("the certificate has expired: the log says why it is not renewed, and meshctl identity shows it")]
    Expired,
}

/// Why a certificate was not taken.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The roots cannot be used.
    #[error("use the roots of trust that came with the certificate: {0}")]
    Roots(#[from] RootsError),
    /// The chain is not one of this pod's identity, or its own roots do not vouch for it.
    #[error("use the certificate: {0}")]
    Chain(#[from] verify::Rejected),
    /// It proves somebody else.
    #[error("use the certificate: it is for {certified}, not for {own}")]
    OtherIdentity {
        /// Whom it proves.
        certified: Identity,
        /// Whom it should prove.
        own: Identity,
    },
    /// Key and certificate do not belong together, or TLS cannot use them.
    #[error("use the certificate with its key: {0}")]
    Key(#[from] rustls::Error),
}

/// What is known of the certificate in force. No secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whom it proves.
    pub identity: Identity,
    /// Serial number, hex.
    pub serial: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
}

/// The pod's identity with its certificate, shared by all parts. Cloning is a reference count.
#[derive(Clone)]
pub struct Credentials(Arc<Shared>);

struct Shared {
    identity: Identity,
    current: ArcSwapOption<InForce>,
    /// One writer at a time; wakes whoever waits for a certificate or roots.
    changed: watch::Sender<u64>,
}

/// A certificate with all that follows from it.
struct InForce {
    facts: CertificateFacts,
    key: Arc<CertifiedKey>,
    roots: Arc<Roots>,
    clients: [Arc<ClientConfig>; Alpn::ALL.len()],
    server: Arc<ServerConfig>,
}

impl Credentials {
    /// Of an identity, without a certificate yet.
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(Shared { identity, current: ArcSwapOption::empty(), changed: watch::Sender::new(0) }))
    }

    /// The pod's own identity.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Puts a certificate in force. `chain` is leaf first; it must prove this identity and be vouched for by `bundle`.
    pub fn install(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundle: &TrustBundle,
    ) -> Result<CertificateFacts, InstallError> {
        let roots = Arc::new(Roots::new(bundle)?);
        let certified = roots.verify(&chain, verify::Usage::Either, SystemTime::now())?;
        if certified != self.0.identity {
            return Err(InstallError::OtherIdentity { certified, own: self.0.identity.clone() });
        }
        let facts = verify::facts(&chain[0], certified)?;
        let key = Arc::new(CertifiedKey::from_der(chain, key, &provider())?);
        self.swap(InForce::new(facts.clone(), key, roots)?);
        Ok(facts)
    }

    /// Puts other roots in force, for connections from now on. Without a certificate there is nothing to change yet.
    pub fn set_roots(&self, roots: Arc<Roots>) -> Result<(), InstallError> {
        let Some(current) = self.0.current.load_full() else {
            return Ok(());
        };
        self.swap(InForce::new(current.facts.clone(), Arc::clone(&current.key), roots)?);
        Ok(())
    }

    /// For a connection to a peer that is offered this ALPN. The peer's chain is verified by the handshake; compare
    /// its [`peer_identity`] with the expected one after it.
    pub fn client(&self, alpn: Alpn) -> Result<Arc<ClientConfig>, NoCertificate> {
        Ok(Arc::clone(&self.in_force()?.clients[alpn as usize]))
    }

    /// For connections from peers: all ALPNs of ours, and a client certificate is a must.
    pub fn server(&self) -> Result<Arc<ServerConfig>, NoCertificate> {
        Ok(Arc::clone(&self.in_force()?.server))
    }

    /// The chain and key to show to the controller.
    pub(crate) fn certified_key(&self) -> Result<Arc<CertifiedKey>, NoCertificate> {
        Ok(Arc::clone(&self.in_force()?.key))
    }

    /// What is known of the certificate in force, also when it has expired.
    pub fn facts(&self) -> Option<CertificateFacts> {
        self.0.current.load().as_ref().map(|current| current.facts.clone())
    }

    /// Name for [`ClientConfig`]s, which must have one: the trust domain. It is neither sent nor verified.
    pub fn server_name(&self) -> ServerName<'static> {
        server_name(&self.0.identity)
    }

    /// Waits until there is a certificate.
    pub async fn until_certified(&self) {
        let mut changed = self.0.changed.subscribe();
        // The sender is in `self`, so it cannot be gone.
        let _ = changed.wait_for(|_| self.0.current.load().is_some()).await;
    }

    /// Marks every change of certificate or roots.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    fn in_force(&self) -> Result<Arc<InForce>, NoCertificate> {
        let current = self.0.current.load_full().ok_or(NoCertificate::NotYet)?;
        if current.facts.not_after <= SystemTime::now() {
            return Err(NoCertificate::Expired);
        }
        Ok(current)
    }

    fn swap(&self, next: InForce) {
        self.0.current.store(Some(Arc::new(next)));
        self.0.changed.send_modify(|change| *change += 1);
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.0.identity).field("facts", &self.facts()).finish()
    }
}

impl InForce {
    fn new(facts: CertificateFacts, key: Arc<CertifiedKey>, roots: Arc<Roots>) -> Result<Self, rustls::Error> {
        let client = client_config(Some(Arc::clone(&key)), verify::Servers::of_mesh(Arc::clone(&roots)))?;
        let clients = Alpn::ALL.map(|alpn| {
            let mut config = client.clone();
            config.alpn_protocols = alpn.offers().iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
            Arc::new(config)
        });
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(TLS13)?
            .with_client_cert_verifier(Arc::new(verify::Clients::of_mesh(Arc::clone(&roots))))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&key))));
        server.alpn_protocols = Alpn::ALL.map(|alpn| alpn.as_bytes().to_vec()).into();
        // A resumed session would skip the client's certificate.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { facts, key, roots, clients, server: Arc::new(server) })
    }
}

impl Credentials {
    /// The roots in force; none before the first certificate.
    pub fn roots(&self) -> Option<Arc<Roots>> {
        self.0.current.load().as_ref().map(|current| Arc::clone(&current.roots))
    }
}

/// The one shape of all our client configurations: TLS 1.3, no SNI, no resumption.
pub(crate) fn client_config(
    key: Option<Arc<CertifiedKey>>,
    servers: verify::Servers,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(TLS13)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers));
    let mut config = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A fixed name where rustls asks for one.
pub(crate) fn server_name(identity: &Identity) -> ServerName<'static> {
    let name = ServerName::try_from(identity.trust_domain()).ok().map(|name| name.to_owned());
    // A trust domain may be no DNS name ("a..b"); any other name does as well.
    name.unwrap_or_else(|| ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()))
}

/// Seconds since the epoch, as X.509 counts, as a time; before the epoch counts as the epoch.
fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpn_names_lead_back_and_are_in_the_order_of_their_configurations() {
        for (place, alpn) in Alpn::ALL.into_iter().enumerate() {
            assert_eq!(alpn as usize, place);
            assert_eq!(Alpn::from_bytes(alpn.as_bytes()), Some(alpn));
        }
        assert_eq!(Alpn::from_bytes(b"h2"), None);
    }
}
