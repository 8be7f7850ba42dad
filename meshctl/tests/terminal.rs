//! What a person sees: every command that looks at a mesh, on a terminal of 80 and of 200 columns and through a pipe, of a
//! cluster that is always the same. What a playground shows is in `playground/`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/api.rs"]
mod api;
#[path = "support/terminal.rs"]
#[expect(dead_code, reason = "what the playground's tests need too")]
mod terminal;

use std::{fs, process::Command};

use api::{Script, serve, status};
use serde_json::{Value, json};
use terminal::{Seen, Terminal};

/// Columns of a terminal that has always been, and of half a modern screen.
const WIDTHS: [u16; 2] = [80, 200];

struct User(tempfile::TempDir);

impl User {
    /// Of the cluster of this page.
    fn new() -> Self {
        let server = format!("http://{}", serve(cluster()));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": server}}],
            "users": [{"name": "me", "user": {"token": "secret"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "shop"}}],
        });
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config"), config.to_string()).unwrap();
        Self(directory)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
        command
            .args(line.split_whitespace())
            .env("KUBECONFIG", self.0.path().join("config"))
            .env("HOME", self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env_remove("NO_COLOR")
            .env_remove("CI");
        command
    }

    fn on_terminal(&self, line: &str, columns: u16) -> Seen {
        Terminal::start(self.command(line), columns).end()
    }

    /// On both terminals and through a pipe, with what changes from run to run masked.
    fn screens(&self, line: &str) -> String {
        let mut all = format!("$ meshctl {line}\n");
        for columns in WIDTHS {
            let seen = self.on_terminal(line, columns);
            // What must not be cut is a command to copy or a sentence to read.
            let is_talk = |line: &String| ["fix: ", "error: ", "warning: "].iter().any(|word| line.contains(word));
            let broken: Vec<&String> = seen.broken.iter().filter(|line| !is_talk(line)).collect();
            let is_for_people = !line.contains("ndjson") && !line.contains("metrics");
            assert!(broken.is_empty() || !is_for_people, "{line} on {columns} columns: {broken:#?}");
            all += &format!("--- {columns} columns, exit {}\n{}", seen.exit, seen.text);
        }
        let output = self.command(line).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert!(![&output.stdout[..], &output.stderr[..]].concat().contains(&0x1b), "{line}: orders through a pipe");
        let (data, talk) = (text(output.stdout), text(output.stderr));
        all += &format!("--- a pipe, exit {}\n{data}", output.status.code().unwrap());
        if !talk.is_empty() {
            all += &format!("--- talk\n{talk}");
        }
        mask(&all)
    }
}

/// The footer's seconds are all that changes from run to run.
fn mask(text: &str) -> String {
    let line = |line: &str| match line.rsplit_once(" in ") {
        Some((before, after)) if after.ends_with('s') && after.len() < 8 => format!("{before} in N.Ns"),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_command_fits_the_terminal_and_is_whole_through_a_pipe() {
    let user = User::new();
    for (name, line) in [
        ("list", "list -A"),
        ("stat", "stat -A --window 100ms"),
        ("identity", "identity --all -A"),
        ("connections", "connections"),
        ("endpoints", "diagnostics endpoints"),
        ("config", "diagnostics config deploy/web-v1 -o ndjson"),
        ("proxy-metrics", "diagnostics proxy-metrics deploy/web-v1"),
        ("check", "check"),
        ("version", "version"),
        ("describe", "describe ns/shop"),
        ("explain", "explain denied"),
        ("explain-list", "explain"),
        ("help", "help"),
        ("no-such-pod", "stat deploy/wbe-v1"),
        ("no-such-command", "lst"),
    ] {
        insta::assert_snapshot!(format!("terminal-{name}"), user.screens(line));
    }
}

#[test]
fn without_a_playground_each_command_says_how_to_get_one() {
    let user = User::new();
    for line in ["playground status", "playground stop", "list --playground", "stat --playground", "tap --playground"] {
        for columns in WIDTHS {
            let seen = user.on_terminal(line, columns);
            assert_eq!(seen.exit, 3, "{line}: {}", seen.text);
            assert!(seen.text.starts_with("error: no playground is running"), "{line}: {}", seen.text);
            assert!(seen.text.ends_with("  fix: meshctl playground starts one\n"), "{line}: {}", seen.text);
        }
    }
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let user = User::new();
    let seen = |line: &str, variables: [Option<(&str, &str)>; 2]| {
        let mut command = user.command(line);
        command.envs(variables.into_iter().flatten());
        Terminal::start(command, 80).end()
    };
    for line in ["list -A", "check", "stat deploy/nobody", "lst", "help"] {
        assert!(seen(line, [None, None]).colored || line == "help", "{line}");
        for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            // Libraries have their own mind about colour in CI.
            for ci in [None, Some(("CI", "true"))] {
                let plain = seen(line, [Some(variable), ci]);
                assert!(
                    !plain.colored && !plain.written.contains("\x1b[3"),
                    "{line} {variable:?}: {:?}",
                    plain.written
                );
            }
        }
        let plain = seen(&format!("{line} --color never"), [None, None]);
        assert!(!plain.colored, "{line}: {:?}", plain.written);
        let output = user.command(&format!("{line} --color always")).output().unwrap();
        assert!([output.stdout, output.stderr].concat().contains(&0x1b) || line == "help", "{line}");
    }
}

#[test]
fn what_is_waited_for_is_said_and_taken_back_but_not_on_a_terminal_that_cannot() {
    let user = User::new();
    let seen = user.on_terminal("stat --window 100ms", 80);
    assert!(seen.written.contains("watching for 100ms") && !seen.text.contains("watching"), "{:?}", seen.written);
    let mut command = user.command("stat --window 100ms");
    command.env("TERM", "dumb");
    let dumb = Terminal::start(command, 80).end();
    assert!(!dumb.written.contains('\x1b') && !dumb.written.contains("watching"), "{:?}", dumb.written);
}

const SHOP: [(&str, &str, u8); 4] = [
    ("web-v1", "web-v1-zjmbgfzc5f-mz8vk", 5),
    ("web-v2", "web-v2-n62cczv8ql-5nldt", 6),
    ("recommendations-of-the-day", "recommendations-of-the-day-7gbzmxcgqq-2dwx8", 7),
    ("visitor", "visitor-v7frr4b22g-n5f8m", 8),
];

/// Two versions of a service, one with a long name, one that is not meshed, and one that does not answer.
fn cluster() -> Script {
    let mut script = Script::default();
    let pods: Vec<Value> = SHOP.iter().map(|(owner, name, last)| pod("shop", owner, name, *last)).collect();
    let system = pod("mesh-system", "mesh-injector", "mesh-injector-592g8t7hpm-v7lt4", 3);
    let list = |items: &[Value]| {
        (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string())
    };
    script.lists.insert("/api/v1/namespaces/shop/pods", list(&pods));
    script.lists.insert("/api/v1/namespaces/mesh-system/pods", list(std::slice::from_ref(&system)));
    script.lists.insert("/api/v1/pods", list(&[pods, vec![system]].concat()));
    let service = |name: &str, app: &str| {
        json!({"metadata": {"name": name, "namespace": "shop"},
            "spec": {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": "http"}]}})
    };
    script.lists.insert("/api/v1/services", list(&[service("web", "web-v1"), service("elsewhere", "other")]));
    let enabled = json!({"metadata": {"name": "shop", "labels": {"meshctl.dev/inject": "enabled"}}});
    script.lists.insert("/api/v1/namespaces", list(&[enabled, json!({"metadata": {"name": "mesh-system"}})]));
    script.lists.insert(
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/mesh-injector",
        (404, status(404, "mutatingwebhookconfigurations \"mesh-injector\" not found")),
    );
    // The third says nothing.
    for (owner, name, last) in &SHOP[..2] {
        let mut page = |path: &'static str, body: String| script.pods.insert((name, 4191, path), body);
        page("/config", config(owner).to_string());
        page("/connections", connections(*last).to_string());
        page("/endpoints", endpoints().to_string());
        page(
            "/metrics",
            "response_total{direction=\"inbound\",status_code=\"200\",classification=\"success\"} 10\n".into(),
        );
    }
    script
}

fn pod(namespace: &str, owner: &str, name: &str, last: u8) -> Value {
    let meshed = namespace == "shop" && owner != "visitor";
    let init = if meshed {
        json!([{"name": "mesh-proxy", "image": "mesh-proxy:0.1.0", "restartPolicy": "Always"}, {"name": "mesh-redirect", "image": "mesh-proxy:0.1.0"}])
    } else {
        json!([])
    };
    let hash = name[owner.len() + 1..].split('-').next();
    json!({
        "metadata": {
            "name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"pod-template-hash": hash, "app": owner}, "annotations": {"meshctl.dev/proxy-version": "0.1.0"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name.rsplit_once('-').unwrap().0, "uid": "1", "controller": true}],
        },
        "spec": {"serviceAccountName": owner, "initContainers": init, "containers": [{"name": "app", "image": "x", "ports": [{"containerPort": 8080, "name": "http"}]}]},
        "status": {"podIPs": [{"ip": format!("10.244.0.{last}")}], "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn config(account: &str) -> Value {
    json!({
        "apiVersion": "admin.meshctl.dev/v1", "kind": "Config", "version": "0.1.0", "commit": "c", "pod": format!("shop/{account}"),
        "identity": format!("spiffe://cluster.local/ns/shop/sa/{account}"), "log": "info", "ready": true, "draining": false,
        "ageSeconds": 1.0, "settings": [], "controller": {"connected": true, "ageSeconds": 0}, "targets": 0,
        "certificate": {"serial": "0a", "issuer": "CN=root", "notBefore": "2020-01-01T00:00:00Z", "notAfter": "2020-01-02T00:00:00Z"},
        "trustBundle": {"trustDomain": "cluster.local", "source": "stream", "roots": 1, "rootList": []},
        "inbound": {"version": 4, "ageSeconds": 1.0, "default": {"protocol": "detect", "defaultPolicy": "allow"}, "ports": [
            {"port": 8080, "protocol": "http/1", "defaultPolicy": "allow", "rules": ["allow shop/only-recommendations-of-the-day"]}]},
    })
}

fn connections(last: u8) -> Value {
    let of = |direction: &str, source: String, destination: String, peer: &str, protocol: &str, bytes: u64| {
        json!({
            "direction": direction, "source": source, "destination": destination, "peer": peer, "protocol": protocol,
            "tls": true, "bytesIn": bytes, "bytesOut": bytes * 9, "ageSeconds": 4000.0, "requests": 120_341, "inFlight": 3,
        })
    };
    let here = format!("10.244.0.{last}:8080");
    json!({"apiVersion": "admin.meshctl.dev/v1", "kind": "Connections", "leftOut": 0, "items": [
        of("inbound", "10.244.0.7:39210".into(), here.clone(), "spiffe://cluster.local/ns/shop/sa/recommendations-of-the-day", "http/2", 123_456),
        of("inbound", "10.1.2.3:39210".into(), here, "spiffe://cluster.local/ns/elsewhere/sa/frontend", "http/1", 0),
        of("outbound", format!("10.244.0.{last}:41000"), "10.96.0.9:6379".into(), "shop/sessions:6379", "tcp", 9_000_000),
    ]})
}

fn endpoints() -> Value {
    let identity = "spiffe://cluster.local/ns/shop/sa/recommendations-of-the-day";
    let endpoint = json!({
        "address": "10.244.0.7:50051", "namespace": "shop", "pod": "recommendations-of-the-day-7gbzmxcgqq-2dwx8",
        "identity": identity, "load": {"latencyMs": 1.25, "inFlight": 2, "connections": 3},
    });
    json!({"apiVersion": "admin.meshctl.dev/v1", "kind": "Endpoints", "waiting": [], "leftOut": 0, "items": [{
        "destination": "10.96.0.1:50051", "kind": "service", "name": "shop/recommendations-of-the-day:50051", "protocol": "grpc",
        "version": 3, "ageSeconds": 4.0, "routes": [],
        "backends": [
            {"service": "shop/recommendations-of-the-day:50051", "endpoints": [endpoint]},
            {"service": "shop/recommendations-canary:50051", "endpoints": []},
        ],
    }]})
}
