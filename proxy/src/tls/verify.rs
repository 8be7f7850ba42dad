//! Who the other end is: a chain to one of our roots, and exactly one SPIFFE id of our trust domain.
//!
//! One verifier serves both directions. There is no host name to check: the mesh's names are SPIFFE ids. The signature
//! algorithms are the provider's.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_proto::{identity::Identity, trust::TrustBundle};
use mesh_runtime::tls;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Roots in the form in which chains are checked against them.
#[derive(Debug, Clone)]
pub struct Roots {
    trust_domain: String,
    roots: Vec<Root>,
}

#[derive(Debug, Clone)]
struct Root {
    anchor: TrustAnchor<'static>,
    /// webpki does not look at the validity of a trust anchor; we do.
    not_before: SystemTime,
    not_after: SystemTime,
}

/// A trust bundle that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("root {index} of the trust bundle cannot be used: {reason}")]
pub struct UnusableRoots {
    index: usize,
    reason: String,
}

impl Roots {
    /// Parses a bundle.
    pub fn new(bundle: &TrustBundle) -> Result<Self, UnusableRoots> {
        let root = |(index, der): (usize, &bytes::Bytes)| {
            let unusable = |reason: String| UnusableRoots { index, reason };
            let certificate = CertificateDer::from(der.to_vec());
            let anchor =
                anchor_from_trusted_cert(&certificate).map_err(|error| unusable(error.to_string()))?.to_owned();
            let (_, parsed) = X509Certificate::from_der(der).map_err(|error| unusable(error.to_string()))?;
            let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            Ok(Root {
                anchor,
                not_before: time(parsed.validity().not_before.timestamp()),
                not_after: time(parsed.validity().not_after.timestamp()),
            })
        };
        let roots = bundle.roots.iter().enumerate().map(root).collect::<Result<_, _>>()?;
        Ok(Self { trust_domain: bundle.trust_domain.clone(), roots })
    }

    fn valid_at(&self, now: UnixTime) -> Vec<TrustAnchor<'static>> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let valid = self.roots.iter().filter(|root| root.not_before <= now && now <= root.not_after);
        valid.map(|root| root.anchor.clone()).collect()
    }
}

/// Checks certificates of peers, either way.
#[derive(Debug)]
pub struct PeerVerifier {
    roots: Roots,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    /// Against these roots.
    pub fn new(roots: Roots) -> Self {
        Self { roots, algorithms: tls::provider().signature_verification_algorithms }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let certificate = EndEntityCert::try_from(leaf).map_err(invalid)?;
        let anchors = self.roots.valid_at(now);
        certificate
            .verify_for_usage(self.algorithms.all, &anchors, intermediates, now, usage, None, None)
            .map_err(invalid)?;
        let identity = peer_identity(Some(std::slice::from_ref(leaf))).map_err(other)?;
        if identity.trust_domain() != self.roots.trust_domain {
            return Err(other(PeerIdentityError::ForeignTrustDomain(identity)));
        }
        Ok(())
    }
}

/// Keeps the difference that alerts and people care about.
fn invalid(error: webpki::Error) -> Error {
    let error = match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::BadDer | webpki::Error::BadDerTime => CertificateError::BadEncoding,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    };
    Error::InvalidCertificate(error)
}

fn other(error: PeerIdentityError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOfferedOrEnabled))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Proxies have one certificate and need no hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOfferedOrEnabled))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a certificate names nobody of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIdentityError {
    /// No certificate was shown.
    NoCertificate,
    /// It cannot be read.
    Unreadable,
    /// It must have exactly one URI name.
    UriNames(usize),
    /// The URI is no identity of the mesh.
    NotSpiffe(String),
    /// An identity of somebody else's mesh.
    ForeignTrustDomain(Identity),
}

impl fmt::Display for PeerIdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("the peer showed no certificate"),
            Self::Unreadable => f.write_str("the peer's certificate cannot be read"),
            Self::UriNames(count) => write!(f, "the peer's certificate has {count} URI names instead of one"),
            Self::NotSpiffe(error) => write!(f, "the peer's certificate names nobody of the mesh: {error}"),
            Self::ForeignTrustDomain(identity) => write!(f, "{identity} is of another trust domain"),
        }
    }
}

impl std::error::Error for PeerIdentityError {}

/// The identity in a peer's certificate. Its chain is checked by the handshake, not here.
pub fn peer_identity(certificates: Option<&[CertificateDer<'_>]>) -> Result<Identity, PeerIdentityError> {
    let leaf = certificates.and_then(<[_]>::first).ok_or(PeerIdentityError::NoCertificate)?;
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| PeerIdentityError::Unreadable)?;
    let names = certificate.subject_alternative_name().map_err(|_| PeerIdentityError::Unreadable)?;
    let names = names.map(|extension| &extension.value.general_names[..]).unwrap_or_default();
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris[..] {
        [uri] => uri.parse().map_err(|error| PeerIdentityError::NotSpiffe(format!("{error}"))),
        _ => Err(PeerIdentityError::UriNames(uris.len())),
    }
}
