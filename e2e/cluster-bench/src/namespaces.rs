//! The namespaces of the benchmark: made at the start of a measurement, emptied and gone at the end of the run.

use anyhow::ensure;
use mesh_proto::names;
use serde_json::json;

use crate::cluster::{Cluster, WIDE, all, until};

/// On every namespace of ours, so that the next run finds what one that was killed has left.
const OURS: (&str, &str) = (names::LABEL_PART_OF, "mesh-cluster-bench");
/// What there is most of, by the API that has it: a namespace controller deletes one object after the other.
const MANY: [&str; 3] = ["api/v1/%/pods", "apis/discovery.k8s.io/v1/%/endpointslices", "api/v1/%/services"];

/// One whose pods are not meshed.
pub(crate) async fn plain(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    make(cluster, name, names::INJECT_DISABLED).await
}

/// One whose pods are meshed.
pub(crate) async fn meshed(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    make(cluster, name, names::INJECT_ENABLED).await
}

async fn make(cluster: &Cluster, name: &str, inject: &str) -> anyhow::Result<()> {
    let labels = json!({OURS.0: OURS.1, names::LABEL_INJECT: inject});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    cluster.create("/api/v1/namespaces", &namespace).await?;
    // Made a moment later by the cluster; no pod is admitted without it.
    let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
    until(&account, || cluster.get(&account)).await.map(drop)
}

/// Deletes all of ours, with everything in them, and waits until they are gone.
pub(crate) async fn remove(cluster: &Cluster) -> anyhow::Result<()> {
    let ours = format!("/api/v1/namespaces?labelSelector={}%3D{}", OURS.0.replace('/', "%2F"), OURS.1);
    let list = cluster.get(&ours).await?;
    let found = list["items"].as_array().into_iter().flatten();
    let found: Vec<_> = found.filter_map(|namespace| namespace["metadata"]["name"].as_str()).collect();
    let many = found.iter().flat_map(|name| MANY.map(|path| path.replace('%', &format!("namespaces/{name}"))));
    all(many, WIDE, |path| async move {
        // An API server gives up after a minute; what is left goes with the namespace.
        drop(cluster.delete(&format!("/{path}")).await);
        Ok(())
    })
    .await?;
    all(&found, WIDE, |name| async move { cluster.delete(&format!("/api/v1/namespaces/{name}")).await }).await?;
    until("the benchmark's namespaces are gone", || async {
        let left = cluster.get(&ours).await?;
        let left = left["items"].as_array().map_or(0, Vec::len);
        ensure!(left == 0, "{left} of them are there");
        Ok(())
    })
    .await
}
