//! In which versions the API server serves the resources that the mesh reads. By discovery, which every user may ask.

use futures_util::future::join_all;
use gateway_api::apis::standard::httproutes::HttpRoute;
use kube::Resource as _;
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
    let resource = |group: &str, plural: &str, version: &str, is_ours| {
        let name = format!("{plural}.{group}");
        let (group, plural, version) = (group.to_owned(), plural.to_owned(), version.to_owned());
        async move {
            let versions = versions(cluster, &group, &plural).await?;
            Ok(Served { name, version, is_ours, versions })
        }
    };
    if cluster.is_playground() {
        return None;
    }
    let resources = [
        resource(
            &AuthorizationPolicy::group(&()),
            &AuthorizationPolicy::plural(&()),
            &AuthorizationPolicy::version(&()),
            true,
        ),
        resource(&HttpRoute::group(&()), &HttpRoute::plural(&()), &HttpRoute::version(&()), false),
    ];
    Some(join_all(resources).await.into_iter().collect())
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
