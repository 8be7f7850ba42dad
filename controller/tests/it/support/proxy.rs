//! Proxies as the controller meets them: what they say, what they hold, whom they trust.

use bytes::Bytes;
use mesh_controller::ca::{issuer, token::Pod};
use mesh_proto::{
    client::{Certified, ConfigStream, Incoming},
    config::{ControllerMessage, Hello, Key, PROTOCOL_VERSION, ProxyMessage, Update},
    identity::Identity,
};
use mesh_runtime::{
    build_info,
    tls::{self, signatures_of_tls13},
};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::{
    RootCertStore,
    client::danger::{ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};
use tokio::sync::mpsc;

use super::DEADLINE;

/// A certificate and its key.
pub(crate) struct Client {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Client {
    pub(crate) fn new(certified: Certified, key: &KeyPair) -> Self {
        let chain = certified.chain.into_iter().map(|der| der.to_vec().into()).collect();
        Self { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    }
}

/// A connected proxy.
pub(crate) struct Proxy {
    pub(crate) send: mpsc::Sender<ProxyMessage>,
    pub(crate) stream: ConfigStream,
}

impl Proxy {
    pub(crate) async fn next(&mut self) -> ControllerMessage {
        let message = tokio::time::timeout(DEADLINE, self.stream.next()).await.expect("a message in time");
        match message.unwrap().expect("the stream goes on") {
            Incoming::Message(message) => message,
            unusable @ Incoming::Unusable { .. } => panic!("{unusable:?}"),
        }
    }

    pub(crate) async fn update(&mut self) -> Update {
        match self.next().await {
            ControllerMessage::Update(update) => update,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn subscribe(&mut self, key: Key) -> Update {
        self.send.send(ProxyMessage::Subscribe(key)).await.unwrap();
        let update = self.update().await;
        assert_eq!(update.key, key);
        update
    }
}

pub(crate) fn identity(namespace: &str, account: &str) -> Identity {
    Identity::new("cluster.local", namespace, account).unwrap()
}

pub(crate) fn pod_claim(namespace: &str, name: &str) -> Pod {
    Pod { namespace: namespace.into(), name: name.into(), uid: format!("uid-{name}") }
}

pub(crate) fn hello(namespace: &str, pod: &str) -> Hello {
    Hello {
        pod_namespace: namespace.into(),
        pod_name: pod.into(),
        pod_uid: format!("uid-{pod}"),
        proxy_version: build_info::VERSION.into(),
        protocol_version: PROTOCOL_VERSION,
    }
}

/// A certificate request with these URI SANs.
pub(crate) fn csr(key: &KeyPair, uris: &[&str]) -> Bytes {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.serialize_request(key).unwrap().der().to_vec().into()
}

/// Trusts the controller by root and SPIFFE id, as a proxy does.
#[derive(Debug)]
pub(super) struct ControllerVerifier(pub(super) RootCertStore);

impl ServerCertVerifier for ControllerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let algorithms = tls::provider().signature_verification_algorithms.all;
        let parsed = rustls::server::ParsedCertificate::try_from(leaf)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &self.0, intermediates, now, algorithms)?;
        match issuer::identity_of(leaf) {
            Ok(found) if found == identity("mesh-system", "mesh-controller") => Ok(ServerCertVerified::assertion()),
            other => Err(rustls::Error::General(format!("{other:?}"))),
        }
    }

    signatures_of_tls13!();
}
