//! Who is let in by TLS, in both directions: each refusal for its own reason, found by the side that refuses.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_proto::{identity::Identity, trust::TrustBundle};
use mesh_proxy::tls::{
    Alpn, Credentials, PeerIdentityError, Roots,
    verify::{Rejected, Servers},
};
use mesh_runtime::tls;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::{ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::{Authority, Issued, identity};

const DAY: Duration = Duration::from_hours(24);

/// A certificate that must not be taken, and what the refusal must say.
struct Case {
    what: &'static str,
    issued: Issued,
    as_client: fn(&Rejected) -> bool,
    as_server: fn(&Rejected) -> bool,
}

fn same(what: &'static str, issued: Issued, expected: fn(&Rejected) -> bool) -> Case {
    Case { what, issued, as_client: expected, as_server: expected }
}

fn cases(authority: &Authority, aged: &Authority) -> Vec<Case> {
    let web = identity("web").to_string();
    let later = |params: &mut rcgen::CertificateParams| params.not_before = (SystemTime::now() + DAY).into();
    let expired = |params: &mut rcgen::CertificateParams| params.not_after = (SystemTime::now() - DAY).into();
    let twice = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names.push(SanType::URI("spiffe://cluster.local/ns/a/sa/b".try_into().unwrap()));
    };
    let nameless = |params: &mut rcgen::CertificateParams| params.subject_alt_names.clear();
    let foreign = "spiffe://other/ns/shop/sa/web";
    let only = |usage| move |params: &mut rcgen::CertificateParams| params.extended_key_usages = vec![usage];
    let never: fn(&Rejected) -> bool = |_| false;
    vec![
        same("expired", authority.issue(&web, expired), |r| matches!(r, Rejected::Expired(_))),
        same("not valid yet", authority.issue(&web, later), |r| matches!(r, Rejected::NotYetValid(_))),
        same("of a stranger", Authority::new().leaf(&identity("web")), |r| matches!(r, Rejected::UnknownIssuer { .. })),
        same("of a root that expired", aged.leaf(&identity("web")), |r| matches!(r, Rejected::RootNotValid { .. })),
        same("foreign", authority.issue(foreign, |_| {}), |r| matches!(r, Rejected::ForeignTrustDomain { .. })),
        same("of two identities", authority.issue(&web, twice), |r| {
            matches!(r, Rejected::Identity(PeerIdentityError::NotOneUri(2)))
        }),
        same("of no identity", authority.issue(&web, nameless), |r| {
            matches!(r, Rejected::Identity(PeerIdentityError::NotOneUri(0)))
        }),
        same("not SPIFFE", authority.issue("https://cluster.local/ns/shop/sa/web", |_| {}), |r| {
            matches!(r, Rejected::Identity(PeerIdentityError::Identity(_)))
        }),
        Case {
            what: "for servers alone",
            issued: authority.issue(&web, only(ExtendedKeyUsagePurpose::ServerAuth)),
            as_client: |r| matches!(r, Rejected::Purpose),
            as_server: never,
        },
        Case {
            what: "for clients alone",
            issued: authority.issue(&web, only(ExtendedKeyUsagePurpose::ClientAuth)),
            as_client: never,
            as_server: |r| matches!(r, Rejected::Purpose),
        },
    ]
}

/// A mesh whose bundle also has a root that is over.
fn mesh() -> (Authority, Authority, Credentials) {
    let authority = Authority::new();
    let aged = Authority::with_root(|params| {
        // Another name than the good root's: it must be told which one is over.
        params.distinguished_name.push(rcgen::DnType::CommonName, "aged");
        params.not_after = (SystemTime::now() - DAY).into();
    });
    let mut bundle = authority.bundle();
    bundle.roots.extend(aged.bundle().roots);
    let credentials = Credentials::new(identity("server"));
    let (chain, key) = authority.leaf(&identity("server"));
    credentials.install(chain, key, &bundle).unwrap();
    (authority, aged, credentials)
}

#[tokio::test]
async fn a_client_that_does_not_prove_an_identity_is_refused_for_its_reason() {
    let (authority, aged, own) = mesh();
    for Case { what, issued, as_client, .. } in cases(&authority, &aged) {
        let client = client_config(&authority.bundle(), Some(issued));
        let (_, answer) = handshake(client, own.server().unwrap()).await;
        match answer.as_ref().err().and_then(|error| Rejected::find(error)) {
            Some(rejected) => assert!(as_client(rejected), "{what}: {rejected}"),
            None => assert!(what == "for clients alone" && answer.is_ok(), "{what}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_prove_an_identity_is_refused_for_its_reason() {
    let (authority, aged, own) = mesh();
    for Case { what, issued, as_server, .. } in cases(&authority, &aged) {
        let server = server_config(&authority, issued);
        let (answer, _) = handshake(own.client(Alpn::Tcp).unwrap(), server).await;
        match answer.as_ref().err().and_then(|error| Rejected::find(error)) {
            Some(rejected) => assert!(as_server(rejected), "{what}: {rejected}"),
            None => assert!(what == "for servers alone" && answer.is_ok(), "{what}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let (authority, _, own) = mesh();
    let (_, answer) = handshake(client_config(&authority.bundle(), None), own.server().unwrap()).await;
    assert!(answer.unwrap_err().to_string().contains("no certificates"));
}

#[tokio::test]
async fn only_mesh_alpn_is_spoken() {
    let (authority, _, own) = mesh();
    let issued = authority.leaf(&identity("web"));
    let mut client = (*client_config(&authority.bundle(), Some(issued))).clone();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let (_, answer) = handshake(Arc::new(client), own.server().unwrap()).await;
    assert!(answer.is_err());
}

#[tokio::test]
async fn every_session_is_a_full_handshake() {
    let (authority, _, own) = mesh();
    let peer = authority.credentials(&identity("web"));
    for _ in 0..2 {
        let (client, server) = handshake(peer.client(Alpn::Http1).unwrap(), own.server().unwrap()).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        assert_eq!(client.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(server.get_ref().1.alpn_protocol(), Some(Alpn::Http1.as_bytes()));
    }
}

#[test]
fn a_certificate_is_installed_only_with_its_own_key_identity_and_roots() {
    let authority = Authority::new();
    let own = Credentials::new(identity("web"));
    let (chain, _) = authority.leaf(&identity("web"));
    let (_, other_key) = authority.leaf(&identity("web"));
    assert!(own.install(chain.clone(), other_key.clone_key(), &authority.bundle()).is_err(), "another key");
    let (chain_of_other, key) = authority.leaf(&identity("other"));
    let error = own.install(chain_of_other, key, &authority.bundle()).unwrap_err().to_string();
    assert!(error.contains("not for spiffe://cluster.local/ns/shop/sa/web"), "{error}");
    let (chain, key) = authority.leaf(&identity("web"));
    let error = own.install(chain, key, &Authority::new().bundle()).unwrap_err().to_string();
    assert!(error.contains("vouches"), "{error}");
    assert!(own.facts().is_none());
}

fn client_config(bundle: &TrustBundle, issued: Option<Issued>) -> Arc<ClientConfig> {
    let servers = Servers::of_mesh(Arc::new(Roots::new(bundle).unwrap()));
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(tls::TLS13)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers));
    let mut config = match issued {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![Alpn::Tcp.as_bytes().to_vec()];
    Arc::new(config)
}

fn server_config(authority: &Authority, (chain, key): Issued) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    for root in authority.bundle().roots {
        roots.add(root.to_vec().into()).unwrap();
    }
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), tls::provider()).build().unwrap();
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(tls::TLS13)
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![Alpn::Tcp.as_bytes().to_vec()];
    Arc::new(config)
}

type Side<S> = std::io::Result<S>;
type Near = tokio_rustls::client::TlsStream<tokio::io::DuplexStream>;
type Far = tokio_rustls::server::TlsStream<tokio::io::DuplexStream>;

async fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (Side<Near>, Side<Far>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = Credentials::new(Identity::new("cluster.local", "shop", "x").unwrap()).server_name();
    tokio::join!(TlsConnector::from(client).connect(name, near), TlsAcceptor::from(server).accept(far))
}
