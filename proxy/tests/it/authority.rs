//! A certificate authority for tests, and the identities of their mesh.

use mesh_proto::{identity::Identity, trust::TrustBundle};
use mesh_proxy::tls::Credentials;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A mesh's authority.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) root: CertificateDer<'static>,
}

/// Chain and key.
pub(crate) type Issued = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Authority {
    pub(crate) fn new() -> Self {
        Self::with_root(|_| {})
    }

    /// With a root that is not as usual.
    pub(crate) fn with_root(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle { trust_domain: "cluster.local".to_owned(), roots: vec![self.root.as_ref().to_vec().into()] }
    }

    pub(crate) fn leaf(&self, identity: &Identity) -> Issued {
        self.issue(identity.as_str(), |_| {})
    }

    /// A certificate that is not as usual.
    pub(crate) fn issue(&self, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (vec![leaf], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    pub(crate) fn credentials(&self, identity: &Identity) -> Credentials {
        let credentials = Credentials::new(identity.clone());
        let (chain, key) = self.leaf(identity);
        credentials.install(chain, key, &self.bundle()).unwrap();
        credentials
    }
}

/// An identity of the test mesh.
pub(crate) fn identity(name: &str) -> Identity {
    Identity::new("cluster.local", "shop", name).unwrap()
}
