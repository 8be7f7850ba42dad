//! In which versions the API server serves the resources that the mesh reads. By discovery, which every user may ask.

use gateway_api::apis::standard::httproutes::HttpRoute;
use kube::Resource;
use mesh_proto::crd::AuthorizationPolicy;
use serde_json::Value;

use crate::cluster::{Cluster, ClusterError};

/// A resource that the mesh reads in one version, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    /// `plural.group`, as its definition is called.
    pub(crate) name: String,
    /// The version that is read.
    pub(crate) version: String,
    /// Of the mesh's own group.
    pub(crate) is_ours: bool,
    /// The versions that the API server has of it; none: it does not know the resource.
    pub(crate) versions: Vec<String>,
}

/// Asks for all of them; none on the playground.
pub(crate) async fn served(cluster: &Cluster) -> Option<Result<Vec<Served>, ClusterError>> {
    if cluster.is_playground() {
        return None;
    }
    let both = tokio::try_join!(of::<AuthorizationPolicy>(cluster, true), of::<HttpRoute>(cluster, false));
    Some(both.map(|(policies, routes)| vec![policies, routes]))
}

async fn of<R: Resource<DynamicType = ()>>(cluster: &Cluster, is_ours: bool) -> Result<Served, ClusterError> {
    let (group, plural) = (R::group(&()), R::plural(&()));
    let versions = versions(cluster, &group, &plural).await?;
    Ok(Served { name: format!("{plural}.{group}"), version: R::version(&()).into_owned(), is_ours, versions })
}

async fn versions(cluster: &Cluster, group: &str, plural: &str) -> Result<Vec<String>, ClusterError> {
    let Some(group) = cluster.find(&format!("/apis/{group}")).await? else { return Ok(Vec::new()) };
    let mut versions = Vec::new();
    for served in group["versions"].as_array().into_iter().flatten() {
        let Some(place) = served["groupVersion"].as_str() else { continue };
        let Some(list) = cluster.find(&format!("/apis/{place}")).await? else { continue };
        if has(&list, plural) {
            versions.push(served["version"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(versions)
}

/// Whether a version has the resource: a group's versions may be of different ones.
fn has(list: &Value, plural: &str) -> bool {
    list["resources"].as_array().into_iter().flatten().any(|resource| resource["name"] == plural)
}
