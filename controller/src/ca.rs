//! The certificate authority of the mesh: who may have a certificate, and the certificate.
//!
//! Called by [`crate::grpc`] for proxies and by [`crate::tls`] for the controller's own identity. It knows no
//! connection and no index.

pub mod issuer;
pub mod limit;
pub mod store;
pub mod token;
mod used;

use std::time::Duration;

use bytes::Bytes;
use mesh_proto::{
    client::{Certified, Certify},
    identity::Identity,
    names,
    outcome::Outcome,
    server::Refusal,
    trust::TrustBundle,
};
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use self::{
    issuer::Issuer,
    store::{Store, StoreError},
    token::{Checker, Proof},
};

/// File of the root: key and certificate.
const ROOT_FILE: &str = "root.pem";

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its secrets cannot be kept.
    #[error("keep the secrets of the certificate authority: {0}")]
    Store(#[from] StoreError),
    /// Its root cannot be used.
    #[error("use the root of trust in {ROOT_FILE}: {0}; move the file away to start with a new root")]
    Root(String),
    /// The key of join tokens cannot be used.
    #[error("use the key of join tokens: {0}")]
    TokenKey(String),
    /// The trust domain or a lifetime makes no sense.
    #[error("sign: {0}")]
    Sign(#[from] rcgen::Error),
}

/// The authority.
pub struct Authority {
    trust_domain: String,
    issuer: Issuer,
    root_pem: String,
    tokens: Checker,
}

impl Authority {
    /// With the secrets in `store`, made at the first start.
    pub fn open(store: &Store, trust_domain: &str, leaf_lifetime: Duration) -> Result<Self, CaError> {
        let fresh = issuer::make_root(trust_domain)?;
        let pem = store.read_or_make(ROOT_FILE, || fresh)?;
        let issuer = Issuer::new(&pem, trust_domain, leaf_lifetime)?;
        // The file holds the key first, then the certificate.
        let root_pem = pem.split_at(pem.find("-----BEGIN CERTIFICATE").unwrap_or(pem.len())).1.to_owned();
        Ok(Self { trust_domain: trust_domain.to_owned(), issuer, root_pem, tokens: Checker::open(store)? })
    }

    /// How long certificates are good.
    pub fn leaf_lifetime(&self) -> Duration {
        self.issuer.leaf_lifetime()
    }

    /// The roots in force.
    pub fn trust_bundle(&self) -> TrustBundle {
        TrustBundle { trust_domain: self.trust_domain.clone(), roots: vec![Bytes::copy_from_slice(self.issuer.root())] }
    }

    /// The roots in force, PEM.
    pub fn trust_bundle_pem(&self) -> &str {
        &self.root_pem
    }

    /// Who asks, by token. The token is used up by this.
    pub fn prove(&self, certify: &Certify) -> Result<Proof, Refusal> {
        let proof = self.tokens.check(&certify.token)?;
        let mismatch = |detail: String| Err(Refusal::new(Outcome::IdentityMismatch, detail));
        if proof.identity != certify.identity {
            return mismatch(format!("the token is for {}, not for {}", proof.identity, certify.identity));
        }
        if proof.identity.trust_domain() != self.trust_domain {
            return mismatch(format!("{} is not of the trust domain {}", proof.identity, self.trust_domain));
        }
        if proof.identity.namespace() != proof.pod.namespace {
            return mismatch(format!("{} is not of the pod's namespace {}", proof.identity, proof.pod.namespace));
        }
        Ok(proof)
    }

    /// Signs what [`Authority::prove`] has accepted.
    pub fn sign(&self, certify: &Certify) -> Result<Certified, Refusal> {
        let chain = self.issuer.sign_request(&certify.csr, &certify.identity)?;
        Ok(Certified { chain, trust_bundle: self.trust_bundle() })
    }

    /// A certificate of the controller itself, with its key.
    pub fn own_certificate(&self) -> Result<OwnCertificate, CaError> {
        let identity = Identity::new(&self.trust_domain, names::SYSTEM_NAMESPACE, names::CONTROLLER_NAME);
        let identity = identity.map_err(|error| CaError::Root(error.to_string()))?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let chain = vec![self.issuer.sign(&key, &identity)?];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(OwnCertificate { chain, key })
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub struct OwnCertificate {
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}
