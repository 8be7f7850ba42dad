//! A cluster of good size, as far as the controller can tell: Services with endpoints, and the meshed pods behind them, as
//! objects of the real API server; and how much of a controller that takes.
//!
//! The pods are what the injector makes of a pod, and have an address and are ready in the eyes of everybody; a scheduling
//! gate keeps them off every node. The Services belong to a service proxy that is not there (a well-known label), so that no
//! node spends its time on rules for them.

use std::{
    cell::{Cell, RefCell},
    net::Ipv4Addr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use mesh_measure::{Report, Samples};
use mesh_proto::names;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    admission,
    cluster::{Cluster, WIDE, all, until},
    namespaces, prometheus,
};

/// Seconds from the start of a controller to `/ready`.
const READY: f64 = 10.0;
/// Resident megabytes of it.
const MEMORY: f64 = 150.0;
/// Longest that the objects are created for: on a busy machine there are fewer, and the report says how many.
const CREATED: Duration = Duration::from_secs(150);
/// How long its memory is watched.
const WATCHED: Duration = Duration::from_secs(5);
/// Services that the bars are about: with fewer, numbers are told and not judged.
const FULL: u32 = 1000;
/// Pods of a Service.
const PODS: u32 = 10;
/// Services of a namespace.
const SERVICES: u32 = 100;
/// Where the addresses of the pods begin: a network for benchmarks (RFC 2544), which nobody routes.
const ADDRESSES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Makes kube-proxy leave a Service and its endpoints alone.
const FOREIGN: &str = "service.kubernetes.io/service-proxy-name";

/// Creates so many Services and what belongs to them, or as many as there is time for. Returns how many there are.
pub(crate) async fn create(cluster: &Cluster, services: u32, report: &mut Report) -> anyhow::Result<u32> {
    let pod = admission::injected(cluster).await?;
    for space in 0..services.div_ceil(SERVICES) {
        namespaces::plain(cluster, &format!("mesh-bench-crowd-{space}")).await?;
    }
    let (pod, end, made, failed) = (&pod, Instant::now() + CREATED, &Cell::new(0), &RefCell::new(None));
    all(0..services, WIDE, |number| async move {
        if Instant::now() < end {
            let namespace = format!("mesh-bench-crowd-{}", number / SERVICES);
            match service(cluster, &namespace, number, pod).await {
                Ok(()) => made.set(made.get() + 1),
                // One that a busy API server did not create is only not counted.
                Err(error) => drop(failed.borrow_mut().replace(error)),
            }
        }
        Ok(())
    })
    .await?;
    let made = made.get();
    if let Some(error) = failed.take().filter(|_| made == 0) {
        return Err(error.context("no Service of the crowd could be created"));
    }
    report.told("many objects: endpoints, each of a pod", "", f64::from(made * PODS), 1);
    Ok(made)
}

/// Whether so many Services are as many as the bars are about.
pub(crate) fn is_full(services: u32) -> bool {
    services >= FULL
}

async fn service(cluster: &Cluster, namespace: &str, number: u32, pod: &Value) -> anyhow::Result<()> {
    let core = format!("/api/v1/namespaces/{namespace}");
    let name = format!("service-{number}");
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {FOREIGN: "none"}},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}]},
    });
    cluster.create(&format!("{core}/services"), &service).await?;
    let mut endpoints = Vec::new();
    for index in 0..PODS {
        let name = format!("{name}-{index}");
        let ip = Ipv4Addr::from_bits(ADDRESSES.to_bits() + number * PODS + index).to_string();
        let mut pod = pod.clone();
        pod["metadata"]["name"] = json!(name);
        let uid = cluster.create(&format!("{core}/pods"), &pod).await?["metadata"]["uid"].take();
        let condition = json!({"type": "Ready", "status": "True", "lastTransitionTime": null});
        let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [condition]});
        cluster.patch(&format!("{core}/pods/{name}/status"), &json!({"status": status})).await?;
        let target = json!({"kind": "Pod", "namespace": namespace, "name": name, "uid": uid});
        endpoints.push(json!({"addresses": [ip], "conditions": {"ready": true}, "targetRef": target}));
    }
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name, FOREIGN: "none"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http"}],
        "endpoints": endpoints,
    });
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    cluster.create(&slices, &slice).await.map(drop)
}

/// Starts the controller anew so many times, with so many Services there.
pub(crate) async fn measure(cluster: &Cluster, services: u32, restarts: u8, report: &mut Report) -> anyhow::Result<()> {
    let mut controller = Controller::find(cluster, None).await?;
    until("the controller knows the crowd", || controller.knows(services)).await?;
    let grown = controller.memory().await?;
    let (mut ready, mut whole, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..restarts {
        let begun = Instant::now();
        cluster.delete(&controller.path()).await?;
        controller = Controller::find(cluster, Some(&controller)).await?;
        let started = until("the controller is ready", || controller.ready()).await?;
        ready.push(started);
        whole.push(begun.elapsed().as_secs_f64());
        controller.knows(services).await?;
        let end = Instant::now() + WATCHED;
        let mut highest: f64 = 0.0;
        while Instant::now() < end {
            highest = highest.max(controller.memory().await?);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        memory.push(highest);
    }
    let (ready, whole, memory) = (Samples::new(ready)?, Samples::new(whole)?, Samples::new(memory)?);
    let mut judge = |what, unit, value, bar, samples| {
        if is_full(services) {
            report.promised(what, unit, value, bar, samples);
        } else {
            report.told(what, unit, value, samples);
        }
    };
    judge("controller: start to ready, slowest", "s", ready.most(), READY, ready.count());
    judge("controller: memory (RSS), highest", "MB", memory.most(), MEMORY, memory.count());
    report.told("  of one that saw the objects come", "MB", grown, 1);
    report.told("controller's pod deleted to the next one ready", "s", whole.most(), whole.count());
    Ok(())
}

/// A pod of the controller.
struct Controller<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Controller<'a> {
    /// One that runs, and is not `other`.
    async fn find(cluster: &'a Cluster, other: Option<&Self>) -> anyhow::Result<Self> {
        let pods = format!(
            "/api/v1/namespaces/{}/pods?labelSelector=app.kubernetes.io%2Fname%3D{}",
            names::SYSTEM_NAMESPACE,
            names::CONTROLLER_NAME
        );
        until("a controller runs", || async {
            let pods = cluster.get(&pods).await?;
            let found = pods["items"].as_array().into_iter().flatten();
            let mut found = found.filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
            let name = found.find_map(|pod| pod.pointer("/metadata/name")?.as_str()).context("there is none")?;
            ensure!(other.is_none_or(|other| other.name != name), "it is the old one");
            Ok(Self { cluster, name: name.to_owned() })
        })
        .await
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", names::SYSTEM_NAMESPACE, self.name)
    }

    /// A page of its admin port, by way of the API server.
    async fn page(&self, page: &str) -> anyhow::Result<String> {
        self.cluster.text(&format!("{}:{}/proxy/{page}", self.path(), names::PORT_ADMIN)).await
    }

    /// Seconds from its start until now, which is when it said for the first time that it is ready.
    async fn ready(&self) -> anyhow::Result<f64> {
        self.page("ready").await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Ok(now - self.metric("process_start_time_seconds", &[]).await?)
    }

    /// Resident megabytes.
    async fn memory(&self) -> anyhow::Result<f64> {
        Ok(self.metric("process_resident_memory_bytes", &[]).await? / 1e6)
    }

    /// Fails while it does not know so many Services and their pods.
    async fn knows(&self, services: u32) -> anyhow::Result<()> {
        for (kind, expected) in [("Service", services), ("EndpointSlice", services), ("Pod", services * PODS)] {
            let known = self.metric("mesh_controller_objects", &[&format!("kind=\"{kind}\"")]).await?;
            ensure!(known >= f64::from(expected), "it knows {known} of {expected} {kind}s");
        }
        Ok(())
    }

    async fn metric(&self, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
        let page = self.page("metrics").await?;
        prometheus::value(&page, name, labels).with_context(|| format!("the controller has no metric {name}"))
    }
}
