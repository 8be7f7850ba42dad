//! The webhook as the API server asks it: what it is not asked about, and what a dry run leaves.

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, kubectl, mesh, until};
use mesh_proto::names;
use serde_json::{Value, json};

/// A pod that any level of PodSecurity admits, asks for a sidecar by itself, and is of a ReplicaSet.
fn pod(name: &str, owner: &str, more: &Value) -> String {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "labels": {names::LABEL_INJECT: names::INJECT_ENABLED},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true}],
        },
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "app", "image": "mesh-shop:dev", "args": ["orders", "--listen=127.0.0.1:0"],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    });
    if let (Some(spec), Some(more)) = (pod["spec"].as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    pod.to_string()
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_dry_run_of_a_pod_leaves_no_event_and_system_namespaces_are_never_asked_about() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-admission")?;
    let create = |namespace: &str, pod: &str, more: &[&str]| {
        kubectl(&[&["--namespace", namespace, "create", "--filename", "-"], more].concat(), pod)?.ok()
    };
    let dry = ["--dry-run=server", "--output", "json"];

    // It is asked, and answers: whom it told of a dry run would have been told before the next one.
    let on_the_node = json!({"hostNetwork": true});
    let dry_run = pod("dry", "of-a-dry-run", &json!({}));
    ensure!(create(namespace.name(), &dry_run, &dry)?.contains(names::CONTAINER_REDIRECT), "it is injected");
    create(namespace.name(), &pod("dry", "of-a-dry-run", &on_the_node), &dry)?;
    create(namespace.name(), &pod("real", "of-a-pod", &on_the_node), &[])?;
    let events = until("an event about the pod that was created", || {
        let events = namespace.run(&["get", "events", "--output", "json"])?.ok()?;
        ensure!(events.contains("of-a-pod"), "{events}");
        Ok(events)
    })?;
    ensure!(!events.contains("of-a-dry-run"), "{events}");

    for system in ["kube-system", names::SYSTEM_NAMESPACE] {
        let admitted = create(system, &dry_run, &dry)?;
        ensure!(!admitted.contains(names::CONTAINER_REDIRECT), "{system}: {admitted}");
    }
    let configuration = ["get", "mutatingwebhookconfiguration", names::INJECTOR_NAME, "--output", "json"];
    let configuration: Value = serde_json::from_str(&kubectl(&configuration, "")?.ok()?)?;
    let webhooks = configuration["webhooks"].as_array().context("webhooks")?;
    for webhook in webhooks {
        ensure!(webhook["sideEffects"] == "NoneOnDryRun" && webhook["timeoutSeconds"] == 5, "{webhook:#}");
        ensure!(webhook["rules"][0]["operations"] == json!(["CREATE"]), "{webhook:#}");
        let selector = webhook["namespaceSelector"].to_string();
        ensure!(selector.contains("kube-system") && selector.contains(names::SYSTEM_NAMESPACE), "{selector}");
    }
    ensure!(webhooks.len() == 2, "{webhooks:#?}");
    Ok(())
}
