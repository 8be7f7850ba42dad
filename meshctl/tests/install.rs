//! From nothing to an installation, on to the next release and back to nothing, through the real binary: the API server is
//! scripted.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/api.rs"]
mod api;

use std::{
    fs,
    process::{Command, Output},
    sync::Arc,
};

use api::{Script, serve, status};
use serde_json::{Value, json};

struct User(tempfile::TempDir);

impl User {
    fn of(script: Script) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": format!("http://{}", serve(script))}}],
            "users": [{"name": "me", "user": {"token": "secret"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "shop"}}],
        });
        fs::write(directory.path().join("config"), config.to_string()).unwrap();
        Self(directory)
    }

    /// Exit code, data and talk.
    fn meshctl(&self, line: &str) -> (i32, String, String) {
        let output: Output = Command::new(env!("CARGO_BIN_EXE_meshctl"))
            .args(line.split_whitespace())
            // Nothing here waits in vain, and a machine may be busy.
            .args(["--request-timeout", "60s"])
            .env("KUBECONFIG", self.0.path().join("config"))
            .env("HOME", self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

fn list(items: Value) -> (u16, String) {
    (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string())
}

const WEBHOOK: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/mesh-injector";
const CONTROLLER: &str = "/apis/apps/v1/namespaces/mesh-system/deployments/mesh-controller";

/// A cluster without a mesh that takes what it is given.
fn fresh() -> Script {
    let mut script = Script { patch: Some((200, "{}".to_owned())), ..Script::default() };
    script.lists.insert("/version", (200, json!({"major": "1", "minor": "34"}).to_string()));
    let review = json!({"status": {"allowed": true}}).to_string();
    script.lists.insert("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", (201, review));
    script.lists.insert("/api/v1/pods", list(json!([])));
    script.lists.insert("/api/v1/configmaps", list(json!([])));
    script
}

fn meshed_pod() -> Value {
    json!({
        "metadata": {"name": "web-0", "namespace": "shop", "annotations": {"meshctl.dev/proxy-version": "0.0.9"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "1", "controller": true}]},
        "spec": {"initContainers": [{"name": "mesh-proxy"}], "containers": [{"name": "app"}]},
        "status": {"phase": "Running"},
    })
}

/// One whose control plane does not run.
fn broken() -> Script {
    let mut script = fresh();
    for path in [
        WEBHOOK,
        CONTROLLER,
        "/api/v1/namespaces/mesh-system",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/mesh-controller",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/mesh-controller",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/authorizationpolicies.meshctl.dev",
    ] {
        script.lists.insert(path, (200, "{}".to_owned()));
    }
    let bundle = |namespace: &str| json!({"metadata": {"name": "mesh-trust-bundle", "namespace": namespace}});
    script.lists.insert("/api/v1/configmaps", list(json!([bundle("mesh-system"), bundle("shop")])));
    script.lists.insert("/apis/meshctl.dev/v1alpha1/authorizationpolicies", list(json!([{}, {}])));
    script
}

#[test]
fn an_uninstallation_prints_what_is_there_the_webhook_first_and_what_was_put_into_other_namespaces() {
    let (code, data, talk) = User::of(broken()).meshctl("uninstall");
    assert_eq!(code, 0, "{talk}");
    let objects: Vec<Value> =
        data.split("---\n").skip(1).map(|document| serde_json::to_value(yaml(document)).unwrap()).collect();
    let names: Vec<String> = objects
        .iter()
        .map(|object| {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            format!("{} {} {}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
        })
        .collect();
    assert_eq!(
        names,
        [
            "MutatingWebhookConfiguration  mesh-injector",
            "ClusterRoleBinding  mesh-controller",
            "Deployment mesh-system mesh-controller",
            "ConfigMap shop mesh-trust-bundle",
            "ClusterRole  mesh-controller",
            "CustomResourceDefinition  authorizationpolicies.meshctl.dev",
            "Namespace  mesh-system",
        ]
    );
    assert!(talk.contains("warning: 2 AuthorizationPolicies go with their definition"), "{talk}");
    assert!(talk.contains("7 objects, the webhook first: meshctl uninstall | kubectl delete -f -"), "{talk}");
}

/// A document of two levels, as `uninstall` prints them.
fn yaml(document: &str) -> Value {
    let mut object = json!({"metadata": {}});
    for line in document.lines() {
        let (key, value) = line.split_once(':').unwrap();
        match key.strip_prefix("  ") {
            Some(key) => object["metadata"][key] = value.trim().into(),
            None if key != "metadata" => object[key] = value.trim().into(),
            None => {}
        }
    }
    object
}

#[test]
fn nothing_is_removed_while_pods_are_meshed_unless_that_is_insisted_on() {
    let mut script = broken();
    let ended = json!({"metadata": {"name": "done", "namespace": "old"}, "status": {"phase": "Succeeded"},
        "spec": {"initContainers": [{"name": "mesh-proxy"}], "containers": []}});
    script.lists.insert("/api/v1/pods", list(json!([meshed_pod(), ended])));
    let user = User::of(script);
    let (code, data, talk) = user.meshctl("uninstall");
    assert_eq!((code, data.as_str()), (1, ""), "{talk}");
    assert!(talk.starts_with("error: statefulset/web in shop are still meshed\n"), "{talk}");
    for part in ["kubectl label namespace shop meshctl.dev/inject-", "kubectl -n shop rollout restart statefulset/web"]
    {
        assert!(talk.contains(part), "{part}: {talk}");
    }
    let (code, data, talk) = user.meshctl("uninstall --force");
    assert_eq!(code, 0, "{talk}");
    assert!(data.contains("kind: Namespace") && talk.contains("still run with a sidecar"), "{talk}");
}

#[test]
fn where_nothing_is_installed_nothing_is_removed_and_what_one_may_not_see_is_not_taken_for_absent() {
    let user = User::of(fresh());
    let (code, data, talk) = user.meshctl("uninstall");
    assert_eq!((code, data.as_str(), talk.as_str()), (0, "", "nothing of the mesh is installed on this cluster\n"));
    assert_eq!(user.meshctl("uninstall --fail-empty").0, 6);
    let mut script = broken();
    script.lists.insert(WEBHOOK, (403, status(403, "webhooks are forbidden")));
    let (code, data, talk) = User::of(script).meshctl("uninstall");
    assert_eq!((code, data.as_str()), (3, ""), "{talk}");
    let (code, _, talk) = user.meshctl("uninstall --playground");
    assert!(code == 2 && talk.contains("meshctl playground stop"), "{talk}");
}

#[test]
fn values_come_from_options_files_and_profiles_in_this_order() {
    let user = User::of(fresh());
    fs::write(user.0.path().join("mine.yaml"), "controller: {replicas: 5}\nlogLevel: warn\ndefaultPolicy: deny\n")
        .unwrap();
    fs::write(user.0.path().join("wrong.yaml"), "controller: {replica: 5}\n").unwrap();
    let (code, manifest, talk) =
        user.meshctl("install --ha --profile authenticated --values mine.yaml --set logLevel=debug");
    assert_eq!(code, 0, "{talk}");
    for part in ["replicas: 5", "replicas: 3", "failurePolicy: Fail", "--default-policy=deny", "--log=debug"] {
        assert!(manifest.contains(part), "{part}");
    }
    assert!(user.meshctl("install --profile authenticated").1.contains("--default-policy=authenticated"));
    for (line, code, says) in [
        ("install --values wrong.yaml", 2, "wrong.yaml: there is no value \"controller.replica\"; did you mean"),
        ("install --values nowhere.yaml", 6, "read nowhere.yaml: "),
        ("install --profile open", 2, "authenticated"),
        ("install --timeout 1m", 2, "--apply"),
    ] {
        let (found, data, talk) = user.meshctl(line);
        assert_eq!((found, data.as_str()), (code, ""), "{line}: {talk}");
        assert!(talk.contains(says), "{line}: {talk}");
    }
}

/// Deployments, pods and the webhook as they are some time after they were applied.
fn applied(available: u64, container: Value, bundle: &str) -> Script {
    let mut script = fresh();
    let deployment = |name: &str| {
        json!({"metadata": {"name": name, "generation": 1}, "spec": {"replicas": 1},
            "status": {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": available}})
    };
    let both = json!([deployment("mesh-controller"), deployment("mesh-injector")]);
    script.lists.insert("/apis/apps/v1/namespaces/mesh-system/deployments", list(both));
    let pod = json!({
        "metadata": {"name": "mesh-controller-1", "labels": {"app.kubernetes.io/name": "mesh-controller"}},
        "spec": {"nodeName": "node-a"},
        "status": {"conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [container]},
    });
    script.lists.insert("/api/v1/namespaces/mesh-system/pods", list(json!([pod])));
    script.lists.insert("/api/v1/namespaces/mesh-system/events", list(json!([])));
    let webhook = json!({"webhooks": [{"clientConfig": {"caBundle": bundle}}]});
    script.lists.insert(WEBHOOK, (200, webhook.to_string()));
    script
}

#[test]
fn what_is_applied_is_waited_for_and_why_is_said() {
    let (code, data, talk) = User::of(applied(1, json!({}), "eA==")).meshctl("install --apply");
    assert_eq!((code, data.as_str()), (0, ""), "{talk}");
    let lines: Vec<&str> = talk.lines().collect();
    assert!(lines[0].starts_with("√ ") && lines[0].contains(" new, 1 changed, 0 as they were"), "{talk}");
    assert_eq!(lines[1..4], ["√ mesh-controller 1/1", "√ mesh-injector 1/1", "√ webhook"], "{talk}");
    assert!(lines[4].starts_with("ready in ") && talk.ends_with("  meshctl check\n"), "{talk}");

    let waiting = json!({"image": "mesh-controller:9", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}});
    let (code, data, talk) = User::of(applied(0, waiting, "")).meshctl("install --apply --timeout 2s");
    assert_eq!((code, data.as_str()), (4, ""), "{talk}");
    let reason =
        "mesh-controller 0/1: pod mesh-controller-1: ImagePullBackOff \"mesh-controller:9\" on node-a: Back-off";
    assert!(talk.contains(&format!("… {reason}\n")), "{talk}");
    assert!(
        talk.contains("error: timed out after 2s: mesh-controller: pod mesh-controller-1: ImagePullBackOff"),
        "{talk}"
    );
    assert_eq!(talk.matches(reason).count(), 1, "once: {talk}");
}

#[test]
fn what_would_fail_half_way_is_not_begun() {
    let mut script = fresh();
    let review = json!({"status": {"allowed": false}}).to_string();
    script.lists.insert("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", (201, review));
    let (code, _, talk) = User::of(script).meshctl("install --apply");
    assert_eq!(code, 3, "{talk}");
    assert!(talk.starts_with("error: nothing was changed: not allowed to create "), "{talk}");
    let old = Script { patch: Some((422, status(422, "spec.x: is not known"))), ..fresh() };
    let (code, _, talk) = User::of(old).meshctl("install --apply");
    assert_eq!(code, 1, "{talk}");
    assert!(talk.contains("nothing was changed: ") && talk.contains("spec.x: is not known"), "{talk}");
}

/// An installation of that release; every object is as the API server would make it, but for those that are not there.
fn installed(release: &str) -> Script {
    let mut script = applied(1, json!({}), "eA==");
    let image = format!("registry.example/mesh/mesh-controller:{release}");
    let deployment = json!({"spec": {"template": {"spec": {"containers": [{"name": "controller", "image": image}]}}}});
    script.lists.insert(CONTROLLER, (200, deployment.to_string()));
    script.lists.insert("/api/v1/pods", list(json!([meshed_pod()])));
    script
}

#[test]
fn an_upgrade_shows_the_difference_and_the_proxies_that_are_older() {
    let user = User::of(installed(env!("CARGO_PKG_VERSION")));
    let (code, data, talk) = user.meshctl("upgrade");
    assert_eq!(code, 1, "something would change: {talk}");
    assert!(data.contains("--- Deployment mesh-controller in mesh-system, as it is\n"), "{data}");
    assert!(
        data.contains("-        - image: ") || data.contains("-          image: ") || data.contains("mesh-controller:"),
        "{data}"
    );
    assert!(data.contains("kubectl -n shop rollout restart statefulset/web"), "{data}");
    assert!(talk.contains("would change, from ") && talk.contains("other proxies in 1 workload;"), "{talk}");
    let (code, data, _) = user.meshctl("upgrade -o json");
    let plan: Value = serde_json::from_str(&data).unwrap();
    assert_eq!((code, &plan["kind"], &plan["from"]), (1, &"UpgradePlan".into(), &env!("CARGO_PKG_VERSION").into()));
    assert_eq!(plan["proxies"][0]["proxy"], "0.0.9");

    let (code, _, talk) = user.meshctl("upgrade --apply");
    assert_eq!(code, 0, "{talk}");
    assert!(talk.contains("√ webhook") && talk.contains("upgraded from "), "{talk}");
}

const RECORD: &str = "/api/v1/namespaces/mesh-system/configmaps/mesh-values";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

fn labelled(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "mesh"}}})
}

/// An installation of release 0.0.9, with values of its own, and with what its manifest had and ours has not.
fn of_before() -> Script {
    let mut script = Script { patch: None, echoes: true, ..installed("0.0.9") };
    let values = "logLevel: \"warn\"\ndefaultPolicy: \"deny\"\ncontroller:\n  image: \"registry/mesh-controller:0.0.9\"\n\
                  injector:\n  image: \"mesh-injector:mine\"\nold: 1\n";
    let labels = json!({"app.kubernetes.io/part-of": "mesh", "app.kubernetes.io/version": "0.0.9"});
    let record = json!({"metadata": {"name": "mesh-values", "labels": labels}, "data": {"values.yaml": values}});
    script.lists.insert(RECORD, (200, record.to_string()));
    let roles = json!([labelled("mesh-controller"), labelled("mesh-old"), labelled("somebody-else")]);
    script.lists.insert(ROLES, list(roles));
    script
}

#[test]
fn an_upgrade_starts_from_the_values_of_the_installation_and_removes_what_this_release_has_not() {
    let script = of_before();
    let changed = Arc::clone(&script.changed);
    let user = User::of(script);
    let (code, data, talk) = user.meshctl("upgrade --set logLevel=debug");
    assert_eq!(code, 1, "{talk}");
    let image = format!("registry/mesh-controller:{}", env!("CARGO_PKG_VERSION"));
    for part in ["--log=debug", "--default-policy=deny", image.as_str(), "mesh-injector:mine"] {
        assert!(data.lines().any(|line| line.starts_with('+') && line.contains(part)), "{part}: {data}");
    }
    assert!(data.contains("+++ ClusterRole mesh-old, removed\n"), "{data}");
    assert!(!data.contains("somebody-else"), "{data}");
    assert!(talk.contains("warning: injector.image stays mesh-injector:mine, as it was set"), "{talk}");
    assert!(talk.contains("warning: old is no value of "), "{talk}");
    assert_eq!(*changed.lock(), Vec::<String>::new(), "a plan changes nothing");
    let (_, data, _) = user.meshctl("upgrade -o json");
    let plan: Value = serde_json::from_str(&data).unwrap();
    let becomes = |name: &str| {
        let change = plan["changes"].as_array().unwrap().iter().find(|change| change["object"] == name).unwrap();
        change["becomes"].clone()
    };
    assert_eq!((becomes("ClusterRole mesh-old"), becomes("Namespace mesh-system")), ("removed".into(), "new".into()));

    let (_, data, talk) = user.meshctl("upgrade --reset-values");
    assert!(data.contains("--default-policy=allow") && !talk.contains("warning"), "{talk}");
    let (code, _, talk) = user.meshctl("upgrade --apply");
    assert_eq!(code, 0, "{talk}");
    assert!(talk.contains("√ ClusterRole mesh-old removed\n"), "{talk}");
    let changed = changed.lock();
    let removed = format!("DELETE {ROLES}/mesh-old");
    assert_eq!(changed.iter().filter(|one| one.starts_with("DELETE")).collect::<Vec<_>>(), [&removed]);
    assert_eq!(changed.last(), Some(&removed), "after everything else is applied");
}

#[test]
fn values_that_are_not_recorded_or_cannot_be_read_are_told() {
    let (_, _, talk) = User::of(installed("0.0.9")).meshctl("upgrade");
    assert!(talk.contains("warning: with which values the mesh was installed is not recorded"), "{talk}");
    let mut script = of_before();
    let record = json!({"metadata": {"name": "mesh-values"}, "data": {"values.yaml": "logLevel: \"a b\"\n"}});
    script.lists.insert(RECORD, (200, record.to_string()));
    let (code, data, talk) = User::of(script).meshctl("upgrade");
    assert_eq!((code, data.as_str()), (1, ""), "{talk}");
    assert!(talk.contains("the values in ConfigMap mesh-values: value of logLevel") && talk.contains("--reset-values"));
}

#[test]
fn the_release_on_record_counts_where_the_image_has_a_tag_of_its_own() {
    let mut script = installed("patched");
    let labels = json!({"app.kubernetes.io/version": "9.9.0"});
    script.lists.insert(RECORD, (200, json!({"metadata": {"labels": labels}}).to_string()));
    let (code, _, talk) = User::of(script).meshctl("upgrade");
    assert!(code == 1 && talk.contains("9.9.0 is installed") && talk.contains("fix: go step by step"), "{talk}");
}

const ROUTES: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/httproutes.gateway.networking.k8s.io";

#[test]
fn the_definition_of_routes_comes_where_it_is_asked_for_and_there_is_none_of_others() {
    let line = "install --apply --set gatewayApi.install=true";
    let release = "gateway.networking.k8s.io/bundle-version";
    let others = json!({"metadata": {"annotations": {(release): "v1.2.0"}}});
    let newer =
        json!({"metadata": {"labels": {"app.kubernetes.io/part-of": "mesh"}, "annotations": {(release): "v9.0.0"}}});
    for (live, says) in [(None, None), (Some(others), Some("and not of the mesh")), (Some(newer), Some("and newer"))] {
        let mut script = applied(1, json!({}), "eA==");
        let changed = Arc::clone(&script.changed);
        script.lists.extend(live.map(|live| (ROUTES, (200, live.to_string()))));
        let (code, _, talk) = User::of(script).meshctl(line);
        assert_eq!(code, 0, "{talk}");
        let put = changed.lock().contains(&format!("PATCH {ROUTES}"));
        assert_eq!(put, says.is_none(), "{talk}");
        assert!(says.is_none_or(|says| talk.contains(says) && talk.contains("it stays")), "{talk}");
    }
    assert!(!User::of(fresh()).meshctl("install").1.contains("gateway.networking.k8s.io/bundle-version"));
}

#[test]
fn an_uninstallation_leaves_the_definition_of_routes_and_takes_what_earlier_releases_left() {
    let mut script = broken();
    script.lists.insert(ROUTES, (200, labelled("httproutes.gateway.networking.k8s.io").to_string()));
    script.lists.insert(ROLES, list(json!([labelled("mesh-old")])));
    let (code, data, talk) = User::of(script).meshctl("uninstall");
    assert_eq!(code, 0, "{talk}");
    assert!(!data.contains("httproutes") && data.contains("name: mesh-old"), "{data}");
    assert!(talk.contains("kubectl delete crd httproutes.gateway.networking.k8s.io"), "{talk}");
}

#[test]
fn releases_that_are_far_apart_are_refused_and_what_is_not_there_is_not_upgraded() {
    let (code, data, talk) = User::of(installed("9.9.0")).meshctl("upgrade --apply");
    assert_eq!((code, data.as_str()), (1, ""), "{talk}");
    assert!(talk.contains("more than one minor release apart") && talk.contains("fix: go step by step"), "{talk}");
    let (code, _, talk) = User::of(fresh()).meshctl("upgrade");
    assert_eq!(code, 6, "{talk}");
    assert!(talk.contains("no mesh is installed") && talk.contains("meshctl install --apply"), "{talk}");
}
