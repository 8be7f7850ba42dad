//! Why a pod is not meshed, in the injector's own words: the same decision, asked again.

use std::collections::HashMap;

use mesh_injector::decide::{self, Namespace, NamespaceMeta, Verdict};
pub(crate) use mesh_injector::reason::RESTART_NEEDED as RESTART;
use serde_json::Value;

use crate::cluster::{Cluster, ClusterError, PodInfo};

/// Namespace and name.
type PodKey = (String, String);

/// Reason codes of the pods that are not meshed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reasons(HashMap<PodKey, &'static str>);

impl Reasons {
    /// Asks for what the decision needs, where any of `pods` is not meshed.
    pub(crate) async fn read(cluster: &Cluster, pods: &[PodInfo]) -> Result<Self, ClusterError> {
        if pods.iter().all(|pod| pod.meshed) {
            return Ok(Self::default());
        }
        let namespaces: HashMap<String, NamespaceMeta> =
            cluster.objects("namespaces").await?.iter().map(|object| (text(object, "name"), meta(object))).collect();
        let mut reasons = HashMap::new();
        for object in cluster.objects("pods").await? {
            let wanted = key(&text(&object, "namespace"), &text(&object, "name"));
            if pods.iter().any(|pod| !pod.meshed && key(&pod.namespace, &pod.name) == wanted) {
                let namespace =
                    Namespace { meta: namespaces.get(&wanted.0).cloned().unwrap_or_default(), name: wanted.0.clone() };
                reasons.insert(wanted, code(&object, &namespace));
            }
        }
        Ok(Self(reasons))
    }

    /// Of one pod.
    pub(crate) fn of(&self, pod: &PodInfo) -> Option<&'static str> {
        self.0.get(&key(&pod.namespace, &pod.name)).copied()
    }

    #[cfg(test)]
    pub(crate) fn fixed<'a>(reasons: impl IntoIterator<Item = (&'a PodInfo, &'static str)>) -> Self {
        Self(reasons.into_iter().map(|(pod, reason)| (key(&pod.namespace, &pod.name), reason)).collect())
    }
}

fn key(namespace: &str, name: &str) -> PodKey {
    (namespace.to_owned(), name.to_owned())
}

fn code(pod: &Value, namespace: &Namespace) -> &'static str {
    match decide::decide(pod, namespace).verdict {
        Verdict::Inject(_) => RESTART,
        Verdict::Skip(reason) | Verdict::Refuse(reason) => reason.code(),
    }
}

fn text(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn meta(namespace: &Value) -> NamespaceMeta {
    let map = |field: &str| serde_json::from_value(namespace["metadata"][field].clone()).unwrap_or_default();
    NamespaceMeta { labels: map("labels"), annotations: map("annotations") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_reason_is_the_injectors() {
        let namespace = |label: &str| Namespace {
            name: "shop".into(),
            meta: meta(&json!({"metadata": {"labels": {"meshctl.dev/inject": label}}})),
        };
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app", "image": "x"}]}});
        assert_eq!(code(&pod, &namespace("disabled")), "not-labelled");
        assert_eq!(code(&pod, &namespace("enabled")), RESTART);
        let host = json!({"metadata": {"name": "a"}, "spec": {"hostNetwork": true, "containers": [{"name": "app"}]}});
        assert_eq!(code(&host, &namespace("enabled")), "host-network");
    }
}
