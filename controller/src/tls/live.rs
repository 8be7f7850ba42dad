//! What changes under the open port: the controller's own certificate, and the roots that clients are verified with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_runtime::tls::{self, signatures_of_tls13};
use rustls::{
    DistinguishedName, RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use tokio::sync::Notify;

use super::TlsError;
use crate::ca::{Authority, OwnCertificate};

/// The certificate of the moment and the roots that clients are verified with.
#[derive(Debug)]
pub struct Live {
    certificate: ArcSwap<CertifiedKey>,
    clients: ArcSwap<Arc<dyn ClientCertVerifier>>,
    changed: Notify,
}

impl Live {
    /// With a certificate of its own from `authority`.
    pub(super) fn new(authority: &Authority) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: ArcSwap::from_pointee(certified(authority.own_certificate()?)?),
            clients: ArcSwap::from_pointee(clients(authority)?),
            changed: Notify::new(),
        })
    }

    /// Takes over the roots and the issuer of an authority that changed.
    pub fn follow(&self, authority: &Authority) -> Result<(), TlsError> {
        self.clients.store(Arc::new(clients(authority)?));
        self.changed.notify_one();
        Ok(())
    }

    /// Renews the certificate at 70 % of its life and when the authority changes, for ever.
    pub async fn renew(self: Arc<Self>, authority: Arc<Authority>) {
        let (renew, again) = (authority.leaf_lifetime().mul_f64(0.7), authority.leaf_lifetime().mul_f64(0.05));
        let mut wait = renew;
        loop {
            // In time or earlier.
            let _ = tokio::time::timeout(wait, self.changed.notified()).await;
            wait = match authority.own_certificate().map_err(TlsError::from).and_then(certified) {
                Ok(key) => {
                    self.certificate.store(Arc::new(key));
                    renew
                }
                Err(error) => {
                    tracing::error!(%error, "renewal of the controller's own certificate");
                    again
                }
            };
        }
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certificate.load_full())
    }
}

/// As [`WebPkiClientVerifier`] does with the roots of the moment.
impl ClientCertVerifier for Live {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Every proxy has one certificate: there is nothing to choose.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.clients.load().verify_client_cert(leaf, intermediates, now)
    }

    signatures_of_tls13!();
}

/// Verifies clients with the roots of an authority; a client may show no certificate.
fn clients(authority: &Authority) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let unusable = |error: &dyn std::fmt::Display| TlsError::Config(error.to_string());
    let mut roots = RootCertStore::empty();
    for root in authority.trust_bundle().roots {
        roots.add(root.to_vec().into()).map_err(|error| unusable(&error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| unusable(&error))
}

fn certified(own: OwnCertificate) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(own.chain, own.key, &tls::provider()).map_err(|error| TlsError::Config(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ca::store::Store;

    #[tokio::test(start_paused = true)]
    async fn the_controllers_own_certificate_is_renewed_at_70_percent_of_its_life() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let authority = Arc::new(Authority::open(&store, None, "cluster.local", Duration::from_mins(100)).unwrap());
        let live = Arc::new(Live::new(&authority).unwrap());
        let renew = Arc::clone(&live).renew(authority);
        tokio::pin!(renew);
        let first = live.certificate.load_full();
        // Polled until then, at 69 and 71 minutes of the paused clock, and once more a life later.
        assert!(tokio::time::timeout(Duration::from_mins(69), &mut renew).await.is_err());
        assert!(Arc::ptr_eq(&first, &live.certificate.load_full()));
        assert!(tokio::time::timeout(Duration::from_mins(2), &mut renew).await.is_err());
        let second = live.certificate.load_full();
        assert_ne!(first.cert, second.cert);
        assert!(tokio::time::timeout(Duration::from_mins(70), &mut renew).await.is_err());
        assert_ne!(second.cert, live.certificate.load_full().cert);
    }
}
