//! Where a connection goes, by what is known of its destination (contracts §3), and what it is told where it can go nowhere.

use std::sync::atomic::Ordering;

use mesh_proto::{
    inbound::{DefaultPolicy, InboundPolicy, PortPolicy},
    outbound::{OutboundPolicy, PodTarget},
    workload::Protocol,
};
use mesh_proxy::{
    config::{DataConfig, Unresolved},
    policy::Policies,
};

use crate::{
    refusals::{GET, Witness, code, is_reset},
    support::{Authority, Pod, SERVICE, allow, client, config, exchange, identity, meshed, pair, plain, server},
};

#[tokio::test]
async fn destinations_that_cannot_be_served_have_their_codes() {
    let authority = Authority::new();
    let pod = client(&authority, Protocol::Http1, vec![]);
    assert_eq!(code(&exchange(pod.outbound, GET).await), ("503", Some("no-endpoints")));

    let dead = crate::support::closed_port().await;
    let pod = client(&authority, Protocol::Http1, vec![plain(dead)]);
    assert_eq!(code(&exchange(pod.outbound, GET).await), ("502", Some("connect-failed")));

    let refused = pair(dead, Protocol::Http1);
    assert_eq!(code(&exchange(refused.client.outbound, GET).await), ("502", Some("app-refused")));
    let refused = pair(dead, Protocol::Opaque);
    is_reset(refused.client.outbound, "ping").await;
    refused.client.ended_with("outbound", "app-refused").await;

    let pod = client(&authority, Protocol::Http1, vec![plain(dead)]);
    assert_eq!(
        code(&exchange(pod.outbound, "GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await).1,
        Some("bad-request")
    );
    let connect = "CONNECT web:80 HTTP/1.1\r\nhost: web:80\r\nconnection: close\r\n\r\n";
    assert_eq!(code(&exchange(pod.outbound, connect).await).1, Some("bad-request"));
    let large = format!("GET / HTTP/1.1\r\nhost: web\r\n{}\r\n", "x: 1\r\n".repeat(200));
    assert!(exchange(pod.outbound, &large).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn what_was_never_resolved_is_refused_after_a_second_or_let_past_if_asked_for() {
    let witness = Witness::new().await;
    let credentials = || Authority::new().credentials(&identity("client"));
    let unknown = config("client", "10.9.9.9", witness.app.address);
    let pod = Pod::start(unknown.clone(), Policies::fixed(None, []), credentials());
    assert_eq!(code(&exchange(pod.outbound, GET).await), ("503", Some("discovery-unavailable")));
    is_reset(pod.outbound, "*1\r\n").await;
    witness.untouched();

    let opted_out = DataConfig { unresolved: Unresolved::PassThrough, ..unknown };
    let pod = Pod::start(opted_out, Policies::fixed(None, []), credentials());
    assert!(exchange(pod.outbound, GET).await.ends_with("ok"));
}

#[tokio::test]
async fn what_is_outside_the_mesh_is_passed_through() {
    let witness = Witness::new().await;
    let address = witness.app.address;
    let policies = Policies::fixed(None, [(address, OutboundPolicy::External)]);
    let pod =
        Pod::start(config("client", "10.9.9.9", address), policies, Authority::new().credentials(&identity("client")));
    assert!(exchange(pod.outbound, GET).await.ends_with("ok"));
}

#[tokio::test]
async fn a_pod_dialled_by_its_address_gets_mutual_tls_or_plain_as_it_is_meshed() {
    let witness = Witness::new().await;
    let authority = Authority::new();
    let far = server(&authority, witness.app.address, Some(allow(Protocol::Detect)));
    for (endpoint, tls) in [(meshed(far.inbound, "server"), true), (plain(witness.app.address), false)] {
        let destination = endpoint.address;
        let target = OutboundPolicy::Pod(PodTarget { endpoint, protocol: Protocol::Detect });
        let policies = Policies::fixed(None, [(destination, target)]);
        let config = config("client", "10.9.9.9", destination);
        let pod = Pod::start(config, policies, authority.credentials(&identity("client")));
        assert!(exchange(pod.outbound, GET).await.ends_with("ok"));
        let port = destination.port();
        let edge = format!(
            r#"direction="outbound",dst_namespace="",dst_service="",dst_port="{port}",dst_workload="",client_id="",tls="{tls}""#
        );
        pod.counted(&format!("request_total{{{edge}}} 1")).await;
    }
}

#[tokio::test]
async fn the_own_pod_is_handed_over_in_process_with_the_same_authorization() {
    let witness = Witness::new().await;
    let address = witness.app.address;
    let own = |policy: PortPolicy, outbound: Option<OutboundPolicy>, destination| {
        let policy = InboundPolicy { ports: [].into(), default: policy };
        let policies = Policies::fixed(Some(policy), outbound.map(|outbound| (destination, outbound)));
        let config = config("web", "127.0.0.1", destination);
        Pod::start(config, policies, Authority::new().credentials(&identity("web")))
    };
    let authenticated = PortPolicy { default: DefaultPolicy::Authenticated, ..PortPolicy::default() };
    let nobody = PortPolicy { default: DefaultPolicy::Deny, ..PortPolicy::default() };
    for protocol in [Protocol::Http1, Protocol::Opaque, Protocol::Detect] {
        // Its own address, and a Service that picks this pod.
        let service = crate::support::service(protocol, vec![meshed(address, "web")]);
        for (outbound, destination) in [(None, address), (Some(service), SERVICE.parse().unwrap())] {
            let by_protocol = |policy: &PortPolicy| PortPolicy { protocol, ..policy.clone() };
            let pod = own(by_protocol(&authenticated), outbound.clone(), destination);
            let answer = exchange(pod.outbound, GET).await;
            assert!(answer.ends_with("ok"), "{protocol:?} {destination}: {answer}");
            assert!(
                pod.metrics().contains(r#"client_id="spiffe://cluster.local/ns/shop/sa/web""#),
                "{}",
                pod.metrics()
            );
            let before = witness.bytes.load(Ordering::SeqCst);
            let pod = own(by_protocol(&nobody), outbound, destination);
            if protocol == Protocol::Opaque {
                is_reset(pod.outbound, GET).await;
            } else {
                assert_eq!(code(&exchange(pod.outbound, GET).await), ("403", Some("denied")));
            }
            assert_eq!(witness.bytes.load(Ordering::SeqCst), before);
        }
    }
}

#[tokio::test]
async fn connections_to_the_proxys_own_listeners_are_refused() {
    let authority = Authority::new();
    // Not redirected: the kernel knows no other destination than the listener itself.
    let unredirected = DataConfig {
        original_dst: mesh_proxy::config::OriginalDst::Kernel,
        ..config("web", "127.0.0.1", SERVICE.parse().unwrap())
    };
    let pod = Pod::start(
        unredirected,
        Policies::fixed(Some(allow(Protocol::Detect)), []),
        authority.credentials(&identity("web")),
    );
    is_reset(pod.outbound, GET).await;
    is_reset(pod.inbound, GET).await;
    pod.ended_with("outbound", "loop").await;
    pod.ended_with("inbound", "loop").await;

    // An address that is not the pod's.
    let foreign = config("web", "10.9.9.9", "10.1.2.3:80".parse().unwrap());
    let pod = Pod::start(
        foreign,
        Policies::fixed(Some(allow(Protocol::Detect)), []),
        authority.credentials(&identity("web")),
    );
    is_reset(pod.inbound, GET).await;
    pod.ended_with("inbound", "loop").await;
}
