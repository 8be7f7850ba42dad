//! Destinations: who is there, and by which route.

use std::sync::Arc;

use http::Request;
use mesh_proto::{
    identity::Identity,
    outbound::{Choice, OutboundPolicy, PodTarget, ServiceTarget},
    workload::Protocol,
};

use super::{facts, pod, service};
use crate::{
    compile::Reads,
    index::{Facts, Name},
};

fn compile(facts: &Facts, address: &str) -> OutboundPolicy {
    near(facts, address, None)
}

/// For a client in this zone.
fn near(facts: &Facts, address: &str, zone: Option<&str>) -> OutboundPolicy {
    let zone = zone.map(Arc::from);
    let policy = crate::compile::outbound(facts, address.parse().unwrap(), zone.as_ref(), &mut Reads::default());
    policy.expect("it can be dialled")
}

fn target(facts: &Facts, address: &str) -> ServiceTarget {
    match compile(facts, address) {
        OutboundPolicy::Service(target) => target,
        other => panic!("{other:?}"),
    }
}

fn pod_target(facts: &Facts, address: &str) -> PodTarget {
    match compile(facts, address) {
        OutboundPolicy::Pod(target) => target,
        other => panic!("{other:?}"),
    }
}

/// Address and account of every endpoint of the Service itself.
fn endpoints(target: &ServiceTarget) -> Vec<(String, Option<String>)> {
    let endpoints = target.backends[0].endpoints.iter();
    endpoints
        .map(|endpoint| {
            let account = endpoint.identity.as_ref().map(|identity| identity.service_account().to_owned());
            (endpoint.address.to_string(), account)
        })
        .collect()
}

/// Where a request goes: the Service and the rule, or the code of the refusal.
fn route(target: &ServiceTarget, request: &Request<()>) -> String {
    match target.choose(request, 0) {
        Choice::Backend { backend, route } => {
            let rule = route.map_or("-", |route| &*route.name);
            format!("{} by {rule}", target.backends[backend].service.name)
        }
        Choice::NoRoute => "no-route".into(),
        Choice::NoBackend(route) => format!("no-backend by {}", route.name),
        Choice::PathAmbiguous(why) => format!("path-ambiguous: it {why}"),
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(path).body(()).unwrap()
}

fn http_route(name: &str, rules: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: web, port: 80}}]
  rules: {rules}
"
    )
}

fn shop() -> String {
    pod("web", "10.1.0.1", true) + &service("web", "10.9.0.1") + &service("next", "10.9.0.2")
}

#[test]
fn a_service_port_leads_to_the_target_ports_of_its_pods() {
    let (facts, _) = facts(&(pod("web", "10.1.0.1", true) + &service("web", "10.9.0.1")));
    let web = Some("web".to_owned());
    for (address, expected, protocol) in [
        ("10.9.0.1:80", ("10.1.0.1:8080".to_owned(), web.clone()), Protocol::Http1),
        ("10.9.0.1:5432", ("10.1.0.1:5432".into(), web), Protocol::Opaque),
        // Skipped by the sidecar: not meshed there.
        ("10.9.0.1:9000", ("10.1.0.1:9000".into(), None), Protocol::Detect),
    ] {
        let target = target(&facts, address);
        assert_eq!((endpoints(&target), target.protocol), (vec![expected], protocol), "{address}");
    }
    assert_eq!(compile(&facts, "10.9.0.1:81"), OutboundPolicy::External, "no such port");
    assert_eq!(compile(&facts, "10.9.0.2:80"), OutboundPolicy::External, "no such Service");
}

#[test]
fn a_pod_address_leads_to_that_pod_and_no_route() {
    let (facts, _) =
        facts(&(pod("web", "10.1.0.1", true) + &pod("old", "10.1.0.2", false) + &service("web", "10.9.0.1")));
    let web = pod_target(&facts, "10.1.0.1:8080");
    assert_eq!(web.endpoint.identity, Some(Identity::new("cluster.local", "shop", "web").unwrap()));
    assert_eq!(web.protocol, Protocol::Http1);
    assert_eq!(pod_target(&facts, "10.1.0.1:9000").endpoint.identity, None, "skipped");
    assert_eq!(pod_target(&facts, "10.1.0.1:4191").endpoint.identity, None, "the proxy itself");
    assert_eq!(pod_target(&facts, "10.1.0.2:8080").endpoint.identity, None, "unmeshed");
    assert_eq!(pod_target(&facts, "[::ffff:10.1.0.1]:8080"), web);
}

#[test]
fn a_pod_with_a_sidecar_that_can_prove_no_identity_is_not_dialled() {
    let bad = pod("web", "10.1.0.1", true).replace("serviceAccountName: web", "serviceAccountName: 'not/one'");
    let (facts, problems) = facts(&(bad + &service("web", "10.9.0.1")));
    assert_eq!(problems.len(), 1);
    let direct = crate::compile::outbound(&facts, "10.1.0.1:8080".parse().unwrap(), None, &mut Reads::default());
    assert_eq!(direct, None);
    assert_eq!(endpoints(&target(&facts, "10.9.0.1:80")), []);
}

#[test]
fn whether_a_pod_is_meshed_is_read_from_its_spec_alone() {
    let meshed = pod("web", "10.1.0.1", true);
    let plain = pod("web", "10.1.0.1", false);
    let labels = "labels: {app: web, meshctl.dev/inject: enabled}, annotations: {meshctl.dev/proxy-version: '1'}";
    for (fault, manifest, expected) in [
        ("labels of an injected pod", plain.replace("labels: {app: web}", labels), false),
        ("opted out after the fact", meshed.replace("app: web", "app: web, meshctl.dev/inject: disabled"), true),
        ("malformed skip list", meshed.replace("'9000'", "'8080,x'"), true),
        ("everything skipped", meshed.replace("'9000'", "'1-65535'"), false),
        ("a container by that name", plain.replace("name: app", "name: mesh-proxy"), false),
    ] {
        let (facts, _) = facts(&manifest);
        assert_eq!(pod_target(&facts, "10.1.0.1:8080").endpoint.identity.is_some(), expected, "{fault}");
    }
}

#[test]
fn only_pods_that_can_answer_are_endpoints() {
    let ready = pod("web", "10.1.0.1", true);
    for (state, manifest, expected) in [
        ("ready", ready.clone(), 1),
        ("not ready", ready.replace("status: 'True'", "status: 'False'"), 0),
        ("being deleted", ready.replace("uid: u", "uid: u, deletionTimestamp: '2026-01-01T00:00:00Z'"), 0),
        ("ended", ready.replace("phase: Running", "phase: Succeeded"), 0),
        ("of another app", ready.replace("app: web", "app: else"), 0),
        ("of another namespace", ready.replace("namespace: shop", "namespace: else"), 0),
        ("without that port", ready.replace("name: http,", ""), 0),
    ] {
        let (facts, _) = facts(&(manifest + &service("web", "10.9.0.1")));
        assert_eq!(endpoints(&target(&facts, "10.9.0.1:80")).len(), expected, "{state}");
    }
}

fn slice(ip: &str, target: &str) -> String {
    format!(
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-x, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints: [{{addresses: ['{ip}'], conditions: {{ready: true}} {target}}}]
"
    )
}

/// No downgrade: what may be a meshed pod is never dialled as if it were none.
#[test]
fn a_slice_tells_addresses_and_the_index_who_is_there() {
    let web = Some("web".to_owned());
    let named = ", targetRef: {kind: Pod, namespace: shop, name: web-1}";
    let other = ", targetRef: {kind: Pod, namespace: shop, name: web-9}";
    let meshed = pod("web", "10.1.0.1", true);
    for (case, manifest, expected) in [
        ("named", meshed.clone() + &slice("10.1.0.1", named), vec![("10.1.0.1:8080".to_owned(), web.clone())]),
        ("not named", meshed.clone() + &slice("10.1.0.1", ""), vec![("10.1.0.1:8080".into(), web)]),
        ("a pod not known yet", slice("10.1.0.1", named), vec![]),
        ("an address of another pod by now", meshed.clone() + &slice("10.1.0.1", other), vec![]),
        ("an old address", meshed + &slice("10.1.0.7", named), vec![]),
        ("outside", slice("192.0.2.1", ""), vec![("192.0.2.1:8080".into(), None)]),
        (
            "on its node",
            pod("web", "192.0.2.1", false).replace("hostname: plain", "hostNetwork: true") + &slice("192.0.2.1", named),
            vec![("192.0.2.1:8080".into(), None)],
        ),
    ] {
        let (facts, _) = facts(&(manifest + &service("web", "10.9.0.1")));
        assert_eq!(endpoints(&target(&facts, "10.9.0.1:80")), expected, "{case}");
    }
}

#[test]
fn a_reused_address_belongs_to_the_newer_pod() {
    let old = pod("web", "10.1.0.1", true).replace("uid: u", "uid: u, creationTimestamp: '2026-01-01T00:00:00Z'");
    let new = pod("batch", "10.1.0.1", true).replace("uid: u", "uid: u, creationTimestamp: '2026-01-01T00:00:01Z'");
    let (facts, _) = facts(&(new + &old));
    assert_eq!(&*pod_target(&facts, "10.1.0.1:8080").endpoint.pod.unwrap().name, "batch-1");
}

#[test]
fn each_family_gets_its_own_endpoints() {
    let dual = pod("web", "10.1.0.1", true).replace("{ip: '10.1.0.1'}", "{ip: '10.1.0.1'}, {ip: 'fd00:1::1'}");
    let both = service("web", "10.9.0.1").replace("selector", "clusterIPs: ['10.9.0.1', 'fd00::9']\n  selector");
    let (facts, _) = facts(&(dual + &both));
    let addresses = |address| endpoints(&target(&facts, address)).into_iter().map(|one| one.0).collect::<Vec<_>>();
    assert_eq!(addresses("10.9.0.1:80"), ["10.1.0.1:8080"]);
    assert_eq!(addresses("[fd00::9]:80"), ["[fd00:1::1]:8080"]);
}

#[test]
fn routes_win_in_the_order_of_the_gateway_api() {
    let rules = "
  - matches: [{path: {type: PathPrefix, value: /}}]
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /cart}}, {headers: [{name: X-Next, value: yes}]}]
    backendRefs: [{name: next, port: 80}]
  - matches: [{path: {type: Exact, value: /cart/1}}, {path: {type: PathPrefix, value: /cart}, method: POST}]
    backendRefs: [{name: gone, port: 80}]
";
    let (facts, problems) = facts(&(shop() + &http_route("r", &rules.replace("yes", "'yes'"))));
    assert_eq!(problems, [""; 0]);
    let target = target(&facts, "10.9.0.1:80");
    for (request, expected) in [
        (get("/"), "web by shop/r#0"),
        (get("/cart"), "next by shop/r#1"),
        (get("/cart/2"), "next by shop/r#1"),
        (get("/cart/1"), "no-backend by shop/r#2"),
        (Request::post("/cart/2").body(()).unwrap(), "no-backend by shop/r#2"),
        (Request::get("/").header("x-next", "yes").body(()).unwrap(), "next by shop/r#1"),
    ] {
        assert_eq!(route(&target, &request), expected, "{request:?}");
    }
    let unrouted = super::facts(&shop()).0;
    assert_eq!(route(&self::target(&unrouted, "10.9.0.1:80"), &get("/")), "web by -");
    assert!(self::target(&facts, "10.9.0.1:5432").routes.is_empty(), "another port of the Service");
}

#[test]
fn the_older_of_two_equal_routes_wins_then_the_name() {
    let rule = |name: &str| format!("[{{backendRefs: [{{name: {name}, port: 80}}]}}]");
    let dated = |name: &str, backend: &str, second: u8| {
        let timestamp = format!("namespace: shop, creationTimestamp: '2026-01-01T00:00:0{second}Z'");
        http_route(name, &rule(backend)).replace("namespace: shop", &timestamp)
    };
    let (facts, _) = facts(&(shop() + &dated("a", "web", 2) + &dated("b", "next", 1)));
    assert_eq!(route(&target(&facts, "10.9.0.1:80"), &get("/")), "next by shop/b#0");
    let (facts, _) = super::facts(&(shop() + &http_route("b", &rule("next")) + &http_route("a", &rule("web"))));
    assert_eq!(route(&target(&facts, "10.9.0.1:80"), &get("/")), "web by shop/a#0");
}

/// A rule that cannot be honoured answers `no-backend`; it never lets more through than was written.
#[test]
fn what_is_not_known_is_never_half_applied() {
    let everything = "no-backend by shop/r#0";
    for (rules, root, cart) in [
        ("[{backendRefs: [{name: web, port: 80}], filters: [{type: RequestHeaderModifier}]}]", everything, everything),
        ("[{backendRefs: [{name: web, port: 80, filters: [{type: RequestHeaderModifier}]}]}]", everything, everything),
        ("[{backendRefs: [{name: web, port: 80}], timeouts: {request: 1s}}]", everything, everything),
        ("[{matches: [{path: {type: RegularExpression, value: .*}}]}]", everything, everything),
        ("[{matches: [{path: {value: /a/../cart}}], backendRefs: [{name: web, port: 80}]}]", everything, everything),
        (
            "[{matches: [{queryParams: [{name: a, value: b}]}], backendRefs: [{name: web, port: 80}]}]",
            everything,
            everything,
        ),
        (
            "[{matches: [{path: {value: /cart}}, {path: {type: RegularExpression, value: .*}}], backendRefs: [{name: web, port: 80}]}]",
            "no-route",
            everything,
        ),
        (
            "[{matches: [{path: {type: RegularExpression, value: .*}}], backendRefs: [{name: next, port: 80}]}, {backendRefs: [{name: web, port: 80}]}]",
            "web by shop/r#1",
            "web by shop/r#1",
        ),
    ] {
        let (facts, problems) = facts(&(shop() + &http_route("r", rules)));
        assert_eq!(problems.len(), 1, "{rules}: {problems:?}");
        assert!(problems[0].starts_with("rules[0] answers no-backend: "), "{problems:?}");
        let target = target(&facts, "10.9.0.1:80");
        assert_eq!((&*route(&target, &get("/")), &*route(&target, &get("/cart"))), (root, cart), "{rules}");
    }
}

#[test]
fn backends_that_do_not_exist_take_their_share_and_fail() {
    let both = |backend: &str| format!("[{{backendRefs: [{{name: web, port: 80, weight: 0}}, {backend}]}}]");
    for (backend, expected) in [
        ("{name: next, port: 80}", "next by shop/r#0"),
        ("{name: next, port: 81}", "no-backend by shop/r#0"),
        ("{name: next}", "no-backend by shop/r#0"),
        ("{name: gone, port: 80}", "no-backend by shop/r#0"),
        ("{name: next, port: 80, namespace: other}", "no-backend by shop/r#0"),
        ("{name: next, port: 80, kind: Pod}", "no-backend by shop/r#0"),
        ("{name: next, port: 80, weight: 0}", "no-backend by shop/r#0"),
    ] {
        let (facts, _) = facts(&(shop() + &http_route("r", &both(backend))));
        assert_eq!(route(&target(&facts, "10.9.0.1:80"), &get("/")), expected, "{backend}");
    }
    let (facts, _) = facts(&(shop() + &http_route("r", "[]")));
    assert_eq!(route(&target(&facts, "10.9.0.1:80"), &get("/")), "no-backend by shop/r#0", "a route without rules");
}

#[test]
fn a_route_attaches_to_the_services_it_names() {
    let rules = "[{backendRefs: [{name: next, port: 80}]}]";
    for (parent, attached) in [
        ("{group: '', kind: Service, name: web}", true),
        ("{group: core, kind: Service, name: web, sectionName: http}", true),
        ("{group: '', kind: Service, name: web, sectionName: db}", false),
        ("{group: '', kind: Service, name: web, port: 5432}", false),
        ("{group: '', kind: Service, name: next}", false),
        ("{kind: Gateway, name: web}", false),
        ("{group: '', kind: Service, name: web, namespace: other}", false),
    ] {
        let route = http_route("r", rules).replace("{group: '', kind: Service, name: web, port: 80}", parent);
        let (facts, _) = facts(&(shop() + &route));
        assert_eq!(!target(&facts, "10.9.0.1:80").routes.is_empty(), attached, "{parent}");
    }
}

/// Two slices of a Service without a selector, one endpoint each; hints as given.
fn hinted(first: &str, second: &str) -> String {
    let slice = |name: &str, ip: &str, node: &str, zone: &str, hints: &str| {
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
endpoints: [{{addresses: ['{ip}'], nodeName: {node}, zone: {zone}, hints: {hints}}}]
ports: [{{name: http, port: 8080, protocol: TCP}}]
"
        )
    };
    service("web", "10.9.0.1").replace("  selector: {app: web}\n", "")
        + &slice("one", "10.7.0.1", "node-1", "east", first)
        + &slice("two", "10.7.0.2", "node-2", "west", second)
}

#[test]
fn hints_are_followed_where_every_endpoint_has_some_and_the_zone_has_an_endpoint() {
    let (east, west, both) = ("{forZones: [{name: east}]}", "{forZones: [{name: west}]}", "10.7.0.1 10.7.0.2");
    let everyone = "{forZones: [{name: east}, {name: west}]}";
    for (first, second, zone, expected) in [
        (east, west, Some("east"), "10.7.0.1"),
        (east, west, Some("west"), "10.7.0.2"),
        (everyone, west, Some("west"), both),
        (everyone, west, Some("east"), "10.7.0.1"),
        (east, west, Some("north"), both),
        (east, west, None, both),
        (east, "{}", Some("east"), both),
        ("{}", "{}", Some("east"), both),
        (west, west, Some("east"), both),
    ] {
        let (facts, problems) = facts(&hinted(first, second));
        assert!(problems.is_empty(), "{problems:?}");
        let OutboundPolicy::Service(target) = near(&facts, "10.9.0.1:80", zone) else { panic!("a Service") };
        let ips: Vec<String> = target.backends[0].endpoints.iter().map(|one| one.address.ip().to_string()).collect();
        assert_eq!(ips.join(" "), expected, "{first} {second} {zone:?}");
    }
}

#[test]
fn a_pod_is_in_the_zone_that_slices_tell_of_its_node() {
    let client = |node: &str| {
        pod("load", "10.1.0.9", true)
            .replace("  serviceAccountName", &format!("  nodeName: {node}\n  serviceAccountName"))
    };
    for (node, expected) in [("node-1", Some("east")), ("node-2", Some("west")), ("node-3", None)] {
        let (facts, _) = facts(&(client(node) + &hinted("{}", "{}")));
        let pod = facts.pod(&Name::new("shop", "load-1")).unwrap();
        assert_eq!(facts.zone(pod).map(|zone| &**zone), expected, "{node}");
    }
}
