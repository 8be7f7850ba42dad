//! The admin port: what its pages say, and to whom.

use mesh_proto::{
    admin,
    client::TapClient,
    config::{Key, ProxyMessage, Value},
    names,
    tap::{Direction, TapEvent, TapFilter},
    workload::Protocol,
};

use crate::{
    authority::identity,
    support::proxy::{Proxy, ask, destination, inbound, start},
};

#[tokio::test]
async fn the_configuration_page_tells_certificate_roots_and_what_is_known() {
    let (_authority, mut controller, proxy) = start().await;
    let mut session = controller.welcomed().await;
    session.taken(Key::Inbound, 7, inbound()).await;
    assert_eq!(pages(&proxy, &mut session).await, 1);
    let page = proxy.get("/config").await;
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let page: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(page["identity"], identity("web").as_str());
    assert_eq!(page["certificate"]["serial"], proxy.credentials.facts().unwrap().serial);
    assert!(page["certificate"]["notAfter"].as_str().unwrap().ends_with('Z'));
    assert_eq!(page["trustBundle"]["trustDomain"], "cluster.local");
    assert_eq!(page["trustBundle"]["roots"], 1);
    let page: admin::Config = serde_json::from_value(page).unwrap();
    let inbound = page.inbound.unwrap();
    assert_eq!((inbound.version, inbound.default.default_policy.as_str()), (7, "allow"));
    assert_eq!((page.pod.as_str(), page.targets, page.draining), ("shop/web-1", 1, false));
    let source = |name: &str| page.settings.iter().find(|setting| setting.name == name).unwrap().source.as_str();
    assert_eq!((source(names::ENV_POD_NAME), source(names::ENV_LOG)), ("environment", "default"));
    assert!(page.controller.connected);
    assert!(!body.contains("PRIVATE") && !body.contains("first"), "no key and no token");
}

/// What the other two pages say of one destination; how many there are.
async fn pages(proxy: &Proxy, session: &mut crate::support::controller::Session) -> usize {
    let known = Key::Outbound(destination(1));
    let policy = crate::support::service(Protocol::Http1, vec![crate::support::meshed(destination(9), "server")]);
    let answer = async {
        assert_eq!(session.said().await, ProxyMessage::Subscribe(known));
        session.taken(known, 3, Value::Outbound(policy)).await;
    };
    let (known, ()) = tokio::join!(proxy.policies.outbound(destination(1)), answer);
    known.unwrap();
    let body = |answer: String| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    let endpoints: admin::Endpoints = serde_json::from_str(&body(proxy.get(admin::ENDPOINTS).await)).unwrap();
    let target = &endpoints.items[0];
    assert_eq!((target.kind.as_str(), target.name.as_deref(), target.version), ("service", Some("shop/web:80"), 3));
    let endpoint = &target.backends[0].endpoints[0];
    assert_eq!((endpoint.address, endpoint.identity.as_deref()), (destination(9), Some(identity("server").as_str())));
    assert!(endpoint.load.is_none(), "it was never used");
    let connections: admin::Connections = serde_json::from_str(&body(proxy.get(admin::CONNECTIONS).await)).unwrap();
    assert!(connections.items.is_empty());
    endpoints.items.len()
}

#[tokio::test]
async fn a_change_needs_a_post_the_header_and_a_host_of_localhost() {
    let (_authority, _controller, proxy) = start().await;
    let request = |method: &str, host: &str, header: &str| {
        format!("{method} /drain HTTP/1.1\r\nhost: {host}\r\n{header}content-length: 0\r\nconnection: close\r\n\r\n")
    };
    for (method, host, header, status) in [
        ("POST", "localhost", "", "403"),
        ("POST", "evil.example", "mesh-admin: 1\r\n", "403"),
        ("GET", "localhost", "mesh-admin: 1\r\n", "405"),
    ] {
        let answer = ask(proxy.admin, &request(method, host, header)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{method} {host} {header}: {answer}");
        assert!(!proxy.drain.is_draining());
    }
    for path in [admin::CONFIG, admin::ENDPOINTS, admin::CONNECTIONS, "/log-level"] {
        let forged = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
        assert!(ask(proxy.admin, &forged).await.starts_with("HTTP/1.1 403"), "{path}");
    }
    assert!(proxy.get("/nonsense").await.starts_with("HTTP/1.1 404"));
    let answer = ask(proxy.admin, &request("POST", "localhost", "mesh-admin: 1\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(proxy.drain.is_draining());
}

#[tokio::test]
async fn a_tap_is_opened_on_localhost_and_for_no_other_host() {
    let (_authority, _controller, proxy) = start().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", proxy.admin)).unwrap();
    let watch = async |endpoint: tonic::transport::Endpoint| {
        TapClient::new(endpoint.connect().await.unwrap()).watch(TapFilter::default()).await
    };
    let mut forged = watch(endpoint.clone().origin("http://evil.example".parse().unwrap())).await.unwrap();
    assert!(forged.next().await.is_err());
    assert!(!proxy.tap.is_active());
    let mut events = watch(endpoint).await.unwrap();
    assert!(proxy.tap.is_active());
    proxy.tap.publish(event);
    assert_eq!(events.next().await.unwrap(), Some(event()));
}

fn event() -> TapEvent {
    TapEvent {
        direction: Direction::Inbound,
        started_us: 1,
        latency_us: 2,
        answered_us: None,
        source: destination(1),
        destination: destination(2),
        source_identity: Some(identity("web")),
        destination_identity: None,
        destination_pod: None,
        service: None,
        tls: true,
        outcome: String::new(),
        bytes_in: 3,
        bytes_out: 4,
        request: None,
        dropped: 0,
        route: String::new(),
    }
}
