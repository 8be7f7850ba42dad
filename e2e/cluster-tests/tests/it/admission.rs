//! What becomes of a pod at admission: who gets a sidecar, who does not, and where the user reads why.

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, kubectl, mesh, meshctl, until};
use mesh_proto::names;
use serde_json::{Value, json};

/// A pod that PodSecurity's `restricted` admits.
const POD_SPEC: &str = r#"
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: orders
          image: mesh-shop:dev
          args: [orders, "--listen=127.0.0.1:0"]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"#;

fn deployment(name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:{spec}"
    )
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_pod_that_cannot_be_meshed_starts_without_and_the_user_reads_why() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-refused")?;
    namespace.apply(&deployment("on-the-node", &[POD_SPEC, "      hostNetwork: true\n"].concat()))?;
    namespace.rolled_out("deployment/on-the-node")?;
    without_and_told(&namespace, "on-the-node", "host-network")?;
    for level in ["baseline", "restricted"] {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        kubectl(&["label", "--overwrite", "namespace", namespace.name(), &label], "")?.ok()?;
        namespace.apply(&deployment(level, POD_SPEC))?;
        namespace.rolled_out(&format!("deployment/{level}"))?;
        without_and_told(&namespace, level, "pod-security-forbids-redirect")?;
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "by-hand"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "orders", "image": "mesh-shop:dev", "args": ["orders"],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    }});
    let create = ["--namespace", namespace.name(), "create", "--dry-run=server", "--filename", "-"];
    let said = kubectl(&create, &pod.to_string())?;
    ensure!(said.code == Some(0) && said.stderr.contains("pod-security-forbids-redirect"), "{said}");
    Ok(())
}

/// The pod runs, has no sidecar, and says why wherever somebody may look.
fn without_and_told(namespace: &Namespace, name: &str, reason: &str) -> anyhow::Result<()> {
    let pod = &namespace.objects("pods", &format!("app={name}"))?[0];
    ensure!(pod["spec"]["initContainers"].is_null(), "{:#}", pod["spec"]);
    let workload = format!("deployment/{name}");
    let list = meshctl(&["list", "-n", namespace.name(), "-o", "json"], "")?.ok()?;
    let list: Value = serde_json::from_str(&list)?;
    let mut items = list["items"].as_array().context("items")?.iter();
    let item = items.find(|item| item["workload"] == workload.as_str());
    ensure!(item.is_some_and(|item| item["meshed"] == 0 && item["reason"] == reason), "{list:#}");
    let described = meshctl(&["describe", "-n", namespace.name(), &workload], "")?.ok()?;
    ensure!(described.contains(reason), "{described}");
    let set = pod["metadata"]["ownerReferences"][0]["name"].as_str().context("an owner")?;
    until("an event on the ReplicaSet says so", || {
        let events = namespace.run(&["events", "--for", &format!("replicaset/{set}")])?.ok()?;
        ensure!(events.contains(reason), "{events}");
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_pod_of_the_mesh_that_is_admitted_again_stays_as_it_is() -> anyhow::Result<()> {
    mesh::install()?;
    let metadata = json!({"name": "again", "namespace": "default", "labels": {names::LABEL_INJECT: "enabled"}});
    let containers = json!([{"name": "orders", "image": "mesh-shop:dev",
        "readinessProbe": {"grpc": {"port": 50051}}}]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}});
    let admit = |pod: &Value| -> anyhow::Result<Value> {
        let create = ["create", "--dry-run=server", "--output=json", "--filename", "-"];
        Ok(serde_json::from_str(&kubectl(&create, &pod.to_string())?.ok()?)?)
    };
    let once = admit(&pod)?;
    let mut again = once.clone();
    again["metadata"] = json!({"name": "again", "namespace": "default", "labels": once["metadata"]["labels"],
        "annotations": once["metadata"]["annotations"]});
    again.as_object_mut().context("a pod")?.remove("status");
    let again = admit(&again)?;
    let names: Vec<_> = again["spec"]["initContainers"].as_array().context("initContainers")?.iter().collect();
    ensure!(names.len() == 2 && again["spec"] == once["spec"], "{again:#}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn the_control_planes_own_namespace_admits_restricted_pods_only() -> anyhow::Result<()> {
    mesh::install()?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": {
        "containers": [{"name": "root", "image": "mesh-shop:dev", "securityContext": {"runAsUser": 0}}]}});
    let create = ["--namespace", names::SYSTEM_NAMESPACE, "create", "--dry-run=server", "--filename", "-"];
    let said = kubectl(&create, &pod.to_string())?;
    ensure!(said.code != Some(0) && said.stderr.contains("violates PodSecurity \"restricted"), "{said}");
    Ok(())
}
