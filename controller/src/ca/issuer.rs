//! The issuer: the certificates it signs, and the roots that vouch for it.
//!
//! Called by [`super`]. It decides what a certificate says; whom to give one is decided before. It knows no files.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mesh_proto::{identity::Identity, names, outcome::Outcome, server::Refusal};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    Issuer as Signer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime, pem::PemObject as _};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate, X509CertificationRequest};

/// A certificate counts from a little before it is made: clocks of machines differ.
pub(super) const SKEW: Duration = Duration::from_secs(20);
/// Largest request that is looked at: a P-384 one with a long name is below 1 KiB.
const LARGEST_REQUEST: usize = 8 * 1024;
/// Most roots that are trusted at once: more than a proxy takes would leave it with those of before.
const MOST_ROOTS: usize = 32;

/// What is said of an issuer that can sign no longer.
pub(super) const EXPIRED: &str = "tls.crt: it has expired";

/// What an issuer is read from, PEM.
pub(super) struct Texts {
    /// Roots that are trusted.
    pub(super) roots: String,
    /// The issuer, then what vouches for it.
    pub(super) chain: String,
    /// The issuer's key.
    pub(super) key: String,
}

/// Signs leaves.
pub struct Issuer {
    roots: Vec<CertificateDer<'static>>,
    roots_pem: String,
    /// What goes with every leaf: the issuer and what is between it and its root.
    chain: Vec<CertificateDer<'static>>,
    signer: Signer<'static, KeyPair>,
    not_after: SystemTime,
    leaf_lifetime: Duration,
}

impl Issuer {
    /// From what was written. A leaf that it signs is verified here as a proxy would, so that nothing is put in force
    /// that nobody accepts; an error says why.
    pub(super) fn new(texts: &Texts, trust_domain: &str, leaf_lifetime: Duration) -> Result<Self, String> {
        let certificates = |text: &str| -> Result<Vec<CertificateDer<'static>>, String> {
            CertificateDer::pem_slice_iter(text.as_bytes())
                .map(|certificate| certificate.map_err(|error| format!("not PEM: {error}")))
                .collect()
        };
        let roots = certificates(&texts.roots).map_err(|reason| format!("ca.crt: {reason}"))?;
        if roots.is_empty() || roots.len() > MOST_ROOTS {
            return Err(format!("ca.crt: {} roots, where 1 to {MOST_ROOTS} are expected", roots.len()));
        }
        let mut chain = certificates(&texts.chain).map_err(|reason| format!("tls.crt: {reason}"))?;
        let own = chain.first().cloned().ok_or("tls.crt: there is no certificate in it")?;
        let key = KeyPair::from_pem(&texts.key).map_err(|error| format!("tls.key: {error}"))?;
        let parsed = X509Certificate::from_der(&own).map_err(|error| format!("tls.crt: {error}"))?.1;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err("tls.crt and tls.key do not belong together".into());
        }
        if !parsed.is_ca() {
            return Err("tls.crt: not a certificate authority".into());
        }
        let expected = format!("spiffe://{trust_domain}");
        let uris = uris(parsed.extensions().iter().map(x509_parser::prelude::X509Extension::parsed_extension));
        if !uris.is_empty() && uris != [&*expected] {
            return Err(format!("tls.crt: it is not for the trust domain {trust_domain:?}"));
        }
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        if not_after <= SystemTime::now() {
            return Err(EXPIRED.into());
        }
        let signer = Signer::from_ca_cert_der(&own, key).map_err(|error| format!("tls.crt: {error}"))?;
        // A root is in the bundle of whoever verifies.
        chain.retain(|certificate| !roots.contains(certificate));
        let issuer =
            Self { roots_pem: certificates_alone(&texts.roots), roots, chain, signer, not_after, leaf_lifetime };
        issuer.try_out(trust_domain)?;
        Ok(issuer)
    }

    fn try_out(&self, trust_domain: &str) -> Result<(), String> {
        let identity = Identity::new(trust_domain, names::SYSTEM_NAMESPACE, names::CONTROLLER_NAME);
        let identity = identity.map_err(|error| error.to_string())?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
        let chain = self.sign(&key, &identity).map_err(|error| format!("tls.key: {error}"))?;
        let anchors: Vec<TrustAnchor<'_>> = self
            .roots
            .iter()
            .map(|root| webpki::anchor_from_trusted_cert(root).map_err(|error| format!("ca.crt: {error}")))
            .collect::<Result<_, _>>()?;
        let leaf = EndEntityCert::try_from(&chain[0]).map_err(|error| error.to_string())?;
        let algorithms = mesh_runtime::tls::provider().signature_verification_algorithms.all;
        let usage = KeyUsage::client_auth();
        let verified = leaf.verify_for_usage(algorithms, &anchors, &chain[1..], UnixTime::now(), usage, None, None);
        verified.map(|_| ()).map_err(|error| format!("no root of ca.crt vouches for tls.crt: {error}"))
    }

    /// The roots that are trusted, DER.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The same, PEM.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// Until when it can sign.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Lifetime of the certificates that are signed.
    pub fn leaf_lifetime(&self) -> Duration {
        self.leaf_lifetime
    }

    /// Signs a PKCS#10 request for `identity`. The certificate says what we decide; of the request only the key is used.
    pub fn sign_request(&self, csr: &[u8], identity: &Identity) -> Result<Vec<Bytes>, Refusal> {
        let refuse = |reason: String| Refusal::new(Outcome::CertificateRequestInvalid, reason);
        let key = check_request(csr, identity).map_err(refuse)?;
        let chain = self.sign(&key, identity).map_err(|error| refuse(error.to_string()))?;
        Ok(chain.iter().map(|certificate| Bytes::copy_from_slice(certificate)).collect())
    }

    /// Signs a certificate for a key. Leaf first, without the root.
    pub fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
    ) -> Result<Vec<CertificateDer<'static>>, rcgen::Error> {
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
        let leaf = params.signed_by(key, &self.signer)?.into();
        Ok(std::iter::once(leaf).chain(self.chain.iter().cloned()).collect())
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

/// The certificates of a PEM text, without whatever else is in it: it may be a key.
fn certificates_alone(text: &str) -> String {
    let mut within = false;
    let mut alone = String::new();
    for line in text.lines() {
        within |= line.starts_with("-----BEGIN CERTIFICATE");
        if within {
            alone.push_str(line);
            alone.push('\n');
        }
        within &= !line.starts_with("-----END");
    }
    alone
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
