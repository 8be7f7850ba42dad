//! The kinds of workloads, each injected by the API server's real admission.

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, kubectl, mesh, meshctl, shop::ORDERS_PODS, until};
use mesh_proto::names;
use serde_json::Value;

/// Lets in whoever runs as `customer`, and nobody else: who gets an answer has that identity. Both probes are the
/// kubelet's, which has none.
const ORDERS: &str = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: customer}
---
apiVersion: meshctl.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: orders}
spec:
  selector: {matchLabels: {app: orders}}
  from: [{serviceAccounts: [customer]}]
---
apiVersion: v1
kind: Service
metadata: {name: orders}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec:
  clusterIP: None
  selector: {app: orders}
  ports: [{name: http, port: 8080, targetPort: http}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: orders}
spec:
  serviceName: each
  replicas: 2
  podManagementPolicy: Parallel
";

/// Its init container needs the network, too, and it ends although its sidecar would run for ever.
fn job(name: &str, account: &str) -> String {
    format!(
        r#"
apiVersion: batch/v1
kind: CronJob
metadata: {{name: {name}}}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          serviceAccountName: {account}
          restartPolicy: Never
          initContainers:
            - {{name: service, image: "mesh-shop:dev", args: [get, -i, "http://orders/orders"]}}
          containers:
            - {{name: pod, image: "mesh-shop:dev", args: [get, -i, "http://orders-1.each:8080/orders"]}}
"#
    )
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_cron_jobs_pod_asks_with_its_identity_from_the_init_container_on_and_ends() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-jobs")?;
    namespace.apply(&[ORDERS, ORDERS_PODS].concat())?;
    namespace.rolled_out("statefulset/orders")?;
    for (account, status) in [("customer", "200 "), ("default", "403 ")] {
        let name = format!("as-{account}");
        namespace.apply(&job(&name, account))?;
        namespace.run(&["create", "job", &name, "--from", &format!("cronjob/{name}")])?.ok()?;
        let job = format!("job/{name}");
        namespace.run(&["wait", "--for=condition=Complete", &job, "--timeout=240s"])?.ok()?;
        for container in ["service", "pod"] {
            let answer = namespace.run(&["logs", &job, "--container", container])?.ok()?;
            ensure!(answer.starts_with(status), "{account}, by its {container}: {answer}");
            ensure!(answer.contains("mesh-error: denied") == (account == "default"), "{account}: {answer}");
        }
        let pod = &namespace.objects("pods", &format!("job-name={name}"))?[0];
        ensure!(pod["status"]["phase"] == "Succeeded", "{:#}", pod["status"]);
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_daemon_sets_pods_are_meshed_in_a_namespace_that_is_not_by_their_own_label() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::plain("mesh-e2e-daemons")?;
    namespace.apply(&format!(
        r"
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: orders}}
spec:
  selector: {{matchLabels: {{app: orders}}}}
  template:
    metadata: {{labels: {{app: orders, {}: enabled}}}}
    spec:
      containers:
        - name: orders
          image: mesh-shop:dev
          args: [orders]
          readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
",
        names::LABEL_INJECT
    ))?;
    namespace.rolled_out("daemonset/orders")?;
    let list: Value = serde_json::from_str(&meshctl(&["list", "-n", namespace.name(), "-o", "json"], "")?.ok()?)?;
    let item = &list["items"][0];
    ensure!(item["workload"] == "daemonset/orders" && item["meshed"] == item["pods"], "{list:#}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_probe_of_a_closed_port_fails() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-probes")?;
    for (name, probe) in [
        ("open", "tcpSocket: {port: 8080}"),
        ("closed", "tcpSocket: {port: 8081}"),
        ("closed-http", "httpGet: {path: /healthz, port: 8081}"),
    ] {
        namespace.apply(&format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  containers:
    - {{name: orders, image: "mesh-shop:dev", args: [orders], readinessProbe: {{{probe}, periodSeconds: 1}}}}
"#
        ))?;
    }
    namespace.run(&["wait", "--for=condition=Ready", "pod/open", "--timeout=240s"])?.ok()?;
    for name in ["closed", "closed-http"] {
        until("the kubelet says that the probe failed", || {
            let events = namespace.run(&["events", "--for", &format!("pod/{name}")])?.ok()?;
            ensure!(events.contains("Readiness probe failed"), "{events}");
            Ok(())
        })?;
        let pod = namespace.run(&["get", "pod", name, "--output", "json"])?.ok()?;
        let pod: Value = serde_json::from_str(&pod)?;
        let conditions = pod["status"]["conditions"].as_array().context("conditions")?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").context("Ready")?;
        ensure!(ready["status"] == "False", "{pod:#}");
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_pod_that_cannot_be_meshed_starts_without_and_is_listed_with_the_reason() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-refused")?;
    let pod = |name: &str, more: &str| {
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  {more}
  containers: [{{name: orders, image: "mesh-shop:dev", args: [orders, --listen=127.0.0.1:0]}}]
"#
        )
    };
    namespace.apply(&pod("on-the-node", "hostNetwork: true"))?;
    let label = ["label", "namespace", namespace.name(), "pod-security.kubernetes.io/enforce=baseline"];
    kubectl(&label, "")?.ok()?;
    let said = kubectl(&["--namespace", namespace.name(), "create", "--filename", "-"], &pod("baseline", ""))?;
    ensure!(said.code == Some(0) && said.stderr.contains("pod-security-forbids-redirect"), "{said}");
    for (name, reason) in [("on-the-node", "host-network"), ("baseline", "pod-security-forbids-redirect")] {
        namespace.run(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=240s"])?.ok()?;
        let list: Value = serde_json::from_str(&meshctl(&["list", "-n", namespace.name(), "-o", "json"], "")?.ok()?)?;
        let mut items = list["items"].as_array().context("items")?.iter();
        let item = items.find(|item| item["workload"] == format!("pod/{name}"));
        ensure!(item.is_some_and(|item| item["meshed"] == 0 && item["reason"] == reason), "{list:#}");
    }
    Ok(())
}
