//! The kubelet's probes of meshed pods: those of every kind under every default policy, and those that must fail.

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, mesh, until};
use mesh_proto::names;
use serde_json::Value;

/// Every kind of probe as each way of asking, one pod for each default policy: the kubelet has no identity, and no policy
/// may keep it from asking.
fn probed(default_policy: &str) -> String {
    format!(
        r#"
---
apiVersion: v1
kind: Pod
metadata: {{name: {default_policy}, labels: {{app: probed}}, annotations: {{{}: {default_policy}}}}}
spec:
  containers:
    - name: http
      image: mesh-shop:dev
      args: [orders]
      ports: [{{name: web, containerPort: 8080}}]
      startupProbe: {{httpGet: {{path: /healthz, port: web}}, periodSeconds: 1, failureThreshold: 60}}
      readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
      livenessProbe: {{httpGet: {{path: /healthz, port: web}}, periodSeconds: 1}}
    - name: tcp
      image: mesh-shop:dev
      args: [stock]
      ports: [{{name: stock, containerPort: 7000}}]
      startupProbe: {{tcpSocket: {{port: stock}}, periodSeconds: 1, failureThreshold: 60}}
      readinessProbe: {{tcpSocket: {{port: 7000}}, periodSeconds: 1}}
      livenessProbe: {{tcpSocket: {{port: stock}}, periodSeconds: 1}}
    - name: grpc
      image: mesh-shop:dev
      args: [prices]
      startupProbe: {{grpc: {{port: 50051}}, periodSeconds: 1, failureThreshold: 60}}
      readinessProbe: {{grpc: {{port: 50051, service: shop.v1.Prices}}, periodSeconds: 1}}
      livenessProbe: {{grpc: {{port: 50051}}, periodSeconds: 1}}
    - name: exec
      image: mesh-shop:dev
      args: [orders, "--listen=0.0.0.0:8081"]
      startupProbe: &looks
        exec: {{command: [/mesh-shop, get, "http://127.0.0.1:8081/healthz"]}}
        periodSeconds: 2
        timeoutSeconds: 10
        failureThreshold: 30
      readinessProbe: *looks
      livenessProbe: *looks
"#,
        names::ANNOTATION_DEFAULT_POLICY
    )
}

const DEFAULT_POLICIES: [&str; 3] = ["allow", "authenticated", "deny"];

/// A port that nobody listens on looks open behind a redirect; and a server may say by itself that it is not well.
const UNWELL: &str = r#"
---
apiVersion: v1
kind: Pod
metadata: {name: unwell}
spec:
  containers:
    - name: http-closed
      image: mesh-shop:dev
      args: [orders]
      readinessProbe: {httpGet: {path: /healthz, port: 9999}, periodSeconds: 1}
    - name: http-unknown
      image: mesh-shop:dev
      args: [orders, "--listen=0.0.0.0:8081"]
      readinessProbe: {httpGet: {path: /unknown, port: 8081}, periodSeconds: 1}
    - name: tcp-closed
      image: mesh-shop:dev
      args: [stock]
      readinessProbe: {tcpSocket: {port: 9999}, periodSeconds: 1}
    - name: grpc-closed
      image: mesh-shop:dev
      args: [prices]
      readinessProbe: {grpc: {port: 9999}, periodSeconds: 1}
    - name: grpc-unknown
      image: mesh-shop:dev
      args: [prices, "--listen=0.0.0.0:50052"]
      readinessProbe: {grpc: {port: 50052, service: nobody}, periodSeconds: 1}
"#;

#[test]
#[ignore = "needs a cluster: just e2e"]
fn probes_tell_the_truth_under_every_policy_and_no_start_looks_like_a_failure() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-probes")?;
    namespace.apply(&[&DEFAULT_POLICIES.map(probed).concat(), UNWELL].concat())?;
    namespace.run(&["wait", "--for=condition=Ready", "pod", "--selector=app=probed", "--timeout=240s"])?.ok()?;
    for pod in namespace.objects("pods", "app=probed")? {
        let statuses = pod["status"]["containerStatuses"].as_array().context("containerStatuses")?;
        ensure!(statuses.iter().all(|status| status["restartCount"] == 0), "{statuses:#?}");
    }
    a_probe_that_must_fail_fails(&namespace)?;
    a_start_in_order_is_not_told_as_a_failed_probe(&namespace)
}

fn a_probe_that_must_fail_fails(namespace: &Namespace) -> anyhow::Result<()> {
    let containers = ["http-closed", "http-unknown", "tcp-closed", "grpc-closed", "grpc-unknown"];
    until("the kubelet says of each that its probe failed", || {
        let events = probes_that_failed(namespace)?;
        for container in containers {
            ensure!(events.iter().any(|(pod, of)| pod == "unwell" && of == container), "{container}: {events:?}");
        }
        Ok(())
    })?;
    let pod = namespace.run(&["get", "pod", "unwell", "--output", "json"])?.ok()?;
    let pod: Value = serde_json::from_str(&pod)?;
    let statuses = pod["status"]["containerStatuses"].as_array().context("containerStatuses")?;
    ensure!(statuses.len() == containers.len() && statuses.iter().all(|status| status["ready"] == false), "{pod:#}");
    Ok(())
}

/// Once in a while a busy machine is too slow for the kubelet's patience; a mesh that is wrong makes it so every time.
fn a_start_in_order_is_not_told_as_a_failed_probe(namespace: &Namespace) -> anyhow::Result<()> {
    let mut told: Vec<_> = probes_that_failed(namespace)?;
    told.retain(|(_, container)| container == names::CONTAINER_PROXY);
    told.dedup();
    ensure!(told.len() <= 1, "{told:?}");
    Ok(())
}

/// Pod and container of each event about it.
fn probes_that_failed(namespace: &Namespace) -> anyhow::Result<Vec<(String, String)>> {
    let all = namespace.run(&["get", "events", "--field-selector=reason=Unhealthy", "--output", "json"])?.ok()?;
    let all: Value = serde_json::from_str(&all)?;
    let mut seen = Vec::new();
    for event in all["items"].as_array().context("items")? {
        let text = |field: &str| event["involvedObject"][field].as_str().unwrap_or_default().to_owned();
        // spec.containers{NAME}
        let path = text("fieldPath");
        let container = path.split_once('{').map_or(path.as_str(), |(_, rest)| rest.trim_end_matches('}'));
        seen.push((text("name"), container.to_owned()));
    }
    seen.sort();
    Ok(seen)
}
