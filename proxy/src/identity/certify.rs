//! One attempt to get a certificate: token, key, request, answer, into force.

use std::{io, path::PathBuf};

use mesh_proto::{
    client::{CallError, Certify, IdentityClient},
    outcome::Outcome,
};
use rustls::pki_types::CertificateDer;
use tokio::time::Duration;

use super::{Renewal, csr};
use crate::{
    controller::{ConnectError, Show},
    tls::{CertificateFacts, InstallError, RootsError},
};

/// Longest the controller may take to sign.
const ANSWER: Duration = Duration::from_secs(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// The token cannot be read.
    #[error("read the bootstrap token {}: {source}", path.display())]
    Token {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No key or request could be made.
    #[error("make a key and a certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// The controller could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It refused, or broke off.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It did not answer.
    #[error("get an answer to the certificate request within {ANSWER:?}")]
    Timeout,
    /// Its answer cannot be used.
    #[error(transparent)]
    Install(#[from] InstallError),
}

impl From<RootsError> for CertifyError {
    fn from(error: RootsError) -> Self {
        Self::Install(error.into())
    }
}

impl CertifyError {
    /// Value of the metric label `code`: the controller's where it refused.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Token { .. } => "token-unreadable",
            Self::Request(_) => "request-failed",
            Self::Connect(ConnectError::NoRoots(_)) => "no-roots",
            Self::Connect(ConnectError::Tls { .. }) => "controller-not-proved",
            Self::Connect(_) | Self::Timeout => "controller-unreachable",
            Self::Call(error) => error.outcome.map_or("controller-unreachable", Outcome::code),
            Self::Install(_) => "certificate-unusable",
        }
    }
}

impl Renewal {
    /// Asks once.
    pub(super) async fn certify(&self) -> Result<CertificateFacts, CertifyError> {
        // A few bytes of memory-backed storage: quicker read than handed to another thread.
        let token = std::fs::read_to_string(&self.token_file)
            .map_err(|source| CertifyError::Token { path: self.token_file.clone(), source })?;
        let identity = self.credentials.identity();
        let request = csr::request(identity)?;
        let mut client = IdentityClient::new(self.controller.connect(Show::Nothing).await?);
        let certify = Certify { token: token.trim().to_owned(), identity: identity.clone(), csr: request.csr.into() };
        let answer = tokio::time::timeout(ANSWER, client.certify(certify)).await;
        let certified = answer.map_err(|_| CertifyError::Timeout)??;
        let chain = certified.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let facts = self.credentials.install(chain, request.key, &certified.trust_bundle)?;
        // After the certificate: a bundle that does not vouch for it is not taken either.
        self.trust.receive(&certified.trust_bundle)?;
        Ok(facts)
    }
}
