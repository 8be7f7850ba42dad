//! One broken manifest per check of files.

use super::*;

fn lint_text(text: &str) -> Vec<Outcome> {
    lint(&[Input { name: "web.yaml".into(), text: text.into() }])
}

/// What the checks that are not ok found, as `id: text`.
fn findings(text: &str) -> Vec<String> {
    let outcomes = lint_text(text);
    let found =
        outcomes.iter().flat_map(|one| one.findings.iter().map(|found| format!("{}: {}", one.check.id(), found.text)));
    found.collect()
}

const SHOP: &str = concat!(
    include_str!("../../../../deploy/demo/shop.yaml"),
    "\n---\n",
    include_str!("../../../../deploy/demo/policy.yaml"),
    "\n---\n",
    include_str!("../../../../deploy/demo/gateway-api/traffic.yaml")
);

#[test]
fn the_demo_shop_is_in_order() {
    assert_eq!(findings(SHOP), Vec::<String>::new());
}

/// One broken manifest per check of files, and what is said about it.
const BROKEN: &[(Check, &str, &str)] = &[
    (Check::ManifestReadable, "a: 1\n---\nkind: Service\napiVersion: v1\nmetadata: {name: [\n", "web.yaml:5"),
    (
        Check::ManifestReadable,
        "apiVersion: meshctl.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n  fom: []\n",
        "web.yaml:5: AuthorizationPolicy default/a",
    ),
    (
        Check::ObjectsValid,
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: web}]\n  rules: [{matches: [{path: {value: nope}}]}]\n",
        "web.yaml:6: HTTPRoute default/web",
    ),
    (
        Check::RouteBackendsExist,
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: web}]\n  rules: [{backendRefs: [{name: wbe, port: 80}]}]\n",
        "rules[0].backendRefs[0]: there is no Service default/wbe",
    ),
    (
        Check::PortsExist,
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: web, port: 81}]\n  rules: [{backendRefs: [{name: web, port: 80}]}]\n",
        "parentRefs[0]: Service default/web has no port 81; it has 80",
    ),
    (
        Check::PortsExist,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec: {containers: [{name: app, image: x, ports: [{containerPort: 8080}]}]}\n---\napiVersion: meshctl.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n  selector: {matchLabels: {app: web}}\n  ports: [80]\n",
        "no pod that it protects declares port 80; they have 8080",
    ),
    (
        Check::AnnotationsKnown,
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  annotations:\n    meshctl.dev/opaque-port: \"1\"\nspec: {containers: [{name: app, image: x}]}\n",
        "web.yaml:6: Pod web: annotation meshctl.dev/opaque-port",
    ),
    (
        Check::AnnotationsKnown,
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: web\n  labels: {meshctl.dev/inject: enabled}\n  annotations:\n    meshctl.dev/log-level: loud\n",
        "meshctl.dev/log-level",
    ),
    (
        Check::PodsInjectable,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: app, image: x}, {name: istio-proxy, image: x}]}\n",
        "web.yaml:3: Pod web: a container belongs to another mesh: container istio-proxy",
    ),
];

#[test]
fn each_check_of_files_finds_what_it_is_for() {
    for (check, text, says) in BROKEN {
        let found = findings(text);
        let prefix = format!("{}: ", check.id());
        assert!(found.iter().any(|one| one.starts_with(&prefix) && one.contains(says)), "{says}: {found:#?}");
        let others = found.iter().filter(|one| !one.starts_with(&prefix)).collect::<Vec<_>>();
        assert!(others.is_empty(), "{says}: {others:#?}");
    }
    let of_files = Check::ALL.into_iter().filter(|check| check.facts().category == crate::check::Category::Manifests);
    for check in of_files {
        assert!(BROKEN.iter().any(|(broken, ..)| *broken == check), "{} has no failing fixture", check.id());
    }
}
