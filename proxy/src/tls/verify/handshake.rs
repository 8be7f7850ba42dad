//! The verdict of [`Roots`] where rustls asks for one: in a handshake, as a client and as a server.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_proto::identity::Identity;
use mesh_runtime::tls::signatures_of_tls13;
use rustls::{
    CertificateError, DistinguishedName, OtherError,
    client::danger::{ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{Rejected, Roots, Usage};

/// Verifies servers.
#[derive(Debug)]
pub struct Servers {
    roots: Arc<Roots>,
    only: Option<Identity>,
}

impl Servers {
    /// Any identity of the mesh.
    pub fn of_mesh(roots: Arc<Roots>) -> Self {
        Self { roots, only: None }
    }

    /// This identity alone.
    pub fn only(roots: Arc<Roots>, identity: Identity) -> Self {
        Self { roots, only: Some(identity) }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let identity = self.roots.verify(&chain(leaf, intermediates), Usage::Server, time(now)).map_err(alert)?;
        match &self.only {
            Some(expected) if *expected != identity => {
                Err(alert(Rejected::Unexpected { identity, expected: expected.clone() }))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    signatures_of_tls13!();
}

/// Verifies clients, of which a certificate is required.
#[derive(Debug)]
pub struct Clients(Arc<Roots>);

impl Clients {
    /// Any identity of the mesh.
    pub fn of_mesh(roots: Arc<Roots>) -> Self {
        Self(roots)
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.0.subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify(&chain(leaf, intermediates), Usage::Client, time(now)).map_err(alert)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures_of_tls13!();
}

fn chain<'a>(leaf: &CertificateDer<'a>, intermediates: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(intermediates).cloned().collect()
}

fn time(now: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs())
}

/// As rustls wants it, with our reason kept for whoever logs the failed handshake.
fn alert(rejected: Rejected) -> rustls::Error {
    tracing::debug!(reason = %rejected, "a peer's certificate was refused");
    let error = match rejected {
        Rejected::Missing => return rustls::Error::NoCertificatesPresented,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    rustls::Error::InvalidCertificate(error)
}

impl Rejected {
    /// The rejection inside an error of rustls (or of I/O that carries one), where it is ours.
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(rejected) = error.downcast_ref::<Self>() {
                return Some(rejected);
            }
            if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) =
                error.downcast_ref::<rustls::Error>()
            {
                return other.downcast_ref::<Self>();
            }
            if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                next = Some(inner);
                continue;
            }
            next = error.source();
        }
        None
    }
}
