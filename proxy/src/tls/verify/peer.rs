//! What a certificate says of its holder; whether it is to be believed was decided before.

use mesh_proto::identity::{Identity, IdentityError};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::Rejected;
use crate::tls::{CertificateFacts, at};

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
pub(in crate::tls) fn facts(leaf: &CertificateDer<'_>, identity: Identity) -> Result<CertificateFacts, Rejected> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| Rejected::Malformed(error.to_string()))?;
    Ok(CertificateFacts {
        identity,
        serial: leaf.raw_serial_as_string(),
        issuer: leaf.issuer().to_string(),
        not_before: at(leaf.validity().not_before.timestamp()),
        not_after: at(leaf.validity().not_after.timestamp()),
    })
}
