//! How much later an application's container is ready because its pod is meshed.
//!
//! Pods in turns, one with the mesh and one without, so that what else the machine does falls on both alike. The container has
//! no readiness probe, which the kubelet would run once a second and hide what is measured.

use std::time::Duration;

use mesh_measure::{Report, Samples};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{cluster::Cluster, namespaces};

/// Seconds, at the median.
const ADDED: f64 = 1.0;
/// Seconds between pods, of which the fraction counts: multiples of the golden ratio cover a second evenly.
const SPREAD: f64 = 0.618_034;
const MESHED: &str = "mesh-bench-start";
const PLAIN: &str = "mesh-bench-start-plain";

pub(crate) async fn measure(cluster: &Cluster, rounds: u16, report: &mut Report) -> anyhow::Result<()> {
    namespaces::meshed(cluster, MESHED).await?;
    namespaces::plain(cluster, PLAIN).await?;
    let (mut meshed, mut plain) = (Vec::new(), Vec::new());
    // The first is not measured: images are unpacked for it.
    for round in 0..=rounds {
        for (namespace, took) in [(PLAIN, &mut plain), (MESHED, &mut meshed)] {
            // The kubelet looks at containers once a second: each pod meets it at another time of that second.
            let fraction = f64::from(2 * round + u16::from(namespace == MESHED)) * SPREAD;
            tokio::time::sleep(Duration::from_secs_f64(fraction.fract())).await;
            let seconds = start(cluster, namespace, round).await?;
            if round > 0 {
                took.push(seconds);
            }
        }
    }
    let (meshed, plain) = (Samples::new(meshed)?, Samples::new(plain)?);
    report.told("pod created to ready, without the mesh: median", "s", plain.median(), plain.count());
    report.told("pod created to ready, meshed: median", "s", meshed.median(), meshed.count());
    report.told("pod created to ready, meshed: slowest", "s", meshed.most(), meshed.count());
    report.promised(
        "pod start: added by the mesh, of medians",
        "s",
        meshed.median() - plain.median(),
        ADDED,
        meshed.count(),
    );
    Ok(())
}

/// Seconds until the container is ready.
async fn start(cluster: &Cluster, namespace: &str, round: u16) -> anyhow::Result<f64> {
    let name = format!("orders-{round}");
    let container = json!({"name": "orders", "image": "mesh-shop:dev", "args": ["orders"]});
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}});
    let begun = Instant::now();
    cluster.create(&format!("/api/v1/namespaces/{namespace}/pods"), &pod).await?;
    let watch = format!("/api/v1/namespaces/{namespace}/pods?watch=true&fieldSelector=metadata.name%3D{name}");
    cluster.watch_until(&watch, is_ready).await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Whether all containers of the pod are.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
