//! The certificate authority of the mesh: who may have a certificate, and the certificate.
//!
//! Called by [`crate::grpc`] for proxies and by [`crate::tls`] for the controller's own identity. It knows no
//! connection and no index.

pub mod files;
pub mod issuer;
pub mod limit;
mod root;
pub mod secret;
pub mod store;
pub mod token;
pub mod token_review;
mod used;

use std::{path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
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
    files::{Files, Stamp},
    issuer::Issuer,
    store::{Store, StoreError},
    token::{Checker, Proof},
    token_review::Reviewer,
};
use crate::api::Api;

/// How often it is looked for other roots, or another issuer.
const LOOK: Duration = Duration::from_secs(1);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its secrets cannot be kept.
    #[error("keep the secrets of the certificate authority: {0}")]
    Store(#[from] StoreError),
    /// Its root cannot be used.
    #[error("use the root of trust in root.pem: {0}; move root.pem and ca.crt away to start with a new root")]
    Root(String),
    /// Its issuer cannot be used.
    #[error("use the certificate authority in {directory}: {reason}")]
    Issuer {
        /// Where its files are.
        directory: String,
        /// Why not.
        reason: String,
    },
    /// A step of a rotation out of order.
    #[error("rotate the root of trust: {0}")]
    Rotation(&'static str),
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
    leaf_lifetime: Duration,
    files: Files,
    /// As they were when they were read first.
    opened: Stamp,
    issuer: ArcSwap<Issuer>,
    proofs: Proofs,
}

/// What proves who asks.
enum Proofs {
    /// Outside a cluster.
    JoinTokens(Checker),
    /// In one.
    TokenReviews(Reviewer),
}

impl Authority {
    /// With what is in `store`, made at the first start, or with given files and only the key of tokens in `store`.
    pub fn open(
        store: &Store,
        given: Option<&Path>,
        trust_domain: &str,
        leaf_lifetime: Duration,
    ) -> Result<Self, CaError> {
        Self::new(store, given, trust_domain, leaf_lifetime, Proofs::JoinTokens(Checker::open(store)?))
    }

    /// In a cluster, where tokens are the API server's to check.
    pub fn open_in_cluster(
        store: &Store,
        given: Option<&Path>,
        trust_domain: &str,
        leaf_lifetime: Duration,
        api: Api,
    ) -> Result<Self, CaError> {
        Self::new(store, given, trust_domain, leaf_lifetime, Proofs::TokenReviews(Reviewer::new(api)))
    }

    fn new(
        store: &Store,
        given: Option<&Path>,
        trust_domain: &str,
        leaf_lifetime: Duration,
        proofs: Proofs,
    ) -> Result<Self, CaError> {
        let files = match given {
            Some(directory) => Files::given(directory),
            None => Files::own(store, trust_domain)?,
        };
        let opened = files.stamp();
        let issuer = ArcSwap::from_pointee(files.load(trust_domain, leaf_lifetime)?);
        Ok(Self { trust_domain: trust_domain.to_owned(), leaf_lifetime, files, opened, issuer, proofs })
    }

    /// Looks for other roots or another issuer for ever, and renews an issuer of our own. What cannot be used is told to
    /// `problem` (none: all is well), and what was before stays in force; `changed` is called when something else is.
    pub async fn follow(&self, problem: impl Fn(Option<String>), changed: impl Fn()) {
        let (mut in_force, mut failed) = (self.opened, None);
        loop {
            tokio::time::sleep(LOOK).await;
            let found = self.files.stamp();
            if found == in_force {
                let renewed = self.files.renew(&self.issuer.load(), &self.trust_domain);
                problem(renewed.err().map(|error| error.to_string()));
                continue;
            }
            match self.files.load(&self.trust_domain, self.leaf_lifetime) {
                Ok(issuer) => {
                    self.issuer.store(Arc::new(issuer));
                    (in_force, failed) = (found, None);
                    problem(None);
                    changed();
                }
                // A look between two files that belong together fails, and the next one does not.
                Err(_) if failed != Some(found) => failed = Some(found),
                Err(error) => problem(Some(format!("{error}; what was before stays in force"))),
            }
        }
    }

    /// Until when the issuer can sign.
    pub fn issuer_not_after(&self) -> std::time::SystemTime {
        self.issuer.load().not_after()
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.files.directory()
    }

    /// How long certificates are good.
    pub fn leaf_lifetime(&self) -> Duration {
        self.leaf_lifetime
    }

    /// The roots in force.
    pub fn trust_bundle(&self) -> TrustBundle {
        let roots = self.issuer.load().roots().iter().map(|root| Bytes::copy_from_slice(root)).collect();
        TrustBundle { trust_domain: self.trust_domain.clone(), roots }
    }

    /// The roots in force, PEM.
    pub fn trust_bundle_pem(&self) -> String {
        self.issuer.load().roots_pem().to_owned()
    }

    /// Who asks, by token. A join token is used up by this.
    pub async fn prove(&self, certify: &Certify) -> Result<Proof, Refusal> {
        let proof = match &self.proofs {
            Proofs::JoinTokens(tokens) => tokens.check(&certify.token)?,
            Proofs::TokenReviews(reviews) => reviews.check(&certify.token, &self.trust_domain).await?,
        };
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
        let chain = self.issuer.load().sign_request(&certify.csr, &certify.identity)?;
        Ok(Certified { chain, trust_bundle: self.trust_bundle() })
    }

    /// A certificate of the controller itself, with its key.
    pub fn own_certificate(&self) -> Result<OwnCertificate, CaError> {
        let identity = Identity::new(&self.trust_domain, names::SYSTEM_NAMESPACE, names::CONTROLLER_NAME);
        let identity = identity.map_err(|error| CaError::Root(error.to_string()))?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let chain = self.issuer.load().sign(&key, &identity)?;
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
