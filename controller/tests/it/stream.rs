//! The configuration stream: who may open it, and what comes over it.

use std::net::SocketAddr;

use mesh_proto::{
    config::{Hello, Key, ProxyMessage, Value},
    outbound::{OutboundPolicy, ServiceTarget},
    outcome::Outcome,
    workload::Protocol,
};

use crate::support::{Client, DEADLINE, Mesh, Proxy, hello, identity, pod, service};

fn outbound(address: &str) -> Key {
    Key::Outbound(address.parse().unwrap())
}

fn target(value: Value) -> ServiceTarget {
    match value {
        Value::Outbound(OutboundPolicy::Service(target)) => target,
        other => panic!("not a Service: {other:?}"),
    }
}

fn endpoints(target: &ServiceTarget, backend: usize) -> Vec<String> {
    target.backends[backend].endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

async fn shop() -> (Mesh, Proxy) {
    let mesh = Mesh::start(&[
        ("load.yaml", &pod("shop", "load-1", "load", "127.0.0.2", true)),
        ("web.yaml", &(pod("shop", "web-1", "web", "10.1.0.1", true) + &service("shop", "web", "10.9.0.1"))),
    ])
    .await;
    let proxy = mesh.proxy("shop", "load", "load-1", "127.0.0.2").await;
    (mesh, proxy)
}

#[tokio::test]
async fn a_service_is_answered_with_its_meshed_endpoints() {
    let (_mesh, mut proxy) = shop().await;
    let target = target(proxy.subscribe(outbound("10.9.0.1:80")).await.value);
    assert_eq!(target.protocol, Protocol::Http1);
    assert_eq!(endpoints(&target, 0), ["10.1.0.1:8080"]);
    assert_eq!(target.backends[0].endpoints[0].identity, Some(identity("shop", "web")));
}

#[tokio::test]
async fn an_unknown_address_is_external_until_a_service_has_it() {
    let (mesh, mut proxy) = shop().await;
    let key = outbound("10.9.0.2:80");
    let first = proxy.subscribe(key).await;
    assert_eq!(first.value, Value::Outbound(OutboundPolicy::External));
    mesh.write("late.yaml", &service("shop", "late", "10.9.0.2"));
    let second = proxy.update().await;
    assert_eq!(&*target(second.value).service.name, "late");
    assert!(second.version > first.version);
    mesh.remove("late.yaml");
    assert_eq!(proxy.update().await.value, Value::Outbound(OutboundPolicy::External));
}

#[tokio::test]
async fn an_endpoint_change_reaches_a_subscribed_stream() {
    let (mesh, mut proxy) = shop().await;
    let key = outbound("10.9.0.1:80");
    proxy.subscribe(key).await;
    mesh.write("web-2.yaml", &pod("shop", "web-2", "web", "10.1.0.2", true));
    assert_eq!(endpoints(&target(proxy.update().await.value), 0), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    mesh.write("web-2.yaml", &pod("shop", "web-2", "web", "10.1.0.2", false));
    assert_eq!(endpoints(&target(proxy.update().await.value), 0), ["10.1.0.1:8080"]);
}

/// An endpoint of a Service, on a node, with the zones that it is for.
fn slice(service: &str, ip: &str, place: &str) -> String {
    format!(
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}-{}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: ['{ip}'], {place}}}]
",
        ip.replace('.', "-")
    )
}

#[tokio::test]
async fn a_pod_whose_zone_becomes_known_is_told_the_near_endpoints() {
    let load = pod("shop", "load-1", "load", "127.0.0.2", true);
    let mesh = Mesh::start(&[
        ("load.yaml", &load.replace("  serviceAccountName", "  nodeName: node-1\n  serviceAccountName")),
        ("web.yaml", &service("shop", "web", "10.9.0.1")),
        ("east.yaml", &slice("web", "10.7.0.1", "hints: {forZones: [{name: east}]}")),
        ("west.yaml", &slice("web", "10.7.0.2", "hints: {forZones: [{name: west}]}")),
    ])
    .await;
    let mut proxy = mesh.proxy("shop", "load", "load-1", "127.0.0.2").await;
    let first = proxy.subscribe(outbound("10.9.0.1:80")).await;
    assert_eq!(endpoints(&target(first.value), 0), ["10.7.0.1:8080", "10.7.0.2:8080"]);
    mesh.write("node.yaml", &slice("other", "10.7.0.9", "nodeName: node-1, zone: west"));
    assert_eq!(endpoints(&target(proxy.update().await.value), 0), ["10.7.0.2:8080"]);
    // Where the zone has none any more, all are used.
    mesh.write("west.yaml", &slice("web", "10.7.0.2", "hints: {forZones: [{name: north}]}"));
    assert_eq!(endpoints(&target(proxy.update().await.value), 0), ["10.7.0.1:8080", "10.7.0.2:8080"]);
}

#[tokio::test]
async fn after_unsubscribe_nothing_more_comes() {
    let (mesh, mut proxy) = shop().await;
    proxy.subscribe(outbound("10.9.0.1:80")).await;
    proxy.send.send(ProxyMessage::Unsubscribe(outbound("10.9.0.1:80"))).await.unwrap();
    // Answered in order: once the other key is answered, the first is no longer subscribed.
    let pod_key = outbound("10.1.0.1:8080");
    proxy.subscribe(pod_key).await;
    // Each of these changes both.
    let service = service("shop", "web", "10.9.0.1");
    let web = pod("shop", "web-1", "web", "10.1.0.1", true) + &service;
    for manifest in [web.replace("appProtocol: http", "appProtocol: grpc"), web] {
        mesh.write("web.yaml", &manifest);
        assert_eq!(proxy.update().await.key, pod_key);
    }
}

#[tokio::test]
async fn a_rejected_update_keeps_the_stream() {
    let (mesh, mut proxy) = shop().await;
    let key = outbound("10.9.0.1:80");
    let update = proxy.subscribe(key).await;
    let reject = ProxyMessage::Reject { key, version: update.version, reason: "no\nuse".into() };
    proxy.send.send(reject).await.unwrap();
    mesh.write("web-2.yaml", &pod("shop", "web-2", "web", "10.1.0.2", true));
    let next = proxy.update().await;
    assert_eq!(endpoints(&target(next.value), 0).len(), 2);
    assert!(mesh.metrics.encode().contains("mesh_controller_rejected_updates_total 1"), "{}", mesh.metrics.encode());
}

#[tokio::test]
async fn a_pod_gets_its_own_inbound_policy_and_the_roots() {
    let (mesh, mut proxy) = shop().await;
    let Value::Inbound(policy) = proxy.subscribe(Key::Inbound).await.value else { panic!() };
    assert_eq!(policy.port(8080).protocol, Protocol::Http1);
    let Value::TrustBundle(bundle) = proxy.subscribe(Key::TrustBundle).await.value else { panic!() };
    assert_eq!(bundle.roots, mesh.roots());
    mesh.write(
        "policy.yaml",
        "apiVersion: meshctl.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\n\
         spec: {ports: [8080], from: [{serviceAccounts: [web]}]}\n",
    );
    let Value::Inbound(policy) = proxy.update().await.value else { panic!() };
    assert_eq!(policy.port(8080).rules.len(), 1);
    assert!(policy.default.rules.is_empty());
}

/// One refusal per fault of a hello.
#[tokio::test]
async fn a_hello_of_anyone_else_is_refused() {
    let pods = pod("shop", "load-1", "load", "127.0.0.2", true)
        + &pod("shop", "web-1", "web", "127.0.0.3", true)
        + &pod("other", "load-1", "load", "127.0.0.4", true);
    let mesh = Mesh::start(&[("pods.yaml", &pods)]).await;
    let load = mesh.certify("shop", "load", "load-1").await;
    let own = hello("shop", "load-1");
    let refused = async |client: &Client, hello: Hello, source: &str| {
        mesh.hello(client, hello, source).await.err().expect("refused").outcome
    };
    let version = |version: &str| Hello { proxy_version: version.into(), ..own.clone() };
    for (fault, hello, source, outcome) in [
        ("a pod with another account", hello("shop", "web-1"), "127.0.0.3", Outcome::IdentityMismatch),
        ("a pod of another namespace", hello("other", "load-1"), "127.0.0.4", Outcome::IdentityMismatch),
        ("another address", own.clone(), "127.0.0.3", Outcome::PodUnknown),
        ("no such pod", hello("shop", "load-2"), "127.0.0.2", Outcome::PodUnknown),
        ("another uid", Hello { pod_uid: "x".into(), ..own.clone() }, "127.0.0.2", Outcome::PodUnknown),
        ("another protocol", Hello { protocol_version: 9, ..own.clone() }, "127.0.0.2", Outcome::VersionUnsupported),
        ("a newer release", version("7.0.0"), "127.0.0.2", Outcome::VersionUnsupported),
        ("two minors away", version("0.3.0"), "127.0.0.2", Outcome::VersionUnsupported),
        ("no release", version("x"), "127.0.0.2", Outcome::VersionUnsupported),
    ] {
        assert_eq!(refused(&load, hello, source).await, Some(outcome), "{fault}");
    }
    mesh.hello(&load, version("0.2.9"), "127.0.0.2").await.unwrap();
    mesh.hello(&load, own, "127.0.0.2").await.unwrap();
}

#[tokio::test]
async fn a_pod_that_the_index_learns_of_a_moment_later_is_let_in() {
    let mesh = Mesh::start(&[]).await;
    let client = mesh.certify("shop", "load", "load-1").await;
    let connect = mesh.hello(&client, hello("shop", "load-1"), "127.0.0.2");
    let (connected, ()) = tokio::join!(connect, async {
        mesh.write("load.yaml", &pod("shop", "load-1", "load", "127.0.0.2", true));
    });
    connected.unwrap();
}

#[tokio::test]
async fn the_stream_needs_a_client_certificate() {
    let (mesh, _proxy) = shop().await;
    let channel = mesh.channel("127.0.0.2", None).await;
    let (send, messages) = tokio::sync::mpsc::channel(1);
    send.send(ProxyMessage::Hello(hello("shop", "load-1"))).await.unwrap();
    let refused = mesh_proto::client::ConfigClient::new(channel).connect(messages).await.err().unwrap();
    assert_eq!(refused.outcome, Some(Outcome::ClientCertificateRequired), "{refused}");
}

#[tokio::test]
async fn a_certificate_of_another_mesh_does_not_get_through_the_handshake() {
    let (mesh, _proxy) = shop().await;
    let other = Mesh::start(&[]).await;
    let foreign = other.certify("shop", "load", "load-1").await;
    let refused = async {
        match mesh.try_channel("127.0.0.2", Some(&foreign)).await {
            // TLS 1.3: the client learns of the refusal with its first read.
            Ok(channel) => {
                let (send, messages) = tokio::sync::mpsc::channel(1);
                send.send(ProxyMessage::Hello(hello("shop", "load-1"))).await.unwrap();
                mesh_proto::client::ConfigClient::new(channel).connect(messages).await.is_err()
            }
            Err(_) => true,
        }
    };
    assert!(tokio::time::timeout(DEADLINE, refused).await.unwrap());
}

#[tokio::test]
async fn every_address_of_a_service_leads_to_it() {
    let (mesh, mut proxy) = shop().await;
    let dual = service("shop", "web", "10.9.0.1").replace("[10.9.0.1]", "[10.9.0.1, 'fd00::1']");
    let mut key = outbound("[fd00::1]:80");
    assert_eq!(proxy.subscribe(key).await.value, Value::Outbound(OutboundPolicy::External));
    mesh.write("web.yaml", &(pod("shop", "web-1", "web", "10.1.0.1", true) + &dual));
    assert_eq!(&*target(proxy.update().await.value).service.name, "web");
    key = Key::Outbound("[::ffff:10.9.0.1]:80".parse::<SocketAddr>().unwrap());
    assert_eq!(&*target(proxy.subscribe(key).await.value).service.name, "web");
}

#[tokio::test]
async fn a_proxy_has_at_most_ten_thousand_subscriptions_and_keeps_those_it_has() {
    let (mesh, mut proxy) = shop().await;
    let key = |number: u16| Key::Outbound(SocketAddr::from(([10, 1, 0, 1], number)));
    let send = proxy.send.clone();
    let subscribe = async {
        for port in 1..=10_001 {
            send.send(ProxyMessage::Subscribe(key(port))).await.unwrap();
        }
    };
    let answers = async {
        for _ in 0..10_000 {
            assert_ne!(proxy.update().await.key, key(10_001));
        }
    };
    tokio::join!(subscribe, answers);
    proxy.send.send(ProxyMessage::Unsubscribe(key(1))).await.unwrap();
    proxy.subscribe(key(10_002)).await;
    assert!(mesh.metrics.encode().contains("mesh_controller_refused_total{call=\"subscribe\",code=\"overloaded\"} 1"));
}

#[tokio::test]
async fn the_table_of_proxies_says_which_release_runs_which_version_since_when() {
    let (mesh, mut proxy) = shop().await;
    let key = outbound("10.9.0.1:80");
    let version = proxy.subscribe(key).await.version;
    proxy.send.send(ProxyMessage::Ack { key, version }).await.unwrap();
    let acknowledged = async {
        loop {
            let row = mesh.page("/proxies").await[0].clone();
            if row["keys"]["outbound 10.9.0.1:80"]["acked"] == version {
                return row;
            }
            tokio::task::yield_now().await;
        }
    };
    let row = tokio::time::timeout(DEADLINE, acknowledged).await.expect("the version is in force");
    assert_eq!((&row["pod"], &row["version"]), (&"shop/load-1".into(), &mesh_runtime::build_info::VERSION.into()));
    assert!(row["connectedSeconds"].as_u64().is_some_and(|seconds| seconds < 60), "{row}");
}

/// Ends with this code.
async fn ends_with(proxy: &mut Proxy, outcome: Outcome) {
    let end = async {
        loop {
            match proxy.stream.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return error.outcome,
            }
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, end).await.expect("an end"), Some(outcome));
}

#[tokio::test]
async fn of_many_streams_of_a_pod_the_oldest_makes_way_and_is_told_so() {
    let (mesh, mut first) = shop().await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(mesh.proxy("shop", "load", "load-1", "127.0.0.2").await);
    }
    ends_with(&mut first, Outcome::Overloaded).await;
    for mut other in others {
        other.subscribe(outbound("10.9.0.1:80")).await;
    }
}

#[tokio::test]
async fn a_stream_that_says_what_it_must_not_ends_with_a_code() {
    let (_mesh, mut proxy) = shop().await;
    proxy.send.send(ProxyMessage::Hello(hello("shop", "load-1"))).await.unwrap();
    ends_with(&mut proxy, Outcome::BadRequest).await;
}

#[tokio::test]
async fn a_proxy_that_does_not_read_is_cut_off_and_the_others_are_not() {
    let (mesh, proxy) = shop().await;
    let mut other = mesh.proxy("shop", "load", "load-1", "127.0.0.2").await;
    is_cut_off_for_not_reading(proxy).await;
    other.subscribe(outbound("10.9.0.1:80")).await;
}

/// Takes as long as the controller waits for its slowest reader.
async fn is_cut_off_for_not_reading(mut proxy: Proxy) {
    // More than fits into every buffer on the way.
    for port in 1..=9_000 {
        let key = Key::Outbound(SocketAddr::from(([10, 1, 0, 1], port)));
        if proxy.send.send(ProxyMessage::Subscribe(key)).await.is_err() {
            break;
        }
    }
    tokio::time::timeout(DEADLINE, proxy.send.closed()).await.expect("the connection is cut");
    let rest = async { while let Ok(Some(_)) = proxy.stream.next().await {} };
    tokio::time::timeout(DEADLINE, rest).await.expect("the stream has ended");
}

/// Of many, because whoever was cut by mistake was cut by chance.
#[tokio::test]
async fn a_proxy_that_had_nothing_to_read_for_long_is_not_taken_for_a_slow_one() {
    let address = |number: usize| format!("127.0.1.{}", number + 1);
    let name = |number: usize| format!("load-{number}");
    let mut load = service("shop", "web", "10.9.0.1");
    load.extend((0..11).map(|number| pod("shop", &name(number), "load", &address(number), true)));
    let web = |ready| pod("shop", "web-1", "web", "10.1.0.1", ready);
    let mesh = Mesh::start(&[("load.yaml", &load), ("web.yaml", &web(true))]).await;
    let mut proxies = Vec::new();
    for number in 0..10 {
        let mut proxy = mesh.proxy("shop", "load", &name(number), &address(number)).await;
        proxy.subscribe(outbound("10.9.0.1:80")).await;
        proxies.push(proxy);
    }
    // Once another was cut off, these had nothing to read for as long.
    is_cut_off_for_not_reading(mesh.proxy("shop", "load", &name(10), &address(10)).await).await;
    mesh.write("web.yaml", &web(false));
    for proxy in &mut proxies {
        proxy.update().await;
    }
}
