//! Whether a certificate chain proves an identity of the mesh: the one place that decides it, for both directions.
//!
//! A chain is good when a root that is valid now vouches for it, its validity and extended key usage fit, and its leaf has
//! exactly one URI SAN, a SPIFFE id of the bundle's trust domain. Names are not looked at. Which identity is expected is
//! the caller's business, except for [`Servers::only`]. Pure but for the clock that rustls passes in.

use std::{fmt, sync::Arc, time::SystemTime};

use mesh_proto::{
    identity::{Identity, IdentityError},
    trust::TrustBundle,
};
use mesh_runtime::tls::provider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{CertificateFacts, at};

/// Most roots one bundle may have: two while one rotates, and some for other owners' mistakes.
const MAX_ROOTS: usize = 32;

/// The roots of a trust bundle, ready to verify with.
#[derive(Debug, Clone)]
pub struct Roots {
    bundle: TrustBundle,
    anchors: Vec<Anchor>,
    subjects: Vec<DistinguishedName>,
}

#[derive(Debug, Clone)]
struct Anchor {
    key: TrustAnchor<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
    subject: String,
}

/// Why a bundle cannot be used. The one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootsError {
    /// Nobody could be trusted.
    #[error("the bundle has no root")]
    None,
    /// More than a bundle may have.
    #[error("the bundle has {0} roots; at most {MAX_ROOTS} are taken")]
    TooMany(usize),
    /// One of them is no certificate.
    #[error("root {index} is no certificate: {reason}")]
    Malformed {
        /// Its place, from 0.
        index: usize,
        /// What the parser said.
        reason: String,
    },
    /// It is about somebody else.
    #[error("the bundle is of trust domain {bundle:?}, not of {own:?}")]
    OtherTrustDomain {
        /// Of the bundle.
        bundle: String,
        /// Of this pod.
        own: String,
    },
}

/// What a certificate is to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The one who answers.
    Server,
    /// The one who calls.
    Client,
    /// Our own, which must do for both.
    Either,
}

/// Why a chain does not prove an identity of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is no certificate.
    #[error("there is no certificate")]
    Missing,
    /// Its time is over.
    #[error("the certificate expired {} s ago", .0)]
    Expired(u64),
    /// Its time has not come: usually one of the two clocks is wrong.
    #[error("the certificate is valid only in {} s: compare the clocks of both machines", .0)]
    NotYetValid(u64),
    /// The root that vouches for it is not valid now.
    #[error("the root {subject:?} that vouches for the certificate has expired or is not valid yet")]
    RootNotValid {
        /// Subject of the root.
        subject: String,
    },
    /// None of the roots vouches for it.
    #[error("none of the {roots} root(s) of trust domain {trust_domain:?} vouches for the certificate")]
    UnknownIssuer {
        /// How many there are.
        roots: usize,
        /// Their trust domain.
        trust_domain: String,
    },
    /// Its extended key usage does not allow this.
    #[error("the certificate is not for this use (extended key usage)")]
    Purpose,
    /// No X.509, or a chain that does not hold together.
    #[error("the certificate chain is not valid: {0}")]
    Malformed(String),
    /// No identity in it.
    #[error(transparent)]
    Identity(#[from] PeerIdentityError),
    /// An identity of somebody else's mesh.
    #[error("{identity} is not of the trust domain {trust_domain:?}")]
    ForeignTrustDomain {
        /// Whom it proves.
        identity: Identity,
        /// Ours.
        trust_domain: String,
    },
    /// Another one than the only one expected.
    #[error("it proves {identity}, and {expected} is expected")]
    Unexpected {
        /// Whom it proves.
        identity: Identity,
        /// Whom it should.
        expected: Identity,
    },
}

/// Why a certificate names no identity of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerIdentityError {
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// Not X.509.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// A SPIFFE certificate has exactly one URI SAN (X509-SVID §2).
    #[error("the certificate has {0} URI SANs; an identity is exactly one")]
    NotOneUri(usize),
    /// The URI is no identity.
    #[error("the certificate's URI SAN is no identity: {0}")]
    Identity(#[from] IdentityError),
}

/// The identity that a verified peer proved.
pub fn peer_identity(certs: Option<&[CertificateDer<'_>]>) -> Result<Identity, PeerIdentityError> {
    let leaf = certs.and_then(<[_]>::first).ok_or(PeerIdentityError::NoCertificate)?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| PeerIdentityError::Malformed(error.to_string()))?;
    identity_of(&leaf)
}

fn identity_of(leaf: &X509Certificate<'_>) -> Result<Identity, PeerIdentityError> {
    let san = leaf.subject_alternative_name().map_err(|error| PeerIdentityError::Malformed(error.to_string()))?;
    let names = san.map(|san| san.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri.parse()?),
        (Some(_), others) => Err(PeerIdentityError::NotOneUri(others + 1)),
        (None, _) => Err(PeerIdentityError::NotOneUri(0)),
    }
}

/// What is known of a certificate whose identity was verified.
pub(super) fn facts(leaf: &CertificateDer<'_>, identity: Identity) -> Result<CertificateFacts, Rejected> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| Rejected::Malformed(error.to_string()))?;
    Ok(CertificateFacts {
        identity,
        serial: leaf.raw_serial_as_string(),
        issuer: leaf.issuer().to_string(),
        not_before: at(leaf.validity().not_before.timestamp()),
        not_after: at(leaf.validity().not_after.timestamp()),
    })
}

impl Roots {
    /// Reads a bundle.
    pub fn new(bundle: &TrustBundle) -> Result<Self, RootsError> {
        match bundle.roots.len() {
            0 => return Err(RootsError::None),
            many if many > MAX_ROOTS => return Err(RootsError::TooMany(many)),
            _ => {}
        }
        let read = bundle.roots.iter().enumerate().map(|(index, der)| {
            let (anchor, subject) = anchor(der).map_err(|reason| RootsError::Malformed { index, reason })?;
            Ok((anchor, DistinguishedName::from(subject)))
        });
        let (anchors, subjects) = read.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        Ok(Self { bundle: bundle.clone(), anchors, subjects })
    }

    /// As [`Roots::new`], and only where the bundle is of this trust domain.
    pub fn of_domain(bundle: &TrustBundle, own: &str) -> Result<Self, RootsError> {
        if bundle.trust_domain != own {
            return Err(RootsError::OtherTrustDomain { bundle: bundle.trust_domain.clone(), own: own.to_owned() });
        }
        Self::new(bundle)
    }

    /// The bundle they were read from.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// Subject and end of each root, for people.
    pub fn list(&self) -> impl Iterator<Item = (&str, SystemTime)> {
        self.anchors.iter().map(|anchor| (anchor.subject.as_str(), anchor.not_after))
    }

    /// The identity that a chain (leaf first) proves at `now`.
    pub fn verify(&self, chain: &[CertificateDer<'_>], usage: Usage, now: SystemTime) -> Result<Identity, Rejected> {
        let (leaf, intermediates) = chain.split_first().ok_or(Rejected::Missing)?;
        let (valid, not_valid): (Vec<_>, Vec<_>) =
            self.anchors.iter().partition(|anchor| anchor.not_before <= now && now < anchor.not_after);
        let anchors: Vec<_> = valid.iter().map(|anchor| anchor.key.clone()).collect();
        if let Err(error) = check(leaf, intermediates, &anchors, usage, now) {
            let vouches =
                |anchor: &&&Anchor| check(leaf, intermediates, std::slice::from_ref(&anchor.key), usage, now).is_ok();
            if let Some(root) = not_valid.iter().find(vouches) {
                return Err(Rejected::RootNotValid { subject: root.subject.clone() });
            }
            return Err(self.explain(&error, now));
        }
        let identity = peer_identity(Some(chain))?;
        if identity.trust_domain() != self.bundle.trust_domain {
            return Err(Rejected::ForeignTrustDomain { identity, trust_domain: self.bundle.trust_domain.clone() });
        }
        Ok(identity)
    }

    fn explain(&self, error: &webpki::Error, now: SystemTime) -> Rejected {
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()).as_secs();
        match error {
            webpki::Error::CertExpired { not_after, .. } => Rejected::Expired(now.saturating_sub(not_after.as_secs())),
            webpki::Error::CertNotValidYet { not_before, .. } => {
                Rejected::NotYetValid(not_before.as_secs().saturating_sub(now))
            }
            // The second: a root of the same name, with another key.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                Rejected::UnknownIssuer { roots: self.anchors.len(), trust_domain: self.bundle.trust_domain.clone() }
            }
            webpki::Error::RequiredEkuNotFoundContext(_) => Rejected::Purpose,
            other => Rejected::Malformed(other.to_string()),
        }
    }
}

/// A trust anchor with its DER subject. webpki does not look at the validity of anchors, so it is kept beside.
fn anchor(der: &[u8]) -> Result<(Anchor, Vec<u8>), String> {
    let der = CertificateDer::from(der);
    let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|error| error.to_string())?.to_owned();
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
    let anchor = Anchor {
        key: anchor,
        not_before: at(certificate.validity().not_before.timestamp()),
        not_after: at(certificate.validity().not_after.timestamp()),
        subject: certificate.subject().to_string(),
    };
    Ok((anchor, certificate.subject().as_raw().to_vec()))
}

fn check(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    usage: Usage,
    now: SystemTime,
) -> Result<(), webpki::Error> {
    let leaf = EndEntityCert::try_from(leaf)?;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let algorithms = provider().signature_verification_algorithms.all;
    let usages: &[KeyUsage] = match usage {
        Usage::Server => &[KeyUsage::server_auth()],
        Usage::Client => &[KeyUsage::client_auth()],
        Usage::Either => &[KeyUsage::server_auth(), KeyUsage::client_auth()],
    };
    usages.iter().try_for_each(|usage| {
        leaf.verify_for_usage(algorithms, anchors, intermediates, now, *usage, None, None).map(drop)
    })
}

/// Verifies servers.
#[derive(Debug)]
pub struct Servers {
    roots: Arc<Roots>,
    only: Option<Identity>,
}

impl Servers {
    /// Any identity of the mesh.
    pub fn of_mesh(roots: Arc<Roots>) -> Self {
        Self { roots, only: None }
    }

    /// This identity alone.
    pub fn only(roots: Arc<Roots>, identity: Identity) -> Self {
        Self { roots, only: Some(identity) }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let identity = self.roots.verify(&chain(leaf, intermediates), Usage::Server, time(now)).map_err(alert)?;
        match &self.only {
            Some(expected) if *expected != identity => {
                Err(alert(Rejected::Unexpected { identity, expected: expected.clone() }))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies clients, of which a certificate is required.
#[derive(Debug)]
pub struct Clients(Arc<Roots>);

impl Clients {
    /// Any identity of the mesh.
    pub fn of_mesh(roots: Arc<Roots>) -> Self {
        Self(roots)
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.0.subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify(&chain(leaf, intermediates), Usage::Client, time(now)).map_err(alert)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn chain<'a>(leaf: &CertificateDer<'a>, intermediates: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(intermediates).cloned().collect()
}

fn time(now: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs())
}

/// As rustls wants it, with our reason kept for whoever logs the failed handshake.
fn alert(rejected: Rejected) -> rustls::Error {
    tracing::debug!(reason = %rejected, "a peer's certificate was refused");
    let error = match rejected {
        Rejected::Missing => return rustls::Error::NoCertificatesPresented,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    rustls::Error::InvalidCertificate(error)
}

impl Rejected {
    /// The rejection inside an error of rustls (or of I/O that carries one), where it is ours.
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(rejected) = error.downcast_ref::<Self>() {
                return Some(rejected);
            }
            if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) =
                error.downcast_ref::<rustls::Error>()
            {
                return other.downcast_ref::<Self>();
            }
            if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                next = Some(inner);
                continue;
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Either => "server and client",
        })
    }
}
