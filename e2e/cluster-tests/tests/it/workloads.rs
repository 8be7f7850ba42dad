//! The kinds of workloads, each injected by the API server's real admission.

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, mesh, meshctl, shop::ORDERS_PODS};
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
fn a_jobs_pod_asks_with_its_identity_from_the_init_container_on_and_ends() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-jobs")?;
    namespace.apply(&[ORDERS, ORDERS_PODS].concat())?;
    namespace.rolled_out("statefulset/orders")?;
    namespace.apply(FINISHES)?;
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
    jobs_are_counted_as_they_end(&namespace)
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

/// Three pods of it have to come to their end, two at a time.
const FINISHES: &str = r#"
---
apiVersion: batch/v1
kind: Job
metadata: {name: finishes}
spec:
  completions: 3
  parallelism: 2
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      serviceAccountName: customer
      containers: [{name: get, image: "mesh-shop:dev", args: [get, "http://orders/orders"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  backoffLimit: 1
  template:
    spec:
      restartPolicy: Never
      containers: [{name: get, image: "mesh-shop:dev", args: [get, "http://nobody.invalid/"]}]
"#;

fn jobs_are_counted_as_they_end(namespace: &Namespace) -> anyhow::Result<()> {
    for (job, condition) in [("job/finishes", "Complete"), ("job/fails", "Failed")] {
        namespace.run(&["wait", &format!("--for=condition={condition}"), job, "--timeout=240s"])?.ok()?;
    }
    let jobs = namespace.objects("jobs", "")?;
    let job = |name: &str| jobs.iter().find(|job| job["metadata"]["name"] == name).context("a job");
    ensure!(job("finishes")?["status"]["succeeded"] == 3, "{:#}", job("finishes")?["status"]);
    // The first, and one more.
    let status = &job("fails")?["status"];
    let reason = status["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Failed");
    ensure!(status["failed"] == 2, "{status:#}");
    ensure!(reason.is_some_and(|one| one["reason"] == "BackoffLimitExceeded"), "{status:#}");
    for (name, phase) in [("finishes", "Succeeded"), ("fails", "Failed")] {
        for pod in namespace.objects("pods", &format!("job-name={name}"))? {
            ensure!(pod["spec"]["initContainers"][0]["name"] == names::CONTAINER_PROXY, "{:#}", pod["spec"]);
            ensure!(pod["status"]["phase"] == phase, "{:#}", pod["status"]);
        }
    }
    Ok(())
}
