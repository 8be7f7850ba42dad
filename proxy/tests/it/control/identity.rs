//! The proxy's own certificate: got with a token, renewed, never anybody else's.

use std::{sync::Arc, time::Duration};

use mesh_proto::{config::Key, outcome::Outcome};
use mesh_proxy::{
    identity::Schedule,
    tls::{Alpn, Credentials, peer_identity},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connect;
use crate::{
    authority::{Authority, identity},
    support::{
        SOON,
        controller::{CONTROLLER, Controller, Signs},
        proxy::{Proxy, inbound},
    },
};

#[tokio::test]
async fn a_proxy_is_ready_when_it_holds_its_certificate_and_its_inbound_policy() {
    let authority = Arc::new(Authority::new());
    let mut controller = Controller::start(&authority).await;
    *controller.signs.lock() = Signs::Not(Outcome::TokenInvalid);
    let proxy = Proxy::start(&authority, controller.address).await;
    assert_eq!(controller.token().await, "first");
    assert_eq!(proxy.readiness.pending(), ["identity", "inbound policy"]);
    assert!(proxy.get("/ready").await.starts_with("HTTP/1.1 503"));
    assert!(proxy.get("/live").await.starts_with("HTTP/1.1 200"));

    *controller.signs.lock() = Signs::For(Duration::from_hours(24));
    let mut session = controller.session().await;
    assert_eq!(session.identity, identity("web"));
    assert_eq!(proxy.readiness.pending(), ["inbound policy"]);
    session.welcome().await;
    session.taken(Key::Inbound, 1, inbound()).await;
    tokio::time::timeout(SOON, proxy.readiness.ready()).await.expect("ready");
    assert!(proxy.get("/ready").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_refused_token_is_counted_by_its_code_and_read_anew_for_the_next_attempt() {
    let authority = Arc::new(Authority::new());
    let mut controller = Controller::start(&authority).await;
    *controller.signs.lock() = Signs::Not(Outcome::TokenExpired);
    let proxy = Proxy::start(&authority, controller.address).await;
    assert_eq!(controller.token().await, "first");
    proxy.counted("control_identity_cert_failures_total{code=\"token-expired\"} ").await;
    std::fs::write(proxy.dir.path().join("token"), "second").unwrap();
    *controller.signs.lock() = Signs::For(Duration::from_hours(24));
    while controller.token().await != "second" {}
    proxy.certified().await;
    proxy.counted("control_identity_cert_refreshes_total 1").await;
}

#[tokio::test]
async fn a_token_goes_to_nobody_but_the_controller() {
    let authority = Arc::new(Authority::new());
    let stranger = Authority::new();
    let day = Duration::from_hours(24);
    let expired = |params: &mut rcgen::CertificateParams| {
        params.not_after = (std::time::SystemTime::now() - day).into();
    };
    for leaf in [
        authority.issue("spiffe://cluster.local/ns/mesh-system/sa/mesh-injector", |_| {}),
        authority.issue("spiffe://other/ns/mesh-system/sa/mesh-controller", |_| {}),
        authority.issue(CONTROLLER, expired),
        stranger.issue(CONTROLLER, |_| {}),
    ] {
        let mut controller = Controller::start_at("127.0.0.1:0".parse().unwrap(), &authority, leaf).await;
        let proxy = Proxy::start(&authority, controller.address).await;
        proxy.counted("control_identity_cert_failures_total{code=\"controller-not-proved\"} ").await;
        assert!(controller.tokens.try_recv().is_err());
        assert!(proxy.credentials.facts().is_none());
    }
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_not_used() {
    let authority = Arc::new(Authority::new());
    let controller = Controller::start(&authority).await;
    *controller.signs.lock() = Signs::SomebodyElse(authority.clone());
    let proxy = Proxy::start(&authority, controller.address).await;
    proxy.counted("control_identity_cert_failures_total{code=\"certificate-unusable\"} ").await;
    assert!(proxy.credentials.client(Alpn::H2).is_err());
}

#[tokio::test]
async fn a_renewal_breaks_no_open_connection() {
    let authority = Arc::new(Authority::new());
    let controller = Controller::start(&authority).await;
    *controller.signs.lock() = Signs::For(Duration::from_mins(1));
    let soon = Schedule { after: 0.005, jitter: 0.0, at_least: Duration::ZERO };
    let proxy = Proxy::start_with(&authority, controller.address, soon).await;
    proxy.certified().await;
    let peer = authority.credentials(&identity("peer"));
    let (mut client, mut server) = connect(&peer, &proxy.credentials).await;
    let first = proxy.credentials.facts().unwrap().serial;
    let mut changes = proxy.credentials.changes();
    while proxy.credentials.facts().unwrap().serial == first {
        tokio::time::timeout(SOON, changes.changed()).await.expect("a renewal").unwrap();
    }
    client.write_all(b"still").await.unwrap();
    let mut still = [0; 5];
    server.read_exact(&mut still).await.unwrap();
    server.write_all(b"there").await.unwrap();
    client.read_exact(&mut still).await.unwrap();
    assert_eq!(&still, b"there");
    let (client, _server) = connect(&peer, &proxy.credentials).await;
    assert_eq!(peer_identity(client.get_ref().1.peer_certificates()), Ok(identity("web")));
}

#[tokio::test]
async fn an_expired_certificate_serves_nobody() {
    let authority = Arc::new(Authority::new());
    let credentials = Credentials::new(identity("web"));
    let (chain, key) = authority.issue(identity("web").as_str(), |params| {
        params.not_after = (std::time::SystemTime::now() + Duration::from_secs(2)).into();
    });
    credentials.install(chain, key, &authority.bundle()).unwrap();
    let deadline = tokio::time::Instant::now() + SOON;
    while credentials.server().is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "it expired long ago");
        tokio::task::yield_now().await;
    }
    assert!(credentials.client(Alpn::Tcp).is_err());
    assert!(credentials.facts().is_some(), "people can still see it");
}
