//! Whether a pod that asks for a sidecar gets one: the API server is asked by a dry run, for which it asks the webhook as for
//! any pod, and nothing is created.

use std::collections::BTreeMap;

use http::Method;
use mesh_injector::decide;
use mesh_proto::names;
use serde_json::{Value, json};

use super::Unseen;
use crate::{
    cluster::{Cluster, ClusterError},
    failure::Failure,
};

/// Levels of PodSecurity that admit no redirect, whatever the webhook says.
const FORBIDDING: [&str; 2] = ["baseline", "restricted"];
const LABEL_POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";
/// A namespace that every cluster has.
const ANY: &str = "default";

/// What became of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It has a sidecar.
    Meshed,
    /// It was admitted to this namespace as it was written.
    Plain(String),
    /// It could not be tried, and why.
    NotTried(String),
}

/// Asks for the admission of a pod; none on the playground, where every pod goes through the webhook or does not start.
pub(super) async fn admission(
    cluster: &Cluster,
    namespaces: &BTreeMap<String, Value>,
) -> Option<Result<Admission, Unseen>> {
    let namespace = choose(namespaces);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "meshctl-check-", "labels": {names::LABEL_INJECT: names::INJECT_ENABLED}},
        "spec": {"containers": [{"name": "app", "image": "meshctl-check"}]},
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let answer = cluster.send(Method::POST, &path, "application/json", &pod).await?;
    Some(match answer {
        Ok(admitted) if decide::is_injected(&admitted) => Ok(Admission::Meshed),
        Ok(_) => Ok(Admission::Plain(namespace.to_owned())),
        // Rights, quotas and PodSecurity refuse alike: none of them says anything of the webhook.
        Err(ClusterError::Forbidden { reason, .. } | ClusterError::NotFound { reason, .. }) => {
            Ok(Admission::NotTried(reason))
        }
        Err(ClusterError::Answer { reason, .. }) => Err(reason.into()),
        Err(error) => Err(Failure::from(error).into()),
    })
}

/// A namespace whose pods are to be meshed and may be, if there is one. Pure.
fn choose(namespaces: &BTreeMap<String, Value>) -> &str {
    let label = |namespace: &Value, key: &str| namespace["metadata"]["labels"][key].as_str().map(str::to_owned);
    let asks = namespaces.iter().find(|(_, namespace)| {
        label(namespace, names::LABEL_INJECT).as_deref() == Some(names::INJECT_ENABLED)
            && !label(namespace, LABEL_POD_SECURITY).is_some_and(|level| FORBIDDING.contains(&level.as_str()))
            && namespace["metadata"]["deletionTimestamp"].is_null()
    });
    asks.map_or(ANY, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_asks_for_sidecars_and_admits_them_is_tried() {
        let namespace = |labels: Value| json!({"metadata": {"labels": labels}});
        let asks = || json!({names::LABEL_INJECT: names::INJECT_ENABLED});
        let mut strict = asks();
        strict[LABEL_POD_SECURITY] = "restricted".into();
        let mut ending = namespace(asks());
        ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let mut all = BTreeMap::from([
            ("a".to_owned(), namespace(json!({}))),
            ("b".to_owned(), namespace(strict)),
            ("c".to_owned(), ending),
        ]);
        assert_eq!(choose(&all), ANY);
        all.insert("d".to_owned(), namespace(asks()));
        assert_eq!(choose(&all), "d");
    }
}
