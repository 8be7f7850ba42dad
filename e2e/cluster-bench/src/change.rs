//! From a change of endpoints in Kubernetes to its use in a proxy.
//!
//! A Service without a selector whose one endpoint is now this pod, now that one. Meshed clients ask it all the time and
//! write down when the other one answered first (`shop watch`); what they write is read from their logs. Their clock and
//! that of the benchmark must be the same: it runs on the node, or near it.

use std::{
    pin::Pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use futures_util::{Stream, StreamExt as _};
use mesh_measure::Samples;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    cluster::{Cluster, DEADLINE},
    namespaces,
    start::is_ready,
};

/// Milliseconds, 99 of 100.
pub(crate) const USED: f64 = 300.0;
const NAMESPACE: &str = "mesh-bench-change";
const SERVERS: [&str; 2] = ["server-a", "server-b"];
const CLIENTS: [&str; 2] = ["client-a", "client-b"];
/// Milliseconds between two requests of a client: what a measurement is too high by, at most.
const EVERY: &str = "--every=5";
/// Between two changes: each meets a mesh at rest.
const PAUSE: Duration = Duration::from_millis(50);

type Lines = Pin<Box<dyn Stream<Item = anyhow::Result<String>>>>;

/// What is changed, and those who see it.
pub(crate) struct Changes {
    cluster: Cluster,
    /// An endpoint for each server.
    endpoints: Vec<Value>,
    clients: Vec<Lines>,
    /// Counts changes.
    number: usize,
}

impl Changes {
    /// Starts servers and clients.
    pub(crate) async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        namespaces::meshed(cluster, NAMESPACE).await?;
        let mut endpoints = Vec::new();
        for server in SERVERS {
            endpoints.push(endpoint(&pod(cluster, server, &["web"]).await?)?);
        }
        let port = json!({"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"});
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "changing"}, "spec": {"ports": [port]}});
        cluster.create(&format!("/api/v1/namespaces/{NAMESPACE}/services"), &service).await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "changing", "labels": {"kubernetes.io/service-name": "changing"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http"}],
            "endpoints": [endpoints[0]],
        });
        let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
        cluster.create(&slices, &slice).await?;
        let mut clients: Vec<Lines> = Vec::new();
        for client in CLIENTS {
            pod(cluster, client, &["watch", "http://changing/", EVERY]).await?;
            let log = format!("/api/v1/namespaces/{NAMESPACE}/pods/{client}/log?container={APP}&follow=true");
            clients.push(Box::pin(cluster.lines(&log).await?));
        }
        Ok(Self { cluster: cluster.clone(), endpoints, clients, number: 0 })
    }

    /// Changes the endpoint so many times. Milliseconds, of each client.
    pub(crate) async fn measure(&mut self, changes: u16) -> anyhow::Result<Samples> {
        // Not measured: the first makes the connections.
        self.change().await?;
        let mut took = Vec::new();
        for number in 0..changes {
            tokio::time::sleep(PAUSE).await;
            took.extend(self.change().await.with_context(|| format!("change {number}"))?);
        }
        Samples::new(took)
    }

    /// Milliseconds until each client was answered by the other server.
    async fn change(&mut self) -> anyhow::Result<Vec<f64>> {
        self.number += 1;
        let to = self.number % SERVERS.len();
        let slice = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/changing");
        // Before the request: the API server's own part counts.
        let begun = now();
        self.cluster.patch(&slice, &json!({"endpoints": [self.endpoints[to]]})).await?;
        let mut took = Vec::new();
        for client in &mut self.clients {
            let seen = timeout(DEADLINE, answered(client, SERVERS[to])).await;
            let seen = seen.with_context(|| format!("{} never answered", SERVERS[to]))??;
            let after = seen.checked_sub(begun).filter(|_| seen <= now());
            let after =
                after.context("the clocks of the node and of this machine differ: run the benchmark on the node")?;
            took.push(after.as_secs_f64() * 1000.0);
        }
        Ok(took)
    }
}

/// When `server` answered.
async fn answered(client: &mut Lines, server: &str) -> anyhow::Result<Duration> {
    let wanted = format!("\"pod\":\"{server}\"");
    loop {
        let line = client.next().await.context("the client's log has ended")??;
        let (time, answer) = line.split_once(' ').with_context(|| format!("no line of a client: {line}"))?;
        if answer.starts_with("200 ") && answer.contains(&wanted) {
            return Ok(Duration::from_secs_f64(time.parse().with_context(|| line.clone())?));
        }
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Name of the container of a pod.
const APP: &str = "app";

/// A ready pod of the shop.
async fn pod(cluster: &Cluster, name: &str, arguments: &[&str]) -> anyhow::Result<Value> {
    let container = json!({"name": APP, "image": "mesh-shop:dev", "args": arguments});
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}});
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    cluster.create(&pods, &pod).await?;
    cluster.watch_until(&format!("{pods}?watch=true&fieldSelector=metadata.name%3D{name}"), is_ready).await?;
    cluster.get(&format!("{pods}/{name}")).await
}

/// The endpoint that leads to a pod.
fn endpoint(pod: &Value) -> anyhow::Result<Value> {
    let ip = pod.pointer("/status/podIP").and_then(Value::as_str).context("a ready pod has an address")?;
    let metadata = &pod["metadata"];
    let target = json!({"kind": "Pod", "namespace": NAMESPACE, "name": metadata["name"], "uid": metadata["uid"]});
    Ok(json!({"addresses": [ip], "conditions": {"ready": true}, "targetRef": target}))
}
