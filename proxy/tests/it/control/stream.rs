//! The configuration stream: what is taken, what is rejected, and what stays in force while nobody is there.

use std::{sync::Arc, time::Duration};

use mesh_proto::{
    config::{Key, ProxyMessage, Value},
    names,
    outbound::OutboundPolicy,
    trust::TrustBundle,
};
use mesh_proxy::tls::{Alpn, Credentials};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::connect;
use crate::{
    authority::{Authority, identity},
    support::{
        controller::{CONTROLLER, Controller},
        proxy::{Proxy, destination, inbound, start},
    },
};

#[tokio::test]
async fn a_bad_update_is_rejected_by_name_and_the_last_good_one_stays() {
    let (authority, mut controller, proxy) = start().await;
    let mut session = controller.welcomed().await;
    session.taken(Key::TrustBundle, 1, Value::TrustBundle(authority.bundle())).await;
    let foreign = TrustBundle { trust_domain: "other".into(), ..Authority::new().bundle() };
    let garbage = TrustBundle { roots: vec![b"no certificate".to_vec().into()], ..authority.bundle() };
    for (version, bundle, why) in [(2, foreign, "trust domain"), (3, garbage, "root 0")] {
        session.update(Key::TrustBundle, version, Value::TrustBundle(bundle)).await;
        let ProxyMessage::Reject { key, version: rejected, reason } = session.said().await else {
            panic!("version {version} was not rejected");
        };
        assert_eq!((key, rejected), (Key::TrustBundle, version));
        assert!(reason.contains(why), "{reason}");
    }
    proxy.counted("policy_rejected_total{kind=\"trust-bundle\"} 2").await;
    let peer = authority.credentials(&identity("peer"));
    connect(&peer, &proxy.credentials).await;
}

#[tokio::test]
async fn a_new_root_is_trusted_at_once_and_a_withdrawn_one_no_more() {
    let (old, new) = (Arc::new(Authority::new()), Authority::new());
    let mut controller = Controller::start(&old).await;
    let proxy = Proxy::start(&old, controller.address).await;
    let mut session = controller.welcomed().await;
    let mut both = old.bundle();
    both.roots.extend(new.bundle().roots);
    session.taken(Key::TrustBundle, 1, Value::TrustBundle(both.clone())).await;
    let peer = Credentials::new(identity("peer"));
    let (chain, key) = new.leaf(&identity("peer"));
    peer.install(chain, key, &both).unwrap();
    connect(&peer, &proxy.credentials).await;
    session.taken(Key::TrustBundle, 2, Value::TrustBundle(new.bundle())).await;
    let kept = std::fs::read_to_string(proxy.dir.path().join(names::TRUST_BUNDLE_KEY)).unwrap();
    assert_eq!(kept.matches("BEGIN").count(), 1, "the container's next life starts with the new root alone");
    let peer = old.credentials(&identity("peer"));
    let (near, far) = tokio::io::duplex(16 * 1024);
    let connector = TlsConnector::from(peer.client(Alpn::Tcp).unwrap());
    let acceptor = TlsAcceptor::from(proxy.credentials.server().unwrap());
    let (_, refused) = tokio::join!(connector.connect(peer.server_name(), near), acceptor.accept(far));
    assert!(refused.is_err());
}

#[tokio::test]
async fn while_the_controller_is_away_known_destinations_serve_and_new_ones_are_refused() {
    let (authority, mut controller, proxy) = start().await;
    let mut session = controller.welcomed().await;
    session.taken(Key::Inbound, 1, inbound()).await;
    let known = Key::Outbound(destination(1));
    let answer = async {
        assert_eq!(session.said().await, ProxyMessage::Subscribe(known));
        session.taken(known, 1, Value::Outbound(OutboundPolicy::External)).await;
    };
    let (policy, ()) = tokio::join!(proxy.policies.outbound(destination(1)), answer);
    assert_eq!(**policy.unwrap().borrow(), OutboundPolicy::External);
    proxy.counted("controller_connected 1").await;

    let address = controller.address;
    drop(session);
    controller.stop().await;
    proxy.counted("controller_connected 0").await;
    assert!(proxy.policies.outbound(destination(1)).await.is_ok());
    assert!(proxy.policies.outbound(destination(2)).await.is_err());
    assert!(proxy.policies.inbound().borrow().is_some());
    assert!(proxy.policies.age() > Duration::ZERO);

    let mut controller = Controller::start_at(address, &authority, authority.issue(CONTROLLER, |_| {})).await;
    let mut session = controller.welcomed().await;
    let mut asked = [session.said().await, session.said().await].map(|message| match message {
        ProxyMessage::Subscribe(key) => key,
        other => panic!("{other:?}"),
    });
    asked.sort();
    assert_eq!(asked, [known, Key::Outbound(destination(2))]);
    session.taken(Key::Outbound(destination(2)), 1, Value::Outbound(OutboundPolicy::External)).await;
    assert!(proxy.policies.outbound(destination(2)).await.is_ok());
}

#[tokio::test]
async fn a_destination_that_was_idle_for_a_day_is_served_when_the_controller_goes() {
    let (_authority, mut controller, proxy) = start().await;
    let mut session = controller.welcomed().await;
    session.taken(Key::Inbound, 1, inbound()).await;
    let idle = Key::Outbound(destination(1));
    let answer = async {
        assert_eq!(session.said().await, ProxyMessage::Subscribe(idle));
        session.taken(idle, 1, Value::Outbound(OutboundPolicy::External)).await;
    };
    let (policy, ()) = tokio::join!(proxy.policies.outbound(destination(1)), answer);
    drop(policy);
    // While the controller could be asked again, and after.
    hours_pass(&proxy, 24).await;
    assert_eq!(proxy.policies.len(), 1);
    drop(session);
    controller.stop().await;
    proxy.counted("controller_connected 0").await;
    hours_pass(&proxy, 2).await;
    assert!(proxy.policies.outbound(destination(1)).await.is_ok(), "idle for 26 hours");
    assert!(proxy.policies.outbound(destination(2)).await.is_err(), "never resolved");
    assert!(proxy.policies.age() >= Duration::from_hours(2));
}

/// For every timer of the control side, in one step, so that no peer seems to be silent for so long.
async fn hours_pass(proxy: &Proxy, hours: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_hours(hours)).await;
    tokio::time::resume();
    // What was due has been done when the next question is answered.
    assert!(proxy.get("/live").await.starts_with("HTTP/1.1 200"));
}
