//! Everything that checks look at, asked for at once. The only I/O of `check`; it judges nothing.

mod admission;
mod served;
mod webhook;

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use mesh_proto::{admin as pages, names};
use serde::Deserialize;
use serde_json::Value;

pub(crate) use self::{
    admission::Admission,
    served::{Served, served},
    webhook::{Certificate, Registered, verify},
};
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
    /// Why the pods of the control plane could not be listed, where they could not.
    pub(crate) hidden: Option<String>,
    /// Why namespaces could not be read, where they could not.
    pub(crate) namespaces_hidden: Option<Unseen>,
    /// All namespaces, by name.
    pub(crate) namespaces: BTreeMap<String, Value>,
    /// Meshed pods of the scope, and what their proxies say.
    pub(crate) proxies: Vec<(PodInfo, Result<pages::Config, Unseen>)>,
    /// What the controller says; none where there is no controller.
    pub(crate) controller: Option<Result<Controller, Unseen>>,
    /// What the webhook presents; none where there is no injector.
    pub(crate) webhook: Option<Result<Certificate, Unseen>>,
    /// Whom the API server trusts as the webhook; none on the playground, which verifies each admission itself.
    pub(crate) registered: Option<Result<Registered, Unseen>>,
    /// The resources that the mesh reads; none on the playground.
    pub(crate) served: Option<Result<Vec<Served>, Unseen>>,
    /// What became of a pod that asks for a sidecar; none on the playground, and where there is no injector.
    pub(crate) admission: Option<Result<Admission, Unseen>>,
}

/// Why something was not seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unseen {
    pub(crate) reason: String,
    /// This user may not look: that says nothing about what is there.
    pub(crate) not_allowed: bool,
}

impl From<Failure> for Unseen {
    fn from(failure: Failure) -> Self {
        Self { reason: failure.message, not_allowed: failure.forbidden }
    }
}

impl From<String> for Unseen {
    fn from(reason: String) -> Self {
        Self { reason, not_allowed: false }
    }
}

impl From<&str> for Unseen {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
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
        let Seen { pods, scope, hidden } = Seen::list(cluster, mesh_namespace, scope).await?;
        let scope = scope.as_deref();
        let named = |object: Value| Some((object["metadata"]["name"].as_str()?.to_owned(), object));
        let (namespaces, namespaces_hidden) = match cluster.objects("namespaces").await {
            Ok(all) => (all.into_iter().filter_map(named).collect(), None),
            Err(ClusterError::Forbidden { reason, .. }) => {
                let name = cluster.namespace().unwrap_or_default();
                let reason = format!("not allowed to get namespace {name}: {reason}");
                (BTreeMap::new(), Some(Unseen { reason, not_allowed: true }))
            }
            // The server has answered about pods: what it does not say here keeps no other check.
            Err(error) => (BTreeMap::new(), Some(Failure::from(error).into())),
        };
        let infos: Vec<PodInfo> = pods.iter().map(PodInfo::from_object).collect();
        let in_scope = |pod: &&PodInfo| pod.meshed && scope.is_none_or(|scope| pod.namespace == scope);
        let mut meshed: Vec<PodInfo> = infos.iter().filter(in_scope).cloned().collect();
        meshed.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let part = |name: &str| infos.iter().find(|pod| is_part(pod, mesh_namespace, name));
        let (configs, controller, webhook, registered, served, admission) = tokio::join!(
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
            webhook::registered(cluster),
            served(cluster),
            async {
                match part(names::INJECTOR_NAME) {
                    Some(_) => admission::admission(cluster, &namespaces).await,
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
            hidden,
            namespaces_hidden,
            namespaces,
            controller,
            webhook,
            registered,
            served: served.map(|answer| answer.map_err(|error| Failure::from(error).into())),
            admission,
        })
    }

    /// The pods of a part of the control plane.
    pub(crate) fn parts(&self, name: &str) -> Vec<PodInfo> {
        let infos = self.pods.iter().map(PodInfo::from_object);
        infos.filter(|pod| is_part(pod, &self.mesh_namespace, name)).collect()
    }
}

/// The pods that this user may see.
struct Seen {
    pods: Vec<Pod>,
    scope: Option<String>,
    hidden: Option<String>,
}

impl Seen {
    /// All of them, or those of one namespace and of the control plane's: what is hidden is not taken for absent.
    async fn list(cluster: &Cluster, mesh_namespace: &str, scope: Option<&str>) -> Result<Self, ClusterError> {
        let cluster = cluster.insisting();
        let refused = match cluster.pod_objects(None).await {
            Ok(pods) => return Ok(Self { pods, scope: scope.map(str::to_owned), hidden: None }),
            Err(error @ ClusterError::Forbidden { .. }) => error,
            Err(error) => return Err(error),
        };
        let Some(own) = scope.or(cluster.namespace()) else { return Err(refused) };
        let mut pods = cluster.pod_objects(Some(own)).await?;
        let mut hidden = None;
        if own != mesh_namespace {
            match cluster.pod_objects(Some(mesh_namespace)).await {
                Ok(parts) => pods.extend(parts),
                Err(ClusterError::Forbidden { reason, .. }) => {
                    hidden = Some(format!("not allowed to list pods in namespace {mesh_namespace}: {reason}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { pods, scope: Some(own.to_owned()), hidden })
    }
}

/// Parts of the control plane run under a service account of their own.
fn is_part(pod: &PodInfo, mesh_namespace: &str, name: &str) -> bool {
    pod.namespace == mesh_namespace && pod.service_account == name
}

async fn config(cluster: &Cluster, pod: &PodInfo) -> Result<pages::Config, Unseen> {
    let text = admin::get(cluster, pod, pages::CONFIG).await.map_err(Unseen::from)?;
    serde_json::from_str(&text).map_err(|error| format!("its {} cannot be read: {error}", pages::CONFIG).into())
}

async fn controller(cluster: &Cluster, pod: &PodInfo) -> Result<Controller, Unseen> {
    let objects = json(cluster, pod, "/objects").await?;
    let mut proxies: Vec<Stream> = json(cluster, pod, "/proxies").await?;
    if proxies.iter().any(|stream| stream.keys.values().any(Key::is_behind)) {
        // A change may be on its way right now.
        tokio::time::sleep(SETTLE).await;
        proxies = json(cluster, pod, "/proxies").await?;
    }
    let metrics = admin::get_at(cluster, pod, names::PORT_ADMIN, "/metrics").await.map_err(Unseen::from)?;
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

async fn json<T: serde::de::DeserializeOwned>(cluster: &Cluster, pod: &PodInfo, path: &str) -> Result<T, Unseen> {
    let text = admin::get_at(cluster, pod, names::PORT_ADMIN, path).await.map_err(Unseen::from)?;
    serde_json::from_str(&text).map_err(|error| format!("its {path} cannot be read: {error}").into())
}
