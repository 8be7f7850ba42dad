//! The certificate that the webhook presents, looked at and not believed, and whom the API server trusts in its place.
//! Whether they fit is the judge's to ask of [`verify`], which is pure.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use mesh_proto::names;
use mesh_runtime::tls::{self, signatures_of_tls13};
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    client::{
        WebPkiServerVerifier,
        danger::{ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use serde_json::Value;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::Unseen;
use crate::{
    cluster::{Cluster, ClusterError, PodInfo},
    failure::Failure,
};

/// What checks look at.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    /// DNS names that it is for.
    pub(crate) names: Vec<String>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// It, and what was presented with it.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// The webhook configuration, as the API server has it: its entries by name, and whom each trusts (PEM).
#[derive(Debug, Clone, Default)]
pub(crate) struct Registered(pub(crate) Vec<(String, Option<Vec<u8>>)>);

/// Reads the webhook configuration; none on the playground.
pub(super) async fn registered(cluster: &Cluster) -> Option<Result<Registered, Unseen>> {
    let path = format!("{CONFIGURATIONS}/{}", names::INJECTOR_NAME);
    let unseen = |error: ClusterError| match error {
        // That it is not there, in most cases.
        ClusterError::NotFound { reason, .. } | ClusterError::Answer { reason, .. } => reason.into(),
        error => Unseen::from(Failure::from(error)),
    };
    Some(cluster.get(&path).await?.map(|object| entries(&object)).map_err(unseen))
}

fn entries(object: &Value) -> Registered {
    let entry = |entry: &Value| {
        let bundle = entry["clientConfig"]["caBundle"].as_str().filter(|text| !text.is_empty());
        // What is no base64 is no PEM either, and is told as that.
        let bundle = bundle.map(|text| STANDARD.decode(text).unwrap_or_default());
        (entry["name"].as_str().unwrap_or_default().to_owned(), bundle)
    };
    Registered(object["webhooks"].as_array().into_iter().flatten().map(entry).collect())
}

/// Whether whoever trusts `bundle` (PEM) would take the chain for that of `name`, as the API server does it. Its dates and
/// its name are looked at elsewhere.
pub(crate) fn verify(chain: &[CertificateDer<'_>], bundle: &[u8], name: &str, now: Timestamp) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle) {
        let root = root.map_err(|error| format!("it cannot be read: {error}"))?;
        roots.add(root).map_err(|error| format!("it cannot be read: {error}"))?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider()).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let (leaf, others) = chain.split_first().ok_or("the webhook presents no certificate")?;
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)));
    match verifier.verify_server_cert(leaf, others, &name, &[], now) {
        Ok(_)
        | Err(rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. },
        )) => Ok(()),
        // An authority that was made anew may have the name of the one before.
        Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            Err("nobody in it has signed what the webhook presents".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// Asks the injector of a pod for its certificate.
pub(super) async fn certificate(cluster: &Cluster, pod: &PodInfo) -> Result<Certificate, Unseen> {
    let handshake = async {
        let stream = cluster.connect(pod, names::PORT_INJECTOR).await.map_err(Failure::from)?;
        let name = ServerName::try_from(names::INJECTOR_NAME).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(config().map_err(|error| error.to_string())?));
        let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|one| one.clone().into_owned()).collect::<Vec<_>>();
        Ok(read(chain)?)
    };
    let timed_out = |_| Unseen::from(format!("timed out after {:?}", cluster.limit()));
    tokio::time::timeout(cluster.limit(), handshake).await.map_err(timed_out)?
}

fn read(chain: Vec<CertificateDer<'static>>) -> Result<Certificate, String> {
    let leaf = chain.first().cloned().ok_or("it presents no certificate")?;
    let (_, certificate) = X509Certificate::from_der(&leaf).map_err(|error| format!("its certificate: {error}"))?;
    let time = |seconds: i64| Timestamp::from_second(seconds).map_err(|error| format!("its certificate: {error}"));
    let san = certificate.subject_alternative_name().ok().flatten();
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    Ok(Certificate {
        names: san.into_iter().flat_map(|san| san.value.general_names.iter().filter_map(dns)).collect(),
        not_before: time(certificate.validity().not_before.timestamp())?,
        not_after: time(certificate.validity().not_after.timestamp())?,
        chain,
    })
}

fn config() -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(tls::provider()).with_protocol_versions(tls::TLS13)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Looking)).with_no_client_auth())
}

/// Lets every certificate through, so that a bad one can be described. Nothing is sent over the connection.
#[derive(Debug)]
struct Looking;

impl ServerCertVerifier for Looking {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_tls13!();
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use serde_json::json;

    use super::*;

    /// An authority as PEM, and what it signs for the injector.
    fn signed() -> (String, CertificateDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let leaf = CertificateParams::new(vec!["mesh-injector.mesh-system.svc".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        (authority, leaf.der().clone())
    }

    #[test]
    fn the_chain_must_lead_to_the_bundle() {
        let ((one, leaf), (other, _)) = (signed(), signed());
        let verify = |bundle: &str| {
            verify(std::slice::from_ref(&leaf), bundle.as_bytes(), "mesh-injector.mesh-system.svc", Timestamp::now())
        };
        assert_eq!(verify(&one), Ok(()));
        assert_eq!(verify(&format!("{other}{one}")), Ok(()), "while one replaces the other");
        for (bundle, reason) in
            [(other.as_str(), "nobody in it has signed"), ("", "holds no certificate"), ("nonsense", "holds no")]
        {
            let error = verify(bundle).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn entries_have_a_bundle_or_none() {
        let object = json!({"webhooks": [
            {"name": "a", "clientConfig": {"caBundle": "eA=="}}, {"name": "b", "clientConfig": {}},
            {"name": "c", "clientConfig": {"caBundle": ""}},
        ]});
        let expected = [("a".to_owned(), Some(b"x".to_vec())), ("b".to_owned(), None), ("c".to_owned(), None)];
        assert_eq!(entries(&object).0, expected);
        assert_eq!(entries(&json!({})).0, []);
    }
}
