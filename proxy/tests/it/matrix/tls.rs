//! TLS of the application, end to end through both proxies: they carry it as bytes, inside their own.

use std::sync::Arc;

use mesh_proto::workload::Protocol;
use mesh_runtime::tls;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{App, families, pair, soon};

#[tokio::test]
async fn tls_of_the_application_is_ended_by_the_application() {
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

    let body: Vec<u8> = (0..1_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for ip in families() {
        let acceptor = acceptor.clone();
        // Reads to the end, then answers with what it got.
        let app = App::at(ip, move |socket| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = acceptor.accept(socket).await.unwrap();
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        })
        .await;
        for protocol in [Protocol::Detect, Protocol::Tls, Protocol::Opaque] {
            let pair = pair(app.address, protocol);
            let socket = TcpStream::connect(pair.client.outbound).await.unwrap();
            let name = "app.test".try_into().unwrap();
            let mut stream = soon(connector.connect(name, socket)).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let mut back = Vec::new();
            soon(async {
                stream.write_all(&body).await.unwrap();
                stream.shutdown().await.unwrap();
                stream.read_to_end(&mut back).await.unwrap();
            })
            .await;
            assert_eq!(Sha256::digest(&back), Sha256::digest(&body), "{protocol:?} {ip}");
            assert!(
                pair.server.metrics().contains(r#"client_id="spiffe://cluster.local/ns/shop/sa/client",tls="true""#)
            );
        }
    }
}
