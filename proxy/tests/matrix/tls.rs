//! TLS of the application, end to end through both proxies: they carry it as bytes, inside their own.

use std::sync::Arc;

use mesh_proto::workload::Protocol;
use mesh_runtime::tls;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::stage::{App, Side, Stage, noise, soon};

pub(crate) async fn tls_of_the_application_is_ended_by_the_application(stage: &impl Stage) {
    let key = rcgen::generate_simple_self_signed(vec!["app.test".to_owned()]).unwrap();
    let mut server = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], key.signing_key.into())
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let mut roots = RootCertStore::empty();
    roots.add(key.cert.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(client));

    let body = noise(1_000_000);
    for ip in stage.families() {
        for protocol in [Protocol::Detect, Protocol::Tls, Protocol::Opaque] {
            let (listener, way) = stage.open(protocol, ip);
            let acceptor = acceptor.clone();
            // Reads to the end, then answers with what it got.
            let _app = App::on(listener, move |socket| {
                let acceptor = acceptor.clone();
                async move {
                    let mut stream = acceptor.accept(socket).await.unwrap();
                    let mut bytes = Vec::new();
                    stream.read_to_end(&mut bytes).await.unwrap();
                    stream.write_all(&bytes).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            });
            let name = "app.test".try_into().unwrap();
            let mut stream = soon(connector.connect(name, way.connect())).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let mut back = Vec::new();
            soon(async {
                stream.write_all(&body).await.unwrap();
                stream.shutdown().await.unwrap();
                stream.read_to_end(&mut back).await.unwrap();
            })
            .await;
            assert_eq!(Sha256::digest(&back), Sha256::digest(&body), "{protocol:?} {ip}");
            way.counted(Side::Server, "tcp_open_total", &[super::FROM_CLIENT], 1).await;
        }
    }
}
