//! Everything that checks look at, asked for at once. The only I/O of `check`; it judges nothing.

mod webhook;

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use mesh_proto::{admin as pages, names};
use serde::Deserialize;
use serde_json::Value;

pub(crate) use self::webhook::Certificate;
use crate::{
    cluster::{Cluster, ClusterError, PodInfo},
    commands::admin,
    failure::Failure,
    golden::samples::{Sample, Samples},
};

/// Between two looks at versions that are on their way.
const SETTLE: Duration = Duration::from_millis(700);

/// What was seen.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    /// When.
    pub(crate) now: Timestamp,
    /// Whether there is a playground to ask, and no kubectl.
    pub(crate) playground: bool,
    /// Namespace of the control plane.
    pub(crate) mesh_namespace: String,
    /// The namespace whose workloads are looked at; none: all.
    pub(crate) scope: Option<String>,
    /// All pods.
    pub(crate) pods: Vec<Pod>,
    /// All namespaces, by name.
    pub(crate) namespaces: BTreeMap<String, Value>,
    /// Meshed pods of the scope, and what their proxies say.
    pub(crate) proxies: Vec<(PodInfo, Result<pages::Config, String>)>,
    /// What the controller says; none where there is no controller.
    pub(crate) controller: Option<Result<Controller, String>>,
    /// What the webhook presents; none where there is no injector.
    pub(crate) webhook: Option<Result<Certificate, String>>,
}

/// What the controller says of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Controller {
    pub(crate) objects: Objects,
    pub(crate) proxies: Vec<Stream>,
    /// When its issuer of certificates ends.
    pub(crate) issuer_ends: Option<Timestamp>,
}

/// `/objects`.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Objects {
    /// What is wrong, by where it was found.
    #[serde(default)]
    pub(crate) problems: BTreeMap<String, Vec<String>>,
}

/// One of `/proxies`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Stream {
    /// `namespace/name`.
    pub(crate) pod: String,
    #[serde(default)]
    pub(crate) draining: bool,
    /// By what it is about.
    #[serde(default)]
    pub(crate) keys: BTreeMap<String, Key>,
}

/// Versions of one thing that a proxy listens to.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Key {
    pub(crate) sent: Option<u64>,
    pub(crate) acked: Option<u64>,
    pub(crate) rejected: Option<Rejected>,
}

/// A configuration that a proxy did not take.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Rejected {
    pub(crate) version: u64,
    pub(crate) reason: String,
}

impl Observed {
    /// The command that shows why a container does not do what it should.
    pub(crate) fn logs(&self, pod: &PodInfo, container: &str) -> String {
        if self.playground {
            format!("meshctl playground logs {} -c {container}", pod.name)
        } else {
            format!("kubectl -n {} logs {} -c {container}", pod.namespace, pod.name)
        }
    }

    /// The command that shows what keeps a pod from being ready.
    pub(crate) fn describe(&self, pod: &PodInfo) -> String {
        if self.playground {
            format!("meshctl playground status; meshctl playground logs {}", pod.name)
        } else {
            format!("kubectl -n {} describe pod {}", pod.namespace, pod.name)
        }
    }

    /// Asks everybody at once. Fails only where the cluster itself does not answer.
    pub(crate) async fn ask(
        cluster: &Cluster,
        mesh_namespace: &str,
        scope: Option<&str>,
    ) -> Result<Self, ClusterError> {
        let pods = cluster.pod_objects(None).await?;
        let named = |object: Value| Some((object["metadata"]["name"].as_str()?.to_owned(), object));
        let namespaces = cluster.objects("namespaces").await?.into_iter().filter_map(named).collect();
        let infos: Vec<PodInfo> = pods.iter().map(PodInfo::from_object).collect();
        let in_scope = |pod: &&PodInfo| pod.meshed && scope.is_none_or(|scope| pod.namespace == scope);
        let mut meshed: Vec<PodInfo> = infos.iter().filter(in_scope).cloned().collect();
        meshed.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let part = |name: &str| infos.iter().find(|pod| is_part(pod, mesh_namespace, name));
        let (configs, controller, webhook) = tokio::join!(
            join_all(meshed.iter().map(|pod| config(cluster, pod))),
            async {
                match part(names::CONTROLLER_NAME) {
                    Some(pod) => Some(controller(cluster, pod).await),
                    None => None,
                }
            },
            async {
                match part(names::INJECTOR_NAME) {
                    Some(pod) => Some(webhook::certificate(cluster, pod).await),
                    None => None,
                }
            },
        );
        Ok(Self {
            playground: cluster.is_playground(),
            now: Timestamp::now(),
            mesh_namespace: mesh_namespace.to_owned(),
            scope: scope.map(str::to_owned),
            proxies: meshed.into_iter().zip(configs).collect(),
            pods,
            namespaces,
            controller,
            webhook,
        })
    }

    /// The pods of a part of the control plane.
    pub(crate) fn parts(&self, name: &str) -> Vec<PodInfo> {
        let infos = self.pods.iter().map(PodInfo::from_object);
        infos.filter(|pod| is_part(pod, &self.mesh_namespace, name)).collect()
    }
}

/// Parts of the control plane run under a service account of their own.
fn is_part(pod: &PodInfo, mesh_namespace: &str, name: &str) -> bool {
    pod.namespace == mesh_namespace && pod.service_account == name
}

async fn config(cluster: &Cluster, pod: &PodInfo) -> Result<pages::Config, String> {
    let text = admin::get(cluster, pod, pages::CONFIG).await.map_err(told)?;
    serde_json::from_str(&text).map_err(|error| format!("its {} cannot be read: {error}", pages::CONFIG))
}

async fn controller(cluster: &Cluster, pod: &PodInfo) -> Result<Controller, String> {
    let objects = json(cluster, pod, "/objects").await?;
    let mut proxies: Vec<Stream> = json(cluster, pod, "/proxies").await?;
    if proxies.iter().any(|stream| stream.keys.values().any(Key::is_behind)) {
        // A change may be on its way right now.
        tokio::time::sleep(SETTLE).await;
        proxies = json(cluster, pod, "/proxies").await?;
    }
    let metrics = admin::get_at(cluster, pod, names::PORT_ADMIN, "/metrics").await.map_err(told)?;
    Ok(Controller { objects, proxies, issuer_ends: issuer_ends(&metrics) })
}

/// From the controller's gauge, see docs/metrics.md.
fn issuer_ends(metrics: &str) -> Option<Timestamp> {
    let gauge = |sample: &Sample| sample.name == "mesh_controller_issuer_not_after_timestamp_seconds";
    let seconds = Samples::parse(metrics).iter().find(gauge)?.value;
    Timestamp::from_duration(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
}

impl Key {
    /// Whether something newer was sent than is in force.
    pub(crate) fn is_behind(&self) -> bool {
        self.sent.is_some() && self.sent != self.acked
    }
}

async fn json<T: serde::de::DeserializeOwned>(cluster: &Cluster, pod: &PodInfo, path: &str) -> Result<T, String> {
    let text = admin::get_at(cluster, pod, names::PORT_ADMIN, path).await.map_err(told)?;
    serde_json::from_str(&text).map_err(|error| format!("its {path} cannot be read: {error}"))
}

fn told(failure: Failure) -> String {
    failure.message
}
