//! The one place that names a crypto provider and protocol versions.
//!
//! Every rustls configuration of the mesh is built from [`provider`]; nothing else mentions aws-lc-rs, so a change of
//! provider or a FIPS build is a change of this file. It knows nothing of identities: verifiers live with the parts.

use std::sync::{Arc, OnceLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};

/// Protocol versions of mesh TLS: 1.3 alone.
pub static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Key exchanges, best first: the hybrid with ML-KEM withstands a recording that is decrypted in twenty years.
static KEY_EXCHANGES: &[&dyn SupportedKxGroup] =
    &[kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];

/// aws-lc-rs with TLS 1.3 suites and the mesh's key exchanges, shared by the whole process.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            // AES-128 first: as safe as AES-256 for what lives 24 h, and quicker.
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: KEY_EXCHANGES.to_vec(),
            ..aws_lc_rs::default_provider()
        })
    }))
}

/// aws-lc-rs with all it has, TLS 1.2 too: only for probes of applications, which choose for themselves.
pub fn application_provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Makes [`provider`] the default of the process, for libraries that ask rustls for one (kube). Idempotent.
pub fn install_default() {
    // An error says that there is one already, which is what a second call finds.
    let _ = CryptoProvider::clone(&provider()).install_default();
}

/// In an `impl` of a verifier of rustls: that the peer holds its certificate's key is checked by [`provider`], in TLS 1.3 alone.
/// Whose certificates are good is the rest of the `impl`'s business.
#[macro_export]
macro_rules! signatures_of_tls13 {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &::rustls::pki_types::CertificateDer<'_>,
            _: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            Err(::rustls::Error::General("a mesh connection is of TLS 1.3".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signature: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let algorithms = &$crate::tls::provider().signature_verification_algorithms;
            ::rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<::rustls::SignatureScheme> {
            $crate::tls::provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

pub use signatures_of_tls13;

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, NamedGroup, RootCertStore};

    use super::*;

    #[test]
    fn the_hybrid_key_exchange_is_preferred() {
        let names: Vec<_> = provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(
            names,
            [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1]
        );
    }

    #[test]
    fn a_configuration_with_tls13_alone_can_be_built() {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(TLS13)
            .expect("the provider has suites for TLS 1.3")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        assert!(config.crypto_provider().cipher_suites.iter().all(|suite| suite.tls13().is_some()));
    }

    #[test]
    fn libraries_that_ask_for_the_default_get_ours_however_often_it_is_installed() {
        install_default();
        install_default();
        let default = CryptoProvider::get_default().expect("installed");
        assert_eq!(default.kx_groups.len(), KEY_EXCHANGES.len());
        let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        let _ = config.with_no_client_auth();
    }
}
