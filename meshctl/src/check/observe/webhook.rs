//! The certificate that the webhook presents: looked at, not believed. Whether it is good is the judge's to say.

use std::sync::Arc;

use jiff::Timestamp;
use mesh_proto::names;
use mesh_runtime::tls;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::WebPkiSupportedAlgorithms,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::Unseen;
use crate::{
    cluster::{Cluster, PodInfo},
    failure::Failure,
};

/// What checks look at.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    /// DNS names that it is for.
    pub(crate) names: Vec<String>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

/// Asks the injector of a pod for its certificate.
pub(super) async fn certificate(cluster: &Cluster, pod: &PodInfo) -> Result<Certificate, Unseen> {
    let handshake = async {
        let stream = cluster.connect(pod, names::PORT_INJECTOR).await.map_err(Failure::from)?;
        let name = ServerName::try_from(names::INJECTOR_NAME).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(config().map_err(|error| error.to_string())?));
        let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(|chain| chain.first()).ok_or("it presents no certificate")?;
        Ok(read(leaf)?)
    };
    let timed_out = |_| Unseen::from(format!("timed out after {:?}", cluster.limit()));
    tokio::time::timeout(cluster.limit(), handshake).await.map_err(timed_out)?
}

fn read(der: &[u8]) -> Result<Certificate, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("its certificate: {error}"))?;
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
    })
}

fn config() -> Result<ClientConfig, rustls::Error> {
    let provider = tls::provider();
    let looking = Arc::new(Looking(provider.signature_verification_algorithms));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(tls::TLS13)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(looking).with_no_client_auth())
}

/// Lets every certificate through, so that a bad one can be described. Nothing is sent over the connection.
#[derive(Debug)]
struct Looking(WebPkiSupportedAlgorithms);

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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
