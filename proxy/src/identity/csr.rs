//! A fresh key and the request to have it certified: PKCS#10 with exactly one URI SAN and no other name.

use mesh_proto::identity::Identity;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::PrivateKeyDer;

/// A key with its request.
pub(super) struct Request {
    /// PKCS#8, for [`crate::tls::Credentials::install`].
    pub(super) key: PrivateKeyDer<'static>,
    /// PKCS#10, DER.
    pub(super) csr: Vec<u8>,
}

/// Makes a key (P-256) and asks for `identity`.
pub(super) fn request(identity: &Identity) -> Result<Request, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
    let csr = params.serialize_request(&key)?.der().to_vec();
    Ok(Request { key: PrivateKeyDer::Pkcs8(key.serialize_der().into()), csr })
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509CertificationRequest};

    use super::*;

    #[test]
    fn a_request_names_the_identity_and_nothing_else_and_every_one_has_a_new_key() {
        let identity = Identity::new("cluster.local", "shop", "web").unwrap();
        let (first, second) = (request(&identity).unwrap(), request(&identity).unwrap());
        assert_ne!(first.key.secret_der(), second.key.secret_der());
        let (_, csr) = X509CertificationRequest::from_der(&first.csr).unwrap();
        csr.verify_signature().unwrap();
        assert_eq!(csr.certification_request_info.subject.iter().count(), 0);
        let names: Vec<_> = csr
            .requested_extensions()
            .into_iter()
            .flatten()
            .filter_map(|extension| match extension {
                ParsedExtension::SubjectAlternativeName(san) => Some(san.general_names.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        assert!(matches!(names[..], [GeneralName::URI(uri)] if uri == identity.as_str()), "{names:?}");
    }
}
