//! Roots and issuers: certificates that sign certificates, made by us.
//!
//! A root signs issuers and nothing else, so that its key is needed once a year; an issuer signs leaves. Called by
//! [`super::files`]; what leaves say is [`super::issuer`]'s.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer as Signer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CaError, issuer::SKEW};

/// Ten years: longer than any cluster keeps one root.
const ROOT_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// A year: an issuer whose key leaked is worth little after that, and nobody has to remember it, see [`super::files`].
pub(super) const ISSUER_LIFETIME: Duration = Duration::from_hours(365 * 24);

/// An issuer: PEM of its certificate and of its key.
pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Makes a root that lives for as long as a cluster.
pub(super) fn make_root(trust_domain: &str) -> Result<String, rcgen::Error> {
    make_root_for(trust_domain, ROOT_LIFETIME)
}

/// Makes a root: its key and its certificate, as one PEM text.
pub(super) fn make_root_for(trust_domain: &str, lifetime: Duration) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let params = params("mesh root", trust_domain, BasicConstraints::Constrained(1), lifetime)?;
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// Makes an issuer, signed by what [`make_root`] made for the same trust domain.
pub(super) fn make_issuer(root: &str, trust_domain: &str) -> Result<Made, CaError> {
    let unusable = |reason: String| CaError::Root(reason);
    let key = KeyPair::from_pem(root).map_err(|error| unusable(format!("its key: {error}")))?;
    let certificate = CertificateDer::from_pem_slice(root.as_bytes()).map_err(|error| unusable(error.to_string()))?;
    let parsed = X509Certificate::from_der(&certificate).map_err(|error| unusable(error.to_string()))?.1;
    if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key) {
        return Err(unusable("key and certificate do not belong together".into()));
    }
    let root_ends = ends(root)?;
    if root_ends <= SystemTime::now() {
        return Err(unusable("it has expired".into()));
    }
    let signer = Signer::from_ca_cert_der(&certificate, key).map_err(|error| unusable(error.to_string()))?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = params("mesh issuer", trust_domain, BasicConstraints::Constrained(0), ISSUER_LIFETIME)?;
    params.not_after = (SystemTime::now() + ISSUER_LIFETIME).min(root_ends).into();
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &signer)?.pem();
    Ok(Made { certificate, key: key.serialize_pem() })
}

/// When what [`make_root`] made ends.
pub(super) fn ends(root: &str) -> Result<SystemTime, CaError> {
    let unusable = |reason: String| CaError::Root(reason);
    let certificate = CertificateDer::from_pem_slice(root.as_bytes()).map_err(|error| unusable(error.to_string()))?;
    let parsed = X509Certificate::from_der(&certificate).map_err(|error| unusable(error.to_string()))?.1;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The certificate of what [`make_root`] made.
pub(super) fn certificate(root: &str) -> &str {
    root.split_at(root.find("-----BEGIN CERTIFICATE").unwrap_or(root.len())).1
}

fn params(
    name: &str,
    trust_domain: &str,
    constraints: BasicConstraints,
    lifetime: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "mesh");
    subject.push(DnType::CommonName, format!("{name} {:08x}", rand::random::<u32>()));
    params.distinguished_name = subject;
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + lifetime).into();
    Ok(params)
}
