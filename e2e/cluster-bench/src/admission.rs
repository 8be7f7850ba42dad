//! How long the API server waits for the injector, while pods come in twenty at a time.
//!
//! Server-side dry runs: the API server does everything for a pod except to keep it, the call of the webhook included.

use std::cell::RefCell;

use anyhow::ensure;
use mesh_measure::{Report, Samples};
use mesh_proto::names;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    cluster::{Cluster, all, until},
    namespaces,
    prometheus::Histogram,
};

/// Milliseconds that the API server waits for the webhook, 99 of 100.
const WAITED: f64 = 50.0;
/// Pods at a time.
const WIDTH: usize = 20;
/// The API server's own measurement, in seconds.
const METRIC: &str = "apiserver_admission_webhook_admission_duration_seconds";
/// Of the webhook that namespaces with our label lead to.
const WEBHOOK: &str = "name=\"namespace.inject.meshctl.dev\"";
/// The bounds of [`METRIC`] around the bar, in seconds.
const BOUND: f64 = 0.025;
/// The namespaces of the comparison.
const MESHED: &str = "mesh-bench-admission";
const PLAIN: &str = "mesh-bench-admission-plain";

pub(crate) async fn measure(cluster: &Cluster, pods: usize, report: &mut Report) -> anyhow::Result<()> {
    namespaces::meshed(cluster, MESHED).await?;
    namespaces::plain(cluster, PLAIN).await?;
    // The rules that lead to a new pod of the injector come a moment after the pod is ready.
    until("the API server reaches the webhook", || async {
        ensure!(is_meshed(&cluster.create(&path(MESHED), &pod(0)).await?), "a pod came back without a sidecar");
        Ok(())
    })
    .await?;
    let (without, _) = create(cluster, PLAIN, pods).await?;
    let before = Histogram::read(&cluster.text("/metrics").await?, METRIC, &[WEBHOOK]);
    let (with, unmeshed) = create(cluster, MESHED, pods).await?;
    let after = Histogram::read(&cluster.text("/metrics").await?, METRIC, &[WEBHOOK]);
    let waited = after.since(&before);
    let calls = waited.count();
    ensure!(calls + 0.5 > pods as f64, "the API server has counted {calls} calls of the webhook for {pods} pods");

    // Within a bucket that is a guess, and never more than the creates took, each of which contains its call.
    let (p50, p99) = (waited.quantile(0.5)? * 1000.0, waited.quantile(0.99)? * 1000.0);
    report.told("admission: webhook round trip, median", "ms", p50.min(with.median()), pods);
    report.promised("admission: webhook round trip, p99", "ms", p99.min(with.percentile(99)), WAITED, pods);
    if let Some(within) = waited.within(BOUND) {
        report.told("admission: not within 25 ms", "%", 100.0 - within / calls * 100.0, pods);
    }
    report.promised("admission: pods without a sidecar", "", unmeshed as f64, 0.0, pods);
    report.told("whole create of a pod, median", "ms", with.median(), pods);
    report.told("whole create of a pod, p99", "ms", with.percentile(99), pods);
    report.told("  without the mesh, median", "ms", without.median(), pods);
    report.told("  without the mesh, p99", "ms", without.percentile(99), pods);
    Ok(())
}

/// A pod as the injector makes it, to be created anywhere, though never to run. There is a namespace already.
pub(crate) async fn injected(cluster: &Cluster) -> anyhow::Result<Value> {
    let stored = cluster.create(&path(MESHED), &pod(0)).await?;
    ensure!(is_meshed(&stored), "a pod came back without a sidecar");
    let (metadata, mut spec) = (&stored["metadata"], stored["spec"].clone());
    let metadata = json!({"labels": metadata["labels"], "annotations": metadata["annotations"]});
    spec["schedulingGates"] = json!([{"name": "mesh-bench.invalid/never"}]);
    Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

/// Milliseconds that each took, and how many came back without a sidecar.
async fn create(cluster: &Cluster, namespace: &str, pods: usize) -> anyhow::Result<(Samples, usize)> {
    let (took, unmeshed) = (RefCell::new(Vec::new()), RefCell::new(0));
    let (path, took_ref, unmeshed_ref) = (path(namespace), &took, &unmeshed);
    all(1..=pods, WIDTH, |number| {
        let path = &path;
        async move {
            let pod = pod(number);
            let begun = Instant::now();
            let stored = cluster.create(path, &pod).await?;
            took_ref.borrow_mut().push(begun.elapsed().as_secs_f64() * 1000.0);
            *unmeshed_ref.borrow_mut() += usize::from(!is_meshed(&stored));
            Ok(())
        }
    })
    .await?;
    Ok((Samples::new(took.into_inner())?, unmeshed.into_inner()))
}

fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods?dryRun=All")
}

/// A web server as most are: two ports, and probes that the injector has to rewrite.
fn pod(number: usize) -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": 5});
    let container = json!({
        "name": "web",
        "image": "web.invalid/web:1",
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
        "env": [{"name": "LOG", "value": "info"}],
        "readinessProbe": probe("/ready"),
        "livenessProbe": probe("/live"),
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
    });
    let metadata = json!({"name": format!("web-{number}"), "labels": {"app": "web"}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
}

fn is_meshed(pod: &Value) -> bool {
    let containers = pod.pointer("/spec/initContainers").and_then(Value::as_array).into_iter().flatten();
    containers.into_iter().any(|container| container["name"] == names::CONTAINER_PROXY)
}
