//! Manifests that somebody made to do harm, or a template by mistake: each is named with its reason, in bounded time,
//! and everything beside it stays in force.

use std::{fmt::Write as _, os::unix::fs::symlink};

use mesh_proto::{
    config::{Key, Value},
    outbound::OutboundPolicy,
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use tokio::time::Instant;

use crate::support::{DEADLINE, Mesh, Proxy, pod, service};

/// A policy in YAML with this spec.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: meshctl.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

/// A route of the Service `next`.
fn route(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  parentRefs: [{{group: '', kind: Service, name: next}}]\n  {spec}\n"
    )
}

fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

fn many(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(|number| one(number) + ", ").collect()
}

fn bomb() -> String {
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: bomb}\na0: &a0 [x]\n".to_owned();
    for number in 1..40 {
        let before = number - 1;
        writeln!(text, "a{number}: &a{number} [*a{before}, *a{before}, *a{before}, *a{before}]").unwrap();
    }
    text
}

/// Each with what is said about it.
fn hostile() -> Vec<(&'static str, String, &'static str)> {
    let hosts = many(10_000, |n| format!("host-{n}.example.com"));
    let accounts = many(20_000, |n| format!("account-{n}"));
    let ports = many(60_000, |n| (n + 1).to_string());
    let rules = many(10_000, |n| format!("{{matches: [{{path: {{value: /{n}}}}}]}}"));
    let wide = many(10_000, |n| format!("{{port: {}, name: p{n}}}", n % 60_000 + 1));
    vec![
        ("hosts.yaml", route("hosts", &format!("hostnames: [{hosts}]\n  rules: []")), "hostnames: not compared"),
        ("rules.yaml", route("rules", &format!("rules: [{rules}]")), "10000 rules, where the Gateway API allows 16"),
        (
            "clients.yaml",
            policy(
                "clients",
                &format!("{{selector: {{matchLabels: {{app: next}}}}, from: [{{serviceAccounts: [{accounts}]}}]}}"),
            ),
            "for 20000 clients",
        ),
        (
            "ports.yaml",
            policy("ports", &format!("{{selector: {{matchLabels: {{app: next}}}}, ports: [{ports}]}}")),
            "60000 ports for 1 clients",
        ),
        (
            "wide.yaml",
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: wide, namespace: shop}}\nspec: {{selector: {{app: next}}, ports: [{wide}]}}"
            ),
            "more than 1024 ports",
        ),
        ("bomb.yaml", bomb(), "bomb.yaml:"),
        ("deep.yaml", "[".repeat(1_000_000), "deep.yaml:"),
        ("deep.json", "[".repeat(1_000_000), "deep.json:"),
        ("map.yaml", "{a: ".repeat(1_000_000), "map.yaml:"),
        ("documents.yaml", "---\na\n".repeat(200_000), "200000 documents are more than 10000"),
        (
            "list.yaml",
            format!("apiVersion: v1\nkind: List\nitems: [{}]", many(20_000, |_| "a".into())),
            "20000 items are more than 10000",
        ),
        ("huge.yaml", " ".repeat((16 << 20) + 1), "larger than 16777216 bytes"),
        ("comments.yaml", "# nothing to say\n".repeat(400_000) + "x", "comments.yaml:"),
        ("twice.yaml", namespace("twice") + &namespace("twice"), "the same object is earlier in this file"),
        ("keys.yaml", "apiVersion: v1\nkind: Namespace\nkind: Pod\nmetadata: {name: keys}\n".into(), "keys.yaml:3"),
        ("name.yaml", namespace("'../../etc/passwd'"), "is not a name"),
        ("long.yaml", namespace(&"a".repeat(100_000)), "is not a name"),
        ("line.yaml", namespace("\"a\\nb\""), "is not a name"),
        ("types.yaml", "apiVersion: [v1]\nkind: {a: b}\nmetadata: 5\n".into(), "types.yaml:1"),
        ("scalar.yaml", "just text\n".into(), "scalar.yaml:1"),
        ("number.json", "1e999999".into(), "number.json:1"),
        ("control.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: \"a\u{0}\"}\n".into(), "control.yaml:"),
    ]
}

async fn endpoint_changes(mesh: &Mesh, proxy: &mut Proxy, ready: bool) {
    mesh.write("web.yaml", &(pod("shop", "web-1", "web", "10.1.0.1", ready) + &service("shop", "web", "10.9.0.1")));
    let Value::Outbound(OutboundPolicy::Service(target)) = proxy.update().await.value else { panic!() };
    assert_eq!(target.backends[0].endpoints.len(), usize::from(ready));
}

#[tokio::test]
async fn a_hostile_manifest_is_named_and_leaves_everything_else_in_force() {
    let both = |name: &str, pod_ip: &str, ip: &str| {
        pod("shop", &format!("{name}-1"), name, pod_ip, true) + &service("shop", name, ip)
    };
    let mesh = Mesh::start(&[
        ("load.yaml", &pod("shop", "load-1", "load", "127.0.0.2", true)),
        ("web.yaml", &both("web", "10.1.0.1", "10.9.0.1")),
        ("next.yaml", &both("next", "10.1.0.2", "10.9.0.2")),
    ])
    .await;
    let mut proxy = mesh.proxy("shop", "load", "load-1", "127.0.0.2").await;
    proxy.subscribe(Key::Outbound("10.9.0.1:80".parse().unwrap())).await;
    for (number, (name, text, expected)) in hostile().into_iter().enumerate() {
        let start = Instant::now();
        mesh.write(name, &text);
        mesh.problem(expected).await;
        endpoint_changes(&mesh, &mut proxy, number % 2 == 1).await;
        println!("{name}: {:?} for {} bytes", start.elapsed(), text.len());
    }
    // All of them at once, from the start.
    let next = mesh.restart().await;
    for (_, _, expected) in hostile() {
        next.problem(expected).await;
    }
    let mut proxy = next.proxy("shop", "load", "load-1", "127.0.0.2").await;
    proxy.subscribe(Key::Outbound("10.9.0.1:80".parse().unwrap())).await;
    endpoint_changes(&next, &mut proxy, hostile().len() % 2 == 1).await;
    for (name, _, _) in hostile() {
        next.remove(name);
    }
    next.no_problem(".yaml").await;
}

#[tokio::test]
async fn what_is_no_file_is_not_read() {
    let mesh = Mesh::start(&[]).await;
    let path = |name: &str| mesh.manifests().join(name);
    mkfifo(&path("pipe.yaml"), Mode::S_IRWXU).unwrap();
    symlink("/dev/zero", path("zero.yaml")).unwrap();
    symlink("loop.yaml", path("loop.yaml")).unwrap();
    symlink("/nowhere", path("nowhere.yaml")).unwrap();
    std::fs::write(path("binary.yaml"), [0xff, 0xfe, 0, 1]).unwrap();
    std::fs::write(path("bom.yaml"), "\u{feff}apiVersion: v1\nkind: Pod\n").unwrap();
    for expected in [
        "pipe.yaml:1: not a regular file",
        "zero.yaml:1: not a regular file",
        "loop.yaml:1: Too many levels",
        "nowhere.yaml:1: No such file",
        "binary.yaml:1: stream did not contain valid UTF-8",
        "bom.yaml:1: Pod without metadata.name",
    ] {
        tokio::time::timeout(DEADLINE, mesh.problem(expected)).await.unwrap();
    }
}
