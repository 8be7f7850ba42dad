//! Policies: who may come in, port by port.

use mesh_proto::{
    identity::Identity,
    inbound::{DefaultPolicy, InboundPolicy, Verdict},
    workload::Protocol,
};

use super::{facts, pod, service};
use crate::{compile::Reads, index::Name};

fn compile(manifest: &str) -> (InboundPolicy, Vec<String>) {
    let (facts, problems) = facts(manifest);
    let web = Name::new("shop", "web-1");
    let policy = crate::compile::inbound(&facts, &web, DefaultPolicy::Allow, &mut Reads::default());
    (policy.expect("the pod is known"), problems)
}

pub(super) fn policy(name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: meshctl.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: shop}}
spec: {spec}
"
    )
}

pub(super) fn namespace(default: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Namespace
metadata: {{name: shop, annotations: {{meshctl.dev/default-policy: {default}}}}}
"
    )
}

/// Whether the account `shop/load`, `shop/other` and nobody may connect.
pub(super) fn allowed(policy: &InboundPolicy, port: u16) -> [bool; 3] {
    let id = |account| Identity::new("cluster.local", "shop", account).unwrap();
    let (server, load, other) = (id("web"), id("load"), id("other"));
    [Some(&load), Some(&other), None]
        .map(|client| matches!(policy.port(port).authorize(&server, client), Verdict::Allow(_)))
}

pub(super) const EVERYONE: [bool; 3] = [true, true, true];
pub(super) const ONLY_LOAD: [bool; 3] = [true, false, false];
pub(super) const NOBODY: [bool; 3] = [false, false, false];

#[test]
fn the_nearest_default_policy_wins() {
    let annotated = |value: &str| {
        let annotation = format!("uid: u, annotations: {{meshctl.dev/default-policy: {value}}}");
        pod("web", "10.1.0.1", true).replace("uid: u", &annotation)
    };
    let plain = || pod("web", "10.1.0.1", true);
    for (manifest, expected) in [
        (plain(), DefaultPolicy::Allow),
        (plain() + &namespace("authenticated"), DefaultPolicy::Authenticated),
        (annotated("deny") + &namespace("authenticated"), DefaultPolicy::Deny),
        (annotated("allow") + &namespace("deny"), DefaultPolicy::Allow),
        // Misspelt: closed, and reported.
        (plain() + &namespace("denny"), DefaultPolicy::Deny),
    ] {
        let (policy, problems) = compile(&manifest);
        assert_eq!((policy.default.default, policy.port(8080).default), (expected, expected), "{manifest}");
        assert_eq!(problems.len(), usize::from(manifest.contains("denny")), "{problems:?}");
    }
}

#[test]
fn an_enforced_allow_policy_denies_the_rest_of_the_ports_it_selects() {
    let web = pod("web", "10.1.0.1", true);
    let (one, _) = compile(&(web.clone() + &policy("a", "{ports: [8080], from: [{serviceAccounts: [load]}]}")));
    assert_eq!((allowed(&one, 8080), allowed(&one, 9090)), (ONLY_LOAD, EVERYONE));
    let (all, _) = compile(&(web.clone() + &policy("a", "{from: [{serviceAccounts: [shop/load]}]}")));
    assert_eq!((allowed(&all, 8080), allowed(&all, 9090)), (ONLY_LOAD, ONLY_LOAD));
    let deny = policy("a", "{from: [{serviceAccounts: [load]}]}") + &policy("b", "{action: Deny, ports: [8080]}");
    let (both, _) = compile(&(web + &deny));
    assert_eq!((allowed(&both, 8080), allowed(&both, 9090)), (NOBODY, ONLY_LOAD));
}

#[test]
fn a_policy_protects_what_it_is_attached_to() {
    let from = "from: [{serviceAccounts: [load]}]";
    for (spec, protects, problems) in [
        (format!("{{{from}}}"), true, 0),
        (format!("{{{from}, targetRefs: [{{kind: Namespace, name: shop}}]}}"), true, 0),
        (format!("{{{from}, targetRefs: [{{kind: Service, name: web}}]}}"), true, 0),
        (format!("{{{from}, targetRefs: [{{kind: Service, name: else}}]}}"), false, 0),
        // Attached to nothing: that is said besides what is wrong with each target.
        (format!("{{{from}, targetRefs: [{{kind: Namespace, name: other}}]}}"), false, 2),
        (format!("{{{from}, targetRefs: [{{group: x.dev, kind: Service, name: web}}]}}"), false, 2),
        (format!("{{{from}, targetRefs: [{{kind: Namespace, name: other}}, {{kind: Service, name: web}}]}}"), true, 1),
        (format!("{{{from}, selector: {{matchLabels: {{app: web}}}}}}"), true, 0),
        (format!("{{{from}, selector: {{matchLabels: {{app: else}}}}}}"), false, 0),
        (format!("{{{from}, selector: {{}}}}"), true, 0),
    ] {
        let manifest = pod("web", "10.1.0.1", true) + &service("web", "10.9.0.1") + &policy("a", &spec);
        let (policy, found) = compile(&manifest);
        assert_eq!(allowed(&policy, 8080), if protects { ONLY_LOAD } else { EVERYONE }, "{spec}");
        assert_eq!(found.len(), problems, "{spec}: {found:?}");
    }
    let elsewhere = policy("a", "{}").replace("namespace: shop", "namespace: other") + &namespace("deny");
    let (policy, _) = compile(&(pod("web", "10.1.0.1", true) + &elsewhere));
    assert_eq!(allowed(&policy, 8080), NOBODY, "a policy of another namespace opens nothing here");
}

/// A client that cannot exist never lets anybody in: in an Allow it matches nobody, in a Deny it may mean anybody.
#[test]
fn a_malformed_client_lets_nobody_in_and_is_reported() {
    for (spec, expected) in [
        ("{from: [{identities: [nonsense]}]}", NOBODY),
        ("{from: [{serviceAccounts: [UPPER]}]}", NOBODY),
        ("{from: [{namespaces: ['a/b']}]}", NOBODY),
        ("{from: [{identities: [nonsense], serviceAccounts: [load]}]}", ONLY_LOAD),
        ("{action: Deny, from: [{identities: [nonsense]}]}", NOBODY),
        ("{action: Deny, from: [{identities: [nonsense], serviceAccounts: [load]}]}", NOBODY),
        ("{action: Deny, ports: [9090], from: [{identities: [nonsense]}]}", EVERYONE),
    ] {
        let (policy, problems) = compile(&(pod("web", "10.1.0.1", true) + &policy("a", spec)));
        assert_eq!(allowed(&policy, 8080), expected, "{spec}");
        assert_eq!(problems.len(), 1, "{spec}: {problems:?}");
    }
}

/// It would be in the message of every pod, port by port.
#[test]
fn a_policy_of_too_many_entries_lets_nobody_in_and_is_reported() {
    let accounts: String = (0..20_000).map(|number| format!("a{number}, ")).collect();
    let ports: String = (1..2_000).map(|number| format!("{number}, ")).collect();
    for spec in [
        format!("{{from: [{{serviceAccounts: [load, {accounts}]}}]}}"),
        format!("{{action: Deny, from: [{{serviceAccounts: [{accounts}]}}]}}"),
        format!("{{ports: [{ports}], from: [{{serviceAccounts: [load]}}]}}"),
    ] {
        let (policy, problems) = compile(&(pod("web", "10.1.0.1", true) + &policy("a", &spec)));
        assert_eq!((allowed(&policy, 8080), problems.len()), (NOBODY, 1), "{spec:.60}");
        assert!(policy.ports.len() < 100, "{}", policy.ports.len());
    }
}

#[test]
fn ports_speak_what_services_declare() {
    let web = pod("web", "10.1.0.1", true);
    let opaque = web.replace("uid: u", "uid: u, annotations: {meshctl.dev/opaque-ports: '8080,7000-7001'}");
    let grpc = service("web", "10.9.0.1").replace("port: 80,", "port: 80, appProtocol: grpc,");
    let second = service("web", "10.9.0.2").replace("metadata: {name: web", "metadata: {name: web2");
    for (case, manifest, port, expected) in [
        ("by its own name", web.clone(), 8080, Protocol::Http1),
        ("by a Service", web.clone() + &grpc, 8080, Protocol::Grpc),
        ("by two that disagree", web.clone() + &grpc + &second, 8080, Protocol::Http1),
        ("opaque wins", opaque.clone() + &grpc, 8080, Protocol::Opaque),
        ("opaque range", opaque, 7001, Protocol::Opaque),
        ("server-first by default", web.clone(), 5432, Protocol::Opaque),
        ("undeclared", web, 7777, Protocol::Detect),
    ] {
        let (policy, _) = compile(&manifest);
        assert_eq!(policy.port(port).protocol, expected, "{case}");
    }
}
