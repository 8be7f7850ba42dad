//! The root of trust and the certificates it signs.
//!
//! Called by [`super`]. It decides what a certificate says; whom to give one is decided before.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mesh_proto::{identity::Identity, outcome::Outcome, server::Refusal};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer as Signer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate, X509CertificationRequest};

use super::CaError;

/// Ten years: longer than any cluster keeps one root.
const ROOT_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// A certificate counts from a little before it is made: clocks of machines differ.
const SKEW: Duration = Duration::from_secs(20);
/// Largest request that is looked at: a P-384 one with a long name is below 1 KiB.
const LARGEST_REQUEST: usize = 8 * 1024;

/// Signs with the root.
pub struct Issuer {
    root: CertificateDer<'static>,
    signer: Signer<'static, KeyPair>,
    not_after: SystemTime,
    leaf_lifetime: Duration,
}

/// Makes a root: its key and its certificate, as one PEM text.
pub(super) fn make_root(trust_domain: &str) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "mesh");
    name.push(DnType::CommonName, format!("mesh root {:08x}", rand::random::<u32>()));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + ROOT_LIFETIME).into();
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

impl Issuer {
    /// From what [`make_root`] made, for `trust_domain`.
    pub(super) fn new(pem: &str, trust_domain: &str, leaf_lifetime: Duration) -> Result<Self, CaError> {
        let unusable = |reason: String| CaError::Root(reason);
        let key = KeyPair::from_pem(pem).map_err(|error| unusable(format!("its key: {error}")))?;
        let root = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unusable(error.to_string()))?;
        let parsed = X509Certificate::from_der(&root).map_err(|error| unusable(error.to_string()))?.1;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(unusable("key and certificate do not belong together".into()));
        }
        if !parsed.is_ca() {
            return Err(unusable("not a certificate authority".into()));
        }
        let expected = format!("spiffe://{trust_domain}");
        if uris(parsed.extensions().iter().map(x509_parser::prelude::X509Extension::parsed_extension)) != [&*expected] {
            return Err(unusable(format!("it is not for the trust domain {trust_domain:?}")));
        }
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        if not_after <= SystemTime::now() {
            return Err(unusable("it has expired".into()));
        }
        let signer = Signer::from_ca_cert_der(&root, key).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { root, signer, not_after, leaf_lifetime })
    }

    /// The root, DER.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Lifetime of the certificates that are signed.
    pub fn leaf_lifetime(&self) -> Duration {
        self.leaf_lifetime
    }

    /// Signs a PKCS#10 request for `identity`. The certificate says what we decide; of the request only the key is used.
    pub fn sign_request(&self, csr: &[u8], identity: &Identity) -> Result<Vec<Bytes>, Refusal> {
        let refuse = |reason: String| Refusal::new(Outcome::CertificateRequestInvalid, reason);
        let key = check_request(csr, identity).map_err(refuse)?;
        let leaf = self.sign(&key, identity).map_err(|error| refuse(error.to_string()))?;
        Ok(vec![Bytes::copy_from_slice(&leaf)])
    }

    /// Signs a certificate for a key.
    pub fn sign(&self, key: &impl PublicKeyData, identity: &Identity) -> Result<CertificateDer<'static>, rcgen::Error> {
        let mut params = CertificateParams::default();
        // The name is in the SAN, which is critical then (RFC 5280 §4.1.2.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - SKEW).into();
        params.not_after = (now + self.leaf_lifetime).min(self.not_after).into();
        Ok(params.signed_by(key, &self.signer)?.into())
    }
}

/// The key of a request that asks for `identity` and nothing else.
fn check_request(csr: &[u8], identity: &Identity) -> Result<SubjectPublicKeyInfo, String> {
    if csr.len() > LARGEST_REQUEST {
        return Err(format!("{} bytes are more than a request needs", csr.len()));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(csr).map_err(|error| format!("not a PKCS#10 request: {error}"))?;
    if !rest.is_empty() {
        return Err("bytes after the end of the request".into());
    }
    // Checks the signature, and that no extension is asked for that we do not know.
    let known = CertificateSigningRequestParams::from_der(&csr.into()).map_err(|error| error.to_string())?;
    let names = &known.params.subject_alt_names;
    match names.as_slice() {
        [SanType::URI(uri)] if uri.as_str() == identity.as_str() => {}
        [SanType::URI(uri)] => return Err(format!("its SAN is {:?}, not {identity}", uri.as_str())),
        names => return Err(format!("{} SANs, where exactly one URI is expected", names.len())),
    }
    if matches!(known.params.is_ca, IsCa::Ca(_)) {
        return Err("it asks to become a certificate authority".into());
    }
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw);
    let key = key.map_err(|error| format!("its key: {error}"))?;
    let allowed = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    if !allowed.iter().any(|allowed| **allowed == *key.algorithm()) {
        return Err("its key is of another type than P-256, P-384 or Ed25519".into());
    }
    Ok(key)
}

/// The identity that a certificate proves: its one URI SAN. Whether the certificate is to be trusted is not asked here.
pub fn identity_of(certificate: &[u8]) -> Result<Identity, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let uris = uris(parsed.extensions().iter().map(x509_parser::prelude::X509Extension::parsed_extension));
    match uris.as_slice() {
        [uri] => uri.parse().map_err(|error: mesh_proto::identity::IdentityError| error.to_string()),
        uris => Err(format!("{} URI SANs, where exactly one is expected", uris.len())),
    }
}

fn uris<'a>(extensions: impl Iterator<Item = &'a ParsedExtension<'a>>) -> Vec<&'a str> {
    let mut uris = Vec::new();
    for extension in extensions {
        if let ParsedExtension::SubjectAlternativeName(names) = extension {
            uris.extend(names.general_names.iter().filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            }));
        }
    }
    uris
}
