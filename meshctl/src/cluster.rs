//! What the commands see of a mesh: its pods, its Services, and a stream to any port of a pod.
//!
//! Every command that looks at a mesh goes through [`Cluster`], so that it works the same on Kubernetes and on the
//! playground. It knows objects and bytes; what is said over a stream (metrics, tap) is the command's business.

pub(crate) mod kubernetes;
pub(crate) mod playground;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use mesh_proto::{names, workload};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::cli::Globals;

/// Longest that one question may take, where nobody says.
const LIMIT: Duration = Duration::from_secs(5);
/// How much longer it may take to apply a definition of resources, which is compiled before it is answered, with its rules: that
/// of HTTPRoute takes seconds.
const COMPILED: u32 = 6;

/// A mesh to look at. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    backend: Backend,
    /// Longest that one question may take.
    limit: Duration,
}

/// Where the mesh is.
#[derive(Debug, Clone)]
enum Backend {
    /// The playground of this user on this machine.
    Playground(playground::Client),
    /// A cluster.
    Kubernetes(kubernetes::Client),
}

/// Bytes to and from a port of a pod.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Why a mesh could not be looked at (exit code 3); the text says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// There is no kubeconfig, or it cannot be used.
    #[error("use the kubeconfig: {reason}")]
    Kubeconfig {
        /// Why not.
        reason: String,
        /// What to do, where that is known better than in general.
        fix: Option<String>,
    },
    /// The API server cannot be reached.
    #[error("the API server {server} does not answer: {reason}")]
    NoAnswer {
        /// Its address.
        server: String,
        /// What came of the attempt.
        reason: String,
    },
    /// Something answers there, and is not the API server that the kubeconfig trusts.
    #[error("{server} cannot prove that it is the API server of this kubeconfig: {reason}")]
    Untrusted {
        /// Its address.
        server: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The API server refuses.
    #[error("{what} is refused: {reason}")]
    Forbidden {
        /// What was asked.
        what: String,
        /// The API server's words.
        reason: String,
    },
    /// What was asked for is not there.
    #[error("ask for {what}: {reason}")]
    NotFound {
        /// What was asked.
        what: String,
        /// The API server's words.
        reason: String,
    },
    /// No playground runs.
    #[error("no playground is running (nothing answers at {0})")]
    NotRunning(PathBuf),
    /// The socket cannot be used.
    #[error("use the playground's socket {path}: {reason}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// A deadline passed (exit code 4).
    #[error("timed out: {what} took longer than {limit:?}")]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The answer was not what was asked for.
    #[error("ask for {what}: {reason}")]
    Answer {
        /// What was asked.
        what: String,
        /// What came back.
        reason: String,
    },
}

impl Cluster {
    /// The mesh that the flags name. Connects to nothing yet.
    pub(crate) async fn select(globals: &Globals) -> Result<Self, ClusterError> {
        let cluster = if globals.playground {
            Self::playground()?
        } else {
            Self { backend: Backend::Kubernetes(kubernetes::Client::new(globals).await?), limit: LIMIT }
        };
        Ok(Self { limit: globals.request_timeout, ..cluster })
    }

    /// The playground of this user. Connects to nothing yet.
    pub(crate) fn playground() -> Result<Self, ClusterError> {
        Ok(Self { backend: Backend::Playground(playground::Client::of_this_user()?), limit: LIMIT })
    }

    /// The namespace that a command is about; none for all of them.
    pub(crate) fn scope(&self, globals: &Globals) -> Option<String> {
        let given = globals.namespace.clone();
        match &self.backend {
            Backend::Playground(_) => given,
            Backend::Kubernetes(_) if globals.all_namespaces => None,
            Backend::Kubernetes(client) => given.or_else(|| Some(client.namespace.clone())),
        }
    }

    /// Whether it is the playground of this machine, where other commands help than on a cluster.
    pub(crate) fn is_playground(&self) -> bool {
        matches!(self.backend, Backend::Playground(_))
    }

    /// The option by which a command that is proposed looks at the same mesh.
    pub(crate) fn option(&self) -> &'static str {
        if self.is_playground() { " --playground" } else { "" }
    }

    /// The same cluster, where less than all that is asked for is an error.
    pub(crate) fn insisting(&self) -> Self {
        let backend = match &self.backend {
            Backend::Playground(client) => Backend::Playground(client.clone()),
            Backend::Kubernetes(client) => Backend::Kubernetes(client.insisting()),
        };
        Self { backend, limit: self.limit }
    }

    /// The namespace that was asked for or that the context names; none on the playground.
    pub(crate) fn namespace(&self) -> Option<&str> {
        match &self.backend {
            Backend::Playground(_) => None,
            Backend::Kubernetes(client) => Some(&client.namespace),
        }
    }

    /// What the API server answers at a path; none on the playground, which has no API server.
    pub(crate) async fn get(&self, path: &str) -> Option<Result<serde_json::Value, ClusterError>> {
        let Backend::Kubernetes(client) = &self.backend else { return None };
        Some(self.in_time(path, client.get(path)).await)
    }

    /// The object at a path; none where there is none, and on the playground.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<serde_json::Value>, ClusterError> {
        match self.get(path).await {
            Some(Ok(object)) => Ok(Some(object)),
            Some(Err(ClusterError::NotFound { .. })) | None => Ok(None),
            Some(Err(error)) => Err(error),
        }
    }

    /// What the API server makes of an object that is applied on its side, or with `dry_run` would make of it; none on the
    /// playground.
    pub(crate) async fn apply(
        &self,
        path: &str,
        object: &serde_json::Value,
        dry_run: bool,
    ) -> Option<Result<serde_json::Value, ClusterError>> {
        let dry_run = if dry_run { "dryRun=All&" } else { "" };
        let limit = if object["kind"] == "CustomResourceDefinition" { self.limit * COMPILED } else { self.limit };
        let path = format!("{path}?{dry_run}fieldManager=meshctl&force=true");
        Self { limit, ..self.clone() }.send(http::Method::PATCH, &path, "application/apply-patch+yaml", object).await
    }

    /// What the API server answers to an object; none on the playground.
    pub(crate) async fn send(
        &self,
        method: http::Method,
        path: &str,
        content_type: &str,
        object: &serde_json::Value,
    ) -> Option<Result<serde_json::Value, ClusterError>> {
        let Backend::Kubernetes(client) = &self.backend else { return None };
        Some(self.in_time(path, client.send(method, path, content_type, object)).await)
    }

    async fn in_time<T>(
        &self,
        what: &str,
        asked: impl Future<Output = Result<T, ClusterError>>,
    ) -> Result<T, ClusterError> {
        let answer = tokio::time::timeout(self.limit, asked).await;
        answer.map_err(|_| ClusterError::TimedOut { what: what.to_owned(), limit: self.limit })?
    }

    /// Longest that one question may take.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// The pods of one namespace or of all, by namespace and name.
    pub(crate) async fn pods(&self, namespace: Option<&str>) -> Result<Vec<PodInfo>, ClusterError> {
        let mut pods: Vec<PodInfo> = self.pod_objects(namespace).await?.iter().map(PodInfo::from_object).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(pods)
    }

    /// The pods of one namespace or of all, as they are.
    pub(crate) async fn pod_objects(&self, namespace: Option<&str>) -> Result<Vec<Pod>, ClusterError> {
        let mut pods: Vec<Pod> = self.list("pods", namespace).await?;
        pods.retain(|pod| namespace.is_none_or(|wanted| pod.metadata.namespace.as_deref() == Some(wanted)));
        Ok(pods)
    }

    /// All objects of a kind (`pods`, `namespaces`, …) as they are.
    pub(crate) async fn objects(&self, kind: &str) -> Result<Vec<serde_json::Value>, ClusterError> {
        self.list(kind, None).await
    }

    async fn list<T: DeserializeOwned>(&self, kind: &str, namespace: Option<&str>) -> Result<Vec<T>, ClusterError> {
        let started = Instant::now();
        let asked = async {
            match &self.backend {
                Backend::Playground(client) => client.objects(kind).await,
                Backend::Kubernetes(client) => client.objects(kind, namespace).await,
            }
        };
        let answer = tokio::time::timeout(self.limit, asked).await;
        let took = started.elapsed();
        tracing::debug!(kind, namespace, ?took, "listed");
        answer.map_err(|_| ClusterError::TimedOut { what: format!("list {kind}"), limit: self.limit })?
    }

    /// Opens a connection to a port on the loopback of a pod, as a port-forward does.
    pub(crate) async fn connect(&self, pod: &PodInfo, port: u16) -> Result<Box<dyn ByteStream>, ClusterError> {
        match &self.backend {
            Backend::Playground(client) => client.connect(&pod.namespace, &pod.name, port).await,
            Backend::Kubernetes(client) => client.connect(&pod.namespace, &pod.name, port).await,
        }
    }
}

/// A pod, as far as commands care.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodInfo {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// The top-most owner as `kind/name`, e.g. `deployment/web`; none for a bare pod.
    pub(crate) workload: Option<String>,
    /// Its service account.
    pub(crate) service_account: String,
    /// Its addresses.
    pub(crate) ips: Vec<IpAddr>,
    /// Whether its spec carries our sidecar (contracts §1).
    pub(crate) meshed: bool,
    /// The pod's Ready condition.
    pub(crate) ready: bool,
    /// Version of the sidecar, where the injector left it.
    pub(crate) proxy_version: Option<String>,
}

impl PodInfo {
    /// Reads a pod object.
    pub(crate) fn from_object(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let text = |value: Option<&String>, default: &str| value.cloned().unwrap_or_else(|| default.to_owned());
        let meshed = has_sidecar(pod);
        Self {
            namespace: text(pod.metadata.namespace.as_ref(), "default"),
            name: text(pod.metadata.name.as_ref(), ""),
            workload: workload(pod),
            service_account: text(spec.and_then(|spec| spec.service_account_name.as_ref()), "default"),
            ips: status
                .and_then(|status| status.pod_ips.as_ref())
                .into_iter()
                .flatten()
                .filter_map(|ip| ip.ip.parse().ok())
                .collect(),
            meshed,
            ready: status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
                conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
            }),
            proxy_version: pod
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(names::ANNOTATION_PROXY_VERSION))
                .filter(|_| meshed)
                .cloned(),
        }
    }

    /// What it is shown as: its workload, or `pod/NAME`.
    pub(crate) fn workload_or_name(&self) -> String {
        self.workload.clone().unwrap_or_else(|| format!("pod/{}", self.name))
    }
}

/// A native sidecar, or a plain container where someone injected it by hand.
fn has_sidecar(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .any(|container| container.name == names::CONTAINER_PROXY)
    })
}

/// What the pod belongs to.
fn workload(pod: &Pod) -> Option<String> {
    let owner = pod.metadata.owner_references.as_ref()?.iter().find(|owner| owner.controller.unwrap_or(true))?;
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(workload::LABEL_TEMPLATE_HASH));
    Some(workload::of_owner(&owner.kind, &owner.name, hash.map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> PodInfo {
        PodInfo::from_object(&serde_json::from_value(value).expect("a pod"))
    }

    #[test]
    fn a_pod_of_a_deployment_is_known_by_its_deployment() {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-v1-6f7c9", "uid": "1", "controller": true}]);
        let info = pod(json!({
            "metadata": {"name": "web-v1-6f7c9-abcde", "namespace": "shop", "labels": {"pod-template-hash": "6f7c9"}, "ownerReferences": owner},
            "spec": {"containers": []},
        }));
        assert_eq!(info.workload.as_deref(), Some("deployment/web-v1"));
        let bare = pod(json!({
            "metadata": {"name": "x", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-v1", "uid": "1"}]},
            "spec": {"containers": []},
        }));
        assert_eq!(bare.workload.as_deref(), Some("replicaset/web-v1"));
    }

    #[test]
    fn a_pod_is_meshed_by_its_spec_and_not_by_its_annotations() {
        let annotated = json!({"name": "a", "annotations": {names::ANNOTATION_PROXY_VERSION: "0.1.0"}});
        let without = pod(json!({"metadata": annotated, "spec": {"containers": [{"name": "app"}]}}));
        assert!(!without.meshed);
        assert_eq!(without.proxy_version, None);
        let with = pod(json!({"metadata": annotated, "spec": {
            "initContainers": [{"name": names::CONTAINER_PROXY}], "containers": [{"name": "app"}]}}));
        assert!(with.meshed);
        assert_eq!(with.proxy_version.as_deref(), Some("0.1.0"));
    }
}
