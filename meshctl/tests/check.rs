//! `meshctl check` through the real binary: its forms, its deadline, and what it says of clusters that are not as they
//! should be. The API server is scripted, the kubeconfig is a file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/api.rs"]
mod api;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use api::{Script, serve, status};
use serde_json::{Value, json};

/// Runs a line as the user whose home it is.
fn meshctl(home: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(line.split_whitespace())
        .env("KUBECONFIG", home.join("config"))
        .env("HOME", home)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A user of the scripted API server.
fn user(script: Script) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": format!("http://{}", serve(script))}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "shop"}}],
    });
    fs::write(home.path().join("config"), config.to_string()).unwrap();
    home
}

fn list(items: Value) -> (u16, String) {
    (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string())
}

/// A cluster without a mesh, where a pod is to be meshed and cannot be, of a name that XML has to escape.
fn cluster() -> Script {
    let mut script = Script { patch: Some((200, "{}".to_owned())), ..Script::default() };
    let pod = json!({
        "metadata": {"name": "a<b>&\"c\"", "namespace": "shop"},
        "spec": {"hostPID": true, "containers": [{"name": "linkerd-proxy", "image": "x"}]},
        "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]},
    });
    script.lists.insert("/api/v1/pods", list(json!([pod])));
    let labels = json!({"meshctl.dev/inject": "enabled", "istio.io/rev": "stable"});
    script.lists.insert("/api/v1/namespaces", list(json!([{"metadata": {"name": "shop", "labels": labels}}])));
    script.lists.insert("/version", (200, json!({"major": "1", "minor": "34"}).to_string()));
    let review = json!({"status": {"allowed": true}}).to_string();
    script.lists.insert("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", (201, review));
    script
}

/// Serves a resource in one version.
fn serving(mut script: Script, paths: [&'static str; 2], resource: &str) -> Script {
    let [group, place] = paths;
    let version = place.rsplit('/').next().unwrap();
    let group_version = place.trim_start_matches("/apis/");
    let versions = json!({"versions": [{"groupVersion": group_version, "version": version}]});
    script.lists.insert(group, (200, versions.to_string()));
    script.lists.insert(place, (200, json!({"resources": [{"name": "others"}, {"name": resource}]}).to_string()));
    script
}

#[test]
fn junit_is_xml_and_says_what_json_says() {
    let home = user(cluster());
    for (line, strict) in [("check", ""), ("check", " --fail-on warning"), ("check --pre", "")] {
        let output = meshctl(home.path(), &format!("{line} -o json{strict}"));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let junit = meshctl(home.path(), &format!("{line} -o junit{strict}"));
        assert_eq!(junit.status.code(), output.status.code(), "{line}{strict}");
        let junit = text(&junit.stdout);
        let document = roxmltree::Document::parse(&junit).unwrap_or_else(|error| panic!("{error}: {junit}"));
        let root = document.root_element();
        assert_eq!(root.tag_name().name(), "testsuites");
        let all = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name(name));
        let ids: Vec<&str> = all("testcase").map(|node| node.attribute("name").unwrap()).collect();
        let checks = report["checks"].as_array().unwrap();
        let expected: Vec<&str> = checks.iter().map(|check| check["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected);
        assert_eq!(root.attribute("tests"), Some(ids.len().to_string().as_str()));
        assert_eq!(root.attribute("failures"), Some(all("failure").count().to_string().as_str()));
        let bad = |check: &&Value| check["result"] == "error" || !strict.is_empty() && check["result"] == "warning";
        assert_eq!(all("failure").count(), checks.iter().filter(bad).count(), "{junit}");
        // Each with its evidence and the way out.
        assert!(all("failure").all(|node| node.text().is_some_and(|text| text.contains("\nfix: "))), "{junit}");
        assert_eq!(line == "check", junit.contains("pod shop/a&lt;b&gt;&amp;&quot;c&quot;: "), "{junit}");
    }
}

#[test]
fn warnings_and_errors_have_their_exit_codes_in_every_form() {
    let home = user(cluster());
    for form in ["table", "short", "json", "junit"] {
        for (line, code) in [
            ("check", 1),
            ("check --fail-on warning", 1),
            ("check --proxy", 0),
            ("check --proxy --fail-on warning", 5),
            ("check --proxy -n elsewhere --fail-on warning", 0),
            ("check --pre --fail-on warning", 0),
            ("check --wait --timeout 1500ms", 4),
        ] {
            let patient = if code == 4 { "" } else { "--timeout 300s --request-timeout 60s" };
            let output = meshctl(home.path(), &format!("{line} -o {form} {patient}"));
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(code), "{line} -o {form}: {said}");
            assert_eq!(code == 4, said.contains("error: timed out after 1.5s, waiting for "), "{said}");
        }
    }
    let report = text(&meshctl(home.path(), "check --proxy").stdout);
    for part in [
        "namespace shop asks for this mesh and, by istio.io/rev=stable, for another",
        "a container belongs to another mesh: container linkerd-proxy",
        "fix: kubectl label namespace shop istio.io/rev-,",
        "why: meshctl explain one-mesh",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
}

#[test]
fn a_resource_of_another_version_is_found_before_and_after_an_installation() {
    const POLICIES: &str = "authorizationpolicies";
    let ours = |place| serving(cluster(), ["/apis/meshctl.dev", place], POLICIES);
    let routes = |place| serving(cluster(), ["/apis/gateway.networking.k8s.io", place], "httproutes");
    for (script, found) in [
        (cluster(), None),
        (ours("/apis/meshctl.dev/v1alpha1"), None),
        (routes("/apis/gateway.networking.k8s.io/v1"), None),
        (
            ours("/apis/meshctl.dev/v1beta9"),
            Some((
                "authorizationpolicies.meshctl.dev is served as v1beta9 and not as v1alpha1, which is read",
                "kubectl delete crd",
            )),
        ),
        (
            routes("/apis/gateway.networking.k8s.io/v1alpha2"),
            Some((
                "httproutes.gateway.networking.k8s.io is served as v1alpha2 and not as v1, which is read",
                "standard channel",
            )),
        ),
    ] {
        let home = user(script);
        for line in ["check --pre -o json", "check -o json"] {
            let output = meshctl(home.path(), line);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let checks = report["checks"].as_array().unwrap();
            let one = checks.iter().find(|check| check["id"] == "resource-versions").unwrap();
            let said = one["findings"].to_string();
            match found {
                None => assert_eq!(one["result"], "ok", "{line}: {one}"),
                Some((text, fix)) => assert!(said.contains(text) && said.contains(fix), "{line}: {one}"),
            }
            assert!(found.is_none() || output.status.code() == Some(1), "{line}: {report}");
        }
    }
    // One that does not say is no cluster without it.
    let mut script = cluster();
    script.lists.insert("/apis/meshctl.dev", (500, status(500, "not now")));
    let report: Value = serde_json::from_slice(&meshctl(user(script).path(), "check -o json").stdout).unwrap();
    assert!(report.to_string().contains("the API server does not say: ask for"), "{report}");
}

#[test]
fn what_is_wrong_with_a_kubeconfig_is_one_line_with_the_way_out() {
    let home = user(cluster());
    let good = fs::read_to_string(home.path().join("config")).unwrap();
    for (config, line, says, fix) in [
        (good.clone(), "list --context her", "it has no context \"her\"; it has here", "did you mean --context here?"),
        (
            good.replace("\"current-context\":\"here\",", ""),
            "list",
            "says of no context that it is the current one",
            "use-context",
        ),
        (
            good.replace("\"cluster\":\"here\"", "\"cluster\":\"gone\""),
            "list",
            "names the cluster \"gone\"",
            "set-cluster gone",
        ),
        ("{{{ no: yaml".to_owned(), "list", "it is no kubeconfig: line 1", "kubectl config view"),
        (String::new(), "list", "says of no context", "--context NAME"),
    ] {
        fs::write(home.path().join("config"), config).unwrap();
        let output = meshctl(home.path(), line);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{error}");
        let lines: Vec<&str> = error.lines().collect();
        assert!(lines.len() == 2 && lines[0].contains(says) && lines[1].contains(fix), "{error}");
    }
}
