//! Whether a certificate chain proves an identity of the mesh: the one place that decides it, for both directions.
//!
//! A chain is good when a root that is valid now vouches for it, its validity and extended key usage fit, and its leaf has
//! exactly one URI SAN, a SPIFFE id of the bundle's trust domain. Names are not looked at. Which identity is expected is
//! the caller's business, except for [`Servers::only`]. Pure but for the clock that rustls passes in.

mod handshake;
mod peer;

use std::{fmt, time::SystemTime};

use mesh_proto::{identity::Identity, trust::TrustBundle};
use mesh_runtime::tls::provider;
use rustls::{
    DistinguishedName,
    pki_types::{CertificateDer, TrustAnchor, UnixTime},
};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub use self::{
    handshake::{Clients, Servers},
    peer::{PeerIdentityError, peer_identity},
};

pub(super) use self::peer::facts;

use super::at;

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

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Either => "server and client",
        })
    }
}
