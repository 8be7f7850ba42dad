//! Every command in every situation, as a table: the exit code is what the situation is, whatever `-o` says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/api.rs"]
mod api;

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use api::{Script, serve, status};
use serde_json::{Value, json};

/// What a command ends with where all is well, what it looks at is bad, nobody answers, nobody may ask, nobody answers in
/// time, and nothing is there under `--fail-empty`. `None`: the situation cannot be, or takes a proxy that is alive, as in
/// `tests/playground`.
type Codes = [Option<i32>; 6];

const CLUSTER: &[(&str, Codes)] = &[
    ("list", [Some(0), None, Some(3), Some(3), Some(4), Some(6)]),
    ("stat -t 100ms", [Some(0), None, Some(3), Some(3), Some(4), Some(6)]),
    ("tap --duration 100ms", [None, None, Some(3), Some(3), Some(4), Some(6)]),
    ("identity --all", [Some(0), Some(1), Some(3), Some(3), Some(4), Some(6)]),
    ("connections", [Some(0), None, Some(3), Some(3), Some(4), Some(6)]),
    ("diagnostics endpoints", [Some(0), None, Some(3), Some(3), Some(4), Some(6)]),
    ("diagnostics config", [Some(0), None, Some(3), Some(3), Some(4), Some(6)]),
    ("version", [Some(0), None, Some(3), Some(3), Some(4), Some(0)]),
    ("check", [None, Some(1), Some(3), Some(3), Some(4), Some(1)]),
    ("describe pod/web-0", [Some(0), None, Some(3), Some(3), Some(4), Some(6)]),
    // A meshed pod keeps it; and nothing is installed.
    ("uninstall", [Some(1), None, Some(3), Some(3), Some(4), Some(6)]),
    ("upgrade", [Some(6), None, Some(3), Some(3), Some(4), Some(6)]),
    ("check --pre", [None, Some(1), Some(3), Some(3), Some(4), None]),
];

/// Without a cluster: the line, its code, and whether it has JSON.
const LOCAL: &[(&str, i32, bool)] = &[
    ("check -f GOOD", 0, true),
    ("check -f BAD", 1, true),
    ("check -f WARN", 0, true),
    ("check -f WARN --fail-on warning", 5, true),
    ("check -f /nonexistent", 6, true),
    ("inject GOOD", 0, false),
    ("inject GOOD --check", 1, false),
    ("inject BAD", 1, false),
    ("inject /nonexistent", 6, false),
    ("uninject GOOD", 0, false),
    ("explain denied", 0, true),
    ("explain nonsense-of-mine", 6, true),
    ("version --client", 0, true),
    ("completion bash", 0, false),
    ("install", 0, false),
    ("install --set nope=1", 2, false),
    ("install --ha --profile deny", 0, false),
    ("install --values /nonexistent", 6, false),
    ("uninstall --playground", 2, false),
    ("describe", 2, true),
    ("describe deploy/web --playground", 3, true),
    ("nonsense", 2, true),
    ("stat gizmo/web", 2, true),
    ("list --playground", 3, true),
    ("stat --playground", 3, true),
    ("tap --playground", 3, true),
    ("check --playground", 3, true),
    ("playground status", 3, true),
    ("playground stop", 3, false),
];

/// Forms that commands do not have: that is said before anybody is asked.
const REFUSED: &[&str] = &[
    "list -o junit",
    "stat -o short",
    "stat --watch -o json",
    "tap -o yaml",
    "tap -o name",
    "identity --all -o line",
    "diagnostics proxy-metrics -o json",
    "version -o name",
    "check -o name",
    "describe pod/web-0 -o name",
    "upgrade -o name",
];

fn meshctl(home: &Path, line: &str) -> Output {
    let config = home.join("config");
    Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(line.split_whitespace())
        .env("KUBECONFIG", config)
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home)
        .output()
        .unwrap()
}

/// A user of the cluster at `server`.
fn user(server: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "shop"}}],
    });
    fs::write(home.path().join("config"), config.to_string()).unwrap();
    home
}

fn list(items: Value) -> (u16, String) {
    (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string())
}

/// One meshed pod whose proxy answers, and a certificate that ends then.
fn cluster(not_after: &str) -> Script {
    let pod = json!({
        "metadata": {"name": "web-0", "namespace": "shop", "annotations": {"meshctl.dev/proxy-version": env!("CARGO_PKG_VERSION")}},
        "spec": {"initContainers": [{"name": "mesh-proxy"}, {"name": "mesh-redirect"}], "containers": [{"name": "app"}]},
        "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let mut script = Script::default();
    for path in ["/api/v1/pods", "/api/v1/namespaces/shop/pods"] {
        script.lists.insert(path, list(json!([pod])));
    }
    script.lists.insert("/api/v1/namespaces/mesh-system/pods", list(json!([])));
    script.lists.insert("/api/v1/namespaces", list(json!([{"metadata": {"name": "shop"}}])));
    script.lists.insert("/api/v1/services", list(json!([])));
    script.lists.insert("/version", (200, json!({"major": "1", "minor": "28"}).to_string()));
    script.lists.insert("/api/v1/configmaps", list(json!([])));
    let review = json!({"status": {"allowed": true}}).to_string();
    script.lists.insert("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", (201, review));
    script.patch = Some((200, "{}".to_owned()));
    let config = json!({
        "apiVersion": "admin.meshctl.dev/v1", "kind": "Config", "version": env!("CARGO_PKG_VERSION"), "commit": "c",
        "pod": "shop/web-0", "identity": "spiffe://cluster.local/ns/shop/sa/web", "log": "info", "ready": true,
        "draining": false, "ageSeconds": 1.0, "settings": [], "controller": {"connected": true, "ageSeconds": 0},
        "targets": 0,
        "certificate": {"serial": "1", "issuer": "CN=root", "notBefore": "2020-01-01T00:00:00Z", "notAfter": not_after},
        "trustBundle": {"trustDomain": "cluster.local", "source": "stream", "roots": 1, "rootList": []},
    });
    let page = |kind: &str| json!({"apiVersion": "admin.meshctl.dev/v1", "kind": kind, "items": []}).to_string();
    script.pods.insert(("web-0", 4191, "/config"), config.to_string());
    script.pods.insert(("web-0", 4191, "/metrics"), "request_total{direction=\"inbound\"} 1\n".to_owned());
    script.pods.insert(("web-0", 4191, "/connections"), page("Connections"));
    script.pods.insert(("web-0", 4191, "/endpoints"), page("Endpoints"));
    script
}

fn forbidden() -> Script {
    let mut script = Script::default();
    for path in [
        "/api/v1/pods",
        "/api/v1/namespaces",
        "/api/v1/namespaces/shop",
        "/api/v1/namespaces/shop/pods",
        "/api/v1/namespaces/mesh-system/pods",
        "/version",
        "/apis/apps/v1/namespaces/mesh-system/deployments/mesh-controller",
    ] {
        script.lists.insert(path, (403, status(403, "it is forbidden")));
    }
    script
}

fn empty() -> Script {
    let mut script = cluster("2126-01-01T00:00:00Z");
    for path in ["/api/v1/pods", "/api/v1/namespaces/shop/pods"] {
        script.lists.insert(path, list(json!([])));
    }
    script
}

#[test]
fn a_situation_has_one_exit_code_whatever_the_form() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let users = [
        serve(cluster("2126-01-01T00:00:00Z")),
        serve(cluster("2021-01-01T00:00:00Z")),
        closed,
        serve(forbidden()),
        silent.local_addr().unwrap(),
        serve(empty()),
    ]
    .map(|server| user(&format!("http://{server}")));
    let more = ["", "", "", "", " --request-timeout 200ms", " --fail-empty"];
    let mut wrong = Vec::new();
    for (command, codes) in CLUSTER {
        for (place, code) in codes.iter().enumerate() {
            let Some(code) = code else { continue };
            for form in ["table", "json"] {
                let line = format!("{command} -o {form}{}", more[place]);
                let output = meshctl(users[place].path(), &line);
                if output.status.code() != Some(*code) {
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
                    wrong.push(format!("situation {place}: {line}: {}, not {code}: {said}{shown}", output.status));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What becomes of each command while the controller is away: its exit code, and a part of what it says on stdout or stderr.
const WITHOUT_CONTROLLER: &[(&str, i32, &str)] = &[
    ("list", 0, "pod/web-0"),
    ("stat -t 100ms", 0, "pod/web-0"),
    ("identity --all", 0, "spiffe://cluster.local/ns/shop/sa/web"),
    ("connections", 0, ""),
    ("diagnostics endpoints", 0, ""),
    ("diagnostics config", 0, "spiffe://cluster.local/ns/shop/sa/web"),
    ("diagnostics proxy-metrics", 0, "request_total"),
    ("version", 0, "controller"),
    ("describe pod/web-0", 0, "spiffe://cluster.local/ns/shop/sa/web"),
    ("check --proxy", 0, "proxies-answer"),
    ("check", 1, "controller-ready"),
];

#[test]
fn without_a_controller_what_is_asked_of_proxies_is_answered_and_the_rest_says_that_it_is_away() {
    let part = |ready: &str| {
        json!({
            "metadata": {"name": "mesh-controller-0", "namespace": "mesh-system"},
            "spec": {"serviceAccountName": "mesh-controller", "containers": [{"name": "controller"}]},
            "status": {"podIPs": [{"ip": "10.0.0.9"}], "conditions": [{"type": "Ready", "status": ready}]},
        })
    };
    // It is not there; it is there and not ready; it is there, called ready, and says nothing.
    for (case, pods, says) in [
        ("gone", json!([]), "there is no mesh-controller in namespace mesh-system"),
        ("not ready", json!([part("False")]), "pod mesh-system/mesh-controller-0 is not ready"),
        ("silent", json!([part("True")]), "controller-answers"),
    ] {
        let mut script = cluster("2126-01-01T00:00:00Z");
        let shop: Value = serde_json::from_str(&script.lists["/api/v1/namespaces/shop/pods"].1).unwrap();
        let all = [shop["items"].as_array().unwrap().clone(), pods.as_array().unwrap().clone()].concat();
        script.lists.insert("/api/v1/pods", list(Value::from(all)));
        script.lists.insert("/api/v1/namespaces/mesh-system/pods", list(pods));
        let home = user(&format!("http://{}", serve(script)));
        for (line, code, part) in WITHOUT_CONTROLLER {
            for form in ["table", "json"] {
                // Raw text has no other form.
                let form = if *part == "request_total" { "table" } else { form };
                let output = meshctl(home.path(), &format!("{line} -o {form}"));
                let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
                assert_eq!(output.status.code(), Some(*code), "{case}: {line} -o {form}: {said}");
                assert!(said.contains(part), "{case}: {line} -o {form}: {said}");
                assert!(*line != "check" || said.contains(says), "{case}: {said}");
            }
        }
    }
}

#[test]
fn commands_without_a_cluster_keep_to_the_same_codes() {
    let home = user("http://127.0.0.1:1");
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n";
    let spec = "spec:\n  containers:\n  - name: app\n    image: app\n";
    let good = file("good.yaml", &format!("{pod}{spec}"));
    let bad = file("bad.yaml", "kind: [\n");
    let warn = file("warn.yaml", &format!("{pod}  annotations:\n    meshctl.dev/nonsense: x\n{spec}"));
    let mut wrong = Vec::new();
    for (line, code, json) in LOCAL {
        let line = line.replace("GOOD", &good).replace("BAD", &bad).replace("WARN", &warn);
        for form in ["table", "json"].iter().take(if *json { 2 } else { 1 }) {
            let output = meshctl(home.path(), &format!("{line} -o {form}"));
            if output.status.code() != Some(*code) {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                wrong.push(format!("{line} -o {form}: {}, not {code}: {said}", output.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_form_that_is_not_there_is_a_wrong_command_line_and_nobody_is_asked() {
    let home = tempfile::tempdir().unwrap();
    for line in REFUSED {
        let output = meshctl(home.path(), line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert!(said.contains("fix: -o ") && output.stdout.is_empty(), "{line}: {said}");
    }
}
