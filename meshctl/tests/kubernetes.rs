//! Commands against a cluster, through the real binary: the API server is scripted, the kubeconfig is a file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/api.rs"]
mod api;

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Output},
};

use api::{Script, serve, status};
use serde_json::{Value, json};

/// A user of a cluster at `server`, whose context names the namespace `shop`.
struct User(tempfile::TempDir);

impl User {
    fn of(server: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": server}}],
            "users": [{"name": "me", "user": {"token": "secret"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "shop"}}],
        });
        fs::write(directory.path().join("config"), config.to_string()).unwrap();
        Self(directory)
    }

    fn meshctl(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_meshctl"))
            .args(line.split_whitespace())
            .env("KUBECONFIG", self.0.path().join("config"))
            .env("HOME", self.0.path())
            .output()
            .unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn pod(namespace: &str, name: &str, meshed: bool) -> Value {
    let sidecar = json!({"name": "mesh-proxy", "image": "mesh-proxy:0.1.0", "restartPolicy": "Always"});
    let redirect = json!({"name": "mesh-redirect", "image": "mesh-proxy:0.1.0"});
    let init = if meshed { json!([sidecar, redirect]) } else { json!([]) };
    json!({
        "metadata": {"name": name, "namespace": namespace, "annotations": {"meshctl.dev/proxy-version": "0.1.0"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name.trim_end_matches("-0"), "uid": "1", "controller": true}]},
        "spec": {"serviceAccountName": "web", "initContainers": init, "containers": [{"name": "app", "image": "x"}]},
        "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn list(items: Value) -> (u16, String) {
    (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string())
}

const CONFIG: &str = r#"{"apiVersion": "admin.meshctl.dev/v1", "kind": "Config", "version": "0.1.0", "commit": "c", "pod": "shop/web-0",
    "identity": "spiffe://cluster.local/ns/shop/sa/web", "log": "info", "ready": true, "draining": false, "ageSeconds": 1.0,
    "settings": [], "controller": {"connected": true, "ageSeconds": 0}, "targets": 0,
    "certificate": {"serial": "0a", "issuer": "CN=root", "notBefore": "2020-01-01T00:00:00Z", "notAfter": "2126-01-01T00:00:00Z"},
    "trustBundle": {"trustDomain": "cluster.local", "source": "stream", "roots": 1, "rootList": []}}"#;

/// `shop` has a meshed pod and one that is not; the user may see everything.
fn open() -> Script {
    let mut script = Script::default();
    let shop = json!([pod("shop", "web-0", true), pod("shop", "old-0", false)]);
    let all = json!([pod("shop", "web-0", true), pod("shop", "old-0", false), pod("other", "x-0", false)]);
    script.lists.insert("/api/v1/namespaces/shop/pods", list(shop));
    script.lists.insert("/api/v1/pods", list(all));
    let enabled = json!({"metadata": {"name": "shop", "labels": {"meshctl.dev/inject": "enabled"}}});
    script.lists.insert("/api/v1/namespaces", list(json!([enabled, {"metadata": {"name": "other"}}])));
    script.pods.insert(("web-0", 4191, "/config"), CONFIG.to_owned());
    script
}

#[test]
fn list_shows_the_namespace_of_the_context_or_the_one_that_is_asked_for() {
    let user = User::of(&format!("http://{}", serve(open())));
    let names = |line: &str| {
        let output = user.meshctl(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(names("list -o name"), "statefulset/old\nstatefulset/web\n");
    assert_eq!(names("-A list -o name"), "statefulset/x\nstatefulset/old\nstatefulset/web\n");
    assert!(names("list").contains("restart-needed"), "the injector's own words");
}

#[test]
fn a_proxy_is_asked_through_a_port_forward() {
    let user = User::of(&format!("http://{}", serve(open())));
    // A kind alone is every workload of it, as in kubectl.
    for line in ["identity sts/web -o json", "identity sts -o json"] {
        let output = user.meshctl(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        let identities: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(identities["items"][0]["identity"], "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(identities["items"][0]["pod"], "web-0");
    }
}

#[test]
fn check_names_what_is_not_there() {
    let user = User::of(&format!("http://{}", serve(open())));
    let output = user.meshctl("check -o short");
    let report = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{report}");
    for part in
        ["there is no mesh-controller in namespace mesh-system", "[pods-meshed]", "rollout restart statefulset/old"]
    {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(!report.contains("[proxies-answer]"), "that of web-0 does: {report}");
}

#[test]
fn rights_in_one_namespace_are_enough_for_it() {
    let mut script = open();
    let forbidden = |what: &str| {
        let right = format!("cannot list resource \"{what}\" in API group \"\" at the cluster scope");
        (403, status(403, &format!("{what} is forbidden: User \"me\" {right}")))
    };
    script.lists.insert("/api/v1/pods", forbidden("pods"));
    script.lists.insert("/api/v1/namespaces", forbidden("namespaces"));
    let shop = json!({"metadata": {"name": "shop", "labels": {"meshctl.dev/inject": "enabled"}}});
    script.lists.insert("/api/v1/namespaces/shop", (200, shop.to_string()));
    let user = User::of(&format!("http://{}", serve(script)));
    let output = user.meshctl("list");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("restart-needed"));
    // What was insisted on is an error that says what is missing, and the same whatever the form.
    for form in ["table", "json"] {
        let output = user.meshctl(&format!("list -A -o {form}"));
        assert_eq!(output.status.code(), Some(3));
        let error = text(&output.stderr);
        assert!(
            error.contains("pods is forbidden: User \"me\" cannot list resource") && error.contains("fix: -n NAME"),
            "{error}"
        );
        assert!(error.contains("`kubectl auth can-i list pods -A` says yes"), "{error}");
    }
}

#[test]
fn a_cluster_that_does_not_answer_is_one_line_and_a_fix() {
    // Bound and closed: nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = User::of(&format!("http://{closed}"));
    for command in ["list", "stat", "tap", "identity --all", "version", "list -o json"] {
        let output = gone.meshctl(command);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{command}: {error}");
        assert_eq!(error.lines().count(), 2, "{command}: {error}");
        assert!(error.contains("does not answer") && error.contains("fix: "), "{command}: {error}");
    }
    let report = gone.meshctl("check");
    assert_eq!(report.status.code(), Some(3));
    assert!(text(&report.stdout).contains("[cluster-reachable]"), "{}", text(&report.stdout));
}

#[test]
fn an_api_server_that_says_nothing_times_out() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let user = User::of(&format!("http://{}", silent.local_addr().unwrap()));
    let output = user.meshctl("list --request-timeout 200ms");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("timed out: list pods took longer than 200ms"), "{}", text(&output.stderr));
}

#[test]
fn without_a_kubeconfig_the_way_out_is_named() {
    let user = User::of("http://127.0.0.1:1");
    fs::remove_file(user.0.path().join("config")).unwrap();
    for command in ["list", "stat", "tap", "identity --all"] {
        let output = user.meshctl(command);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{command}: {error}");
        assert!(error.contains("kubeconfig") && error.contains("--playground"), "{command}: {error}");
        assert!(output.stdout.is_empty());
    }
    let context = User::of("http://127.0.0.1:1").meshctl("list --context elsewhere");
    assert!(text(&context.stderr).contains("elsewhere"), "{}", text(&context.stderr));
}

#[test]
fn what_a_user_may_not_see_is_not_taken_for_absent() {
    let mut script = open();
    let forbidden = |what: &str| (403, status(403, &format!("{what} is forbidden: User \"me\" cannot list it")));
    for place in ["/api/v1/pods", "/api/v1/namespaces", "/api/v1/namespaces/mesh-system/pods"] {
        script.lists.insert(place, forbidden("pods"));
    }
    let shop = json!({"metadata": {"name": "shop", "labels": {"meshctl.dev/inject": "enabled"}}});
    script.lists.insert("/api/v1/namespaces/shop", (200, shop.to_string()));
    let user = User::of(&format!("http://{}", serve(script)));
    let output = user.meshctl("check");
    let report = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{report}");
    assert!(report.contains("not allowed to list pods in namespace mesh-system: pods is forbidden"), "{report}");
    assert!(!report.contains("there is no"), "{report}");
    // Of the namespace that one may see all is told: a pod that wants a restart is a warning.
    let output = user.meshctl("check --proxy -o json");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!((&report["summary"]["notAllowed"], &report["summary"]["warnings"]), (&0.into(), &1.into()), "{report}");
}

#[test]
fn a_pod_that_asks_for_a_sidecar_is_submitted_as_a_dry_run() {
    let check = |answer: (u16, String)| {
        let mut script = open();
        let mut injector = pod("mesh-system", "mesh-injector-0", false);
        injector["spec"]["serviceAccountName"] = "mesh-injector".into();
        script.lists.insert("/api/v1/pods", list(json!([injector, pod("shop", "web-0", true)])));
        script.lists.insert("POST /api/v1/namespaces/shop/pods", answer);
        let output = User::of(&format!("http://{}", serve(script))).meshctl("check -o json --request-timeout 10s");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["id"] == "admission-works").unwrap().clone()
    };
    let mut meshed = pod("shop", "a", true);
    meshed["spec"]["initContainers"][0]["env"] = json!([{"name": "MESH_TOKEN_FILE", "value": "x"}]);
    // The webhook's port says nothing here: each waits for it.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let meshed = check((201, meshed.to_string()));
            assert_eq!((&meshed["result"], &meshed["note"]), (&"ok".into(), &Value::Null), "{meshed}");
        });
        scope.spawn(|| {
            let plain = check((201, pod("shop", "a", false).to_string()));
            assert_eq!(plain["findings"][0]["text"], "a pod of namespace shop was admitted as it was written");
        });
        scope.spawn(|| {
            let failing = check((500, status(500, "failed calling webhook \"namespace.inject.meshctl.dev\"")));
            let findings = failing["findings"].as_array().unwrap();
            assert_eq!((&failing["result"], findings.len()), (&"error".into(), 1), "{failing}");
        });
        scope.spawn(|| {
            let forbidden = check((403, status(403, "pods is forbidden")));
            let note = "it could not be tried: pods is forbidden";
            assert_eq!((&forbidden["result"], &forbidden["note"]), (&"ok".into(), &note.into()));
        });
    });
}

#[test]
fn before_an_installation_a_cluster_is_asked_what_it_would_say() {
    let check = |minor: &str, allowed: bool, patch: (u16, String)| {
        let output = User::of(&format!("http://{}", serve(pre(minor, allowed, patch)))).meshctl("check --pre");
        (output.status.code().unwrap(), text(&output.stdout))
    };
    let accepted = || (200, "{}".to_owned());
    let refused = |code: u16, text: &str| (code, status(code, text));
    let (code, report) = check("36+", true, accepted());
    assert!(code == 0 && report.contains("5 ok, 0 warnings, 0 errors"), "{report}");
    for (case, expected, says) in [
        (check("28", true, accepted()), 1, "the API server is Kubernetes 1.28"),
        (check("29", false, accepted()), 3, "not allowed to create deployments.apps in namespace mesh-system"),
        (check("29", true, refused(422, "spec.x: is not known")), 1, "Namespace mesh-system: spec.x: is not known"),
        (check("29", true, refused(403, "you may not")), 3, "Namespace mesh-system: you may not"),
    ] {
        assert_eq!(case.0, expected, "{says}: {}", case.1);
        assert!(case.1.contains(says), "{says}: {}", case.1);
    }
    let waits = check("29", true, refused(404, "namespaces \"mesh-system\" not found"));
    assert!(!waits.1.contains("Deployment mesh-controller"), "it cannot be tried yet: {}", waits.1);
    // What was not tried is counted, and what was is no guess.
    let fresh = Script { namespaces: Some(&["default"]), ..pre("29", true, accepted()) };
    let output = User::of(&format!("http://{}", serve(fresh))).meshctl("check --pre");
    let report = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.contains("objects could not be tried: they go into namespace mesh-system"), "{report}");
}

#[test]
fn a_question_that_an_api_server_does_not_answer_keeps_no_other_check() {
    let case = |hangs: &'static str, id: &str, others: [&str; 2]| {
        let script = Script { hangs: Some(hangs), ..pre("29", true, (200, "{}".to_owned())) };
        let user = User::of(&format!("http://{}", serve(script)));
        let output = user.meshctl("check --pre -o json --request-timeout 10s");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(4), "{report}");
        let checks = report["checks"].as_array().unwrap();
        let check = |id: &str| checks.iter().find(|check| check["id"] == id).unwrap();
        let found = &check(id)["findings"][0];
        assert!(found["text"].as_str().unwrap().starts_with("timed out after 10s: "), "{report}");
        assert!(found["fix"].as_str().unwrap().starts_with("--request-timeout"), "{report}");
        for other in others {
            assert_eq!(check(other)["result"], "ok", "{other}: {report}");
        }
    };
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let injector = "/apis/apps/v1/namespaces/mesh-system/deployments/mesh-injector";
    std::thread::scope(|scope| {
        scope.spawn(|| case("/version", "cluster-reachable", ["install-allowed", "install-accepted"]));
        scope.spawn(|| case(reviews, "install-allowed", ["cluster-reachable", "install-accepted"]));
        scope.spawn(|| case(injector, "install-accepted", ["cluster-reachable", "install-allowed"]));
    });
}

#[test]
fn namespaces_that_are_not_told_keep_no_check_of_pods() {
    let user = User::of(&format!("http://{}", serve(Script { hangs: Some("/api/v1/namespaces"), ..open() })));
    let output = user.meshctl("check -o json --request-timeout 5s");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let check = |id: &str| checks.iter().find(|check| check["id"] == id).unwrap();
    let found = check("pods-meshed")["findings"][0]["text"].as_str().unwrap();
    assert!(found.starts_with("namespaces cannot be read: timed out: list namespaces took longer than 5s"), "{report}");
    assert_eq!((check("pods-meshed")["result"].as_str(), output.status.code()), (Some("error"), Some(1)), "{report}");
    assert_eq!(check("cluster-reachable")["result"], "ok", "{report}");
    assert_eq!(check("proxies-answer")["result"], "ok", "{report}");
}

#[test]
fn every_check_that_is_shown_has_a_page() {
    let user = User::of(&format!("http://{}", serve(pre("29", true, (200, "{}".to_owned())))));
    let meshed = User::of(&format!("http://{}", serve(open())));
    let ids = |output: Output| -> Vec<String> {
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let id = |check: &Value| check["id"].as_str().unwrap().to_owned();
        report["checks"].as_array().unwrap().iter().map(id).collect()
    };
    let mut shown = ids(user.meshctl("check --pre -o json"));
    shown.extend(ids(user.meshctl("check --pre --playground -o json")));
    shown.extend(ids(meshed.meshctl("check -o json")));
    shown.extend(ids(user.meshctl(&format!("check -o json -f {}/../deploy/demo", env!("CARGO_MANIFEST_DIR")))));
    let shown: BTreeSet<String> = shown.into_iter().collect();
    let output = user.meshctl("explain -o json");
    let topics: Value = serde_json::from_slice(&output.stdout).unwrap();
    let is_check = |topic: &&Value| topic["about"] == "check";
    let checks = topics["items"].as_array().unwrap().iter().filter(is_check);
    let checks: BTreeSet<String> = checks.map(|topic| topic["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(shown, checks);
    for id in shown {
        let output = user.meshctl(&format!("explain {id}"));
        let page = text(&output.stdout);
        let parts = [format!("{id}: "), "\nfix:\n".to_owned(), "\nexample:\n".to_owned()];
        assert!(output.status.success() && parts.iter().all(|part| page.contains(part)), "{id}: {page}");
    }
}

/// A cluster of this release before there is a mesh, that answers every PATCH so.
fn pre(minor: &str, allowed: bool, patch: (u16, String)) -> Script {
    let mut script = Script { patch: Some(patch), ..Script::default() };
    script.lists.insert("/version", (200, json!({"major": "1", "minor": minor}).to_string()));
    let review = json!({"kind": "SelfSubjectAccessReview", "status": {"allowed": allowed}}).to_string();
    script.lists.insert("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", (201, review));
    script
}

#[test]
fn this_machine_is_asked_by_trying() {
    let user = User::of("http://127.0.0.1:1");
    let output = user.meshctl("check --pre --playground");
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("[playground-runs]"));
}
