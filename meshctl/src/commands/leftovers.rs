//! What there is of the mesh that this release would not install: objects of an earlier one, or of other values. For `upgrade`,
//! which removes them last, and `uninstall`.
//!
//! Definitions of resources and namespaces are never among them: what people have made goes with those.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use http::Method;
use mesh_proto::names;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, ClusterError},
    failure::{Exit, Failure},
    install::{
        Values,
        objects::{Object, is_ours, objects, removal},
    },
};

/// Looks for them beside the objects that are wanted, in the order in which they are to go.
pub(super) async fn find(cluster: &Cluster, wanted: &[Object]) -> Result<Vec<Object>, ClusterError> {
    let every = objects(&Values::of_every_part());
    let collections: BTreeMap<String, &Object> =
        every.iter().map(|object| (object.resource().path(), object)).collect();
    let look = |(path, example): (String, &Object)| {
        let kind = [example.0["apiVersion"].clone(), example.0["kind"].clone()];
        async move {
            let url = format!("{path}?labelSelector={}%3D{}", names::LABEL_PART_OF.replace('/', "%2F"), names::PART_OF);
            let list = cluster.find(&url).await?.unwrap_or_default();
            Ok::<_, ClusterError>(listed(&list, &kind))
        }
    };
    let found = join_all(collections.into_iter().map(look)).await;
    let found = found.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
    Ok(removal(found.filter(|object| is_left(object, wanted)).collect()))
}

/// Removes them.
pub(super) async fn remove(cluster: &Cluster, left: &[Object]) -> Result<(), Failure> {
    for object in left {
        // Those who watch it see it go; what it owns goes after it.
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        match cluster.send(Method::DELETE, &object.url(), "application/json", &options).await {
            None | Some(Ok(_) | Err(ClusterError::NotFound { .. })) => {}
            Some(Err(ClusterError::Answer { reason, .. })) => {
                return Err(Failure::new(Exit::Bad, format!("remove {}: {reason}", object.title()))
                    .fix("everything else is applied; run it again once that is mended"));
            }
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Objects of a list, which does not say of each what kind it is.
fn listed(list: &Value, [version, kind]: &[Value; 2]) -> Vec<Object> {
    let items = list["items"].as_array().into_iter().flatten();
    let object = |item: &Value| {
        let mut object = item.clone();
        object["apiVersion"] = version.clone();
        object["kind"] = kind.clone();
        Object(object)
    };
    items.map(object).collect()
}

/// Whether an object with our label is one that an installation made, and this one would not. The roots of trust are the
/// controller's own.
fn is_left(object: &Object, wanted: &[Object]) -> bool {
    let keeps = matches!(object.kind(), "CustomResourceDefinition" | "Namespace")
        || object.name() == names::TRUST_BUNDLE_NAME && object.kind() == "ConfigMap";
    is_ours(&object.0)
        && !keeps
        && object.name().starts_with("mesh-")
        && !wanted.iter().any(|one| one.url() == object.url())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_ours_and_not_wanted_and_holds_nothing_of_others() {
        let wanted = objects(&Values::defaults());
        let object = |kind: &str, name: &str, part_of: &str| {
            let namespace = (kind != "ClusterRole").then_some(names::SYSTEM_NAMESPACE);
            let version = if kind == "ClusterRole" { "rbac.authorization.k8s.io/v1" } else { "v1" };
            let labels = json!({names::LABEL_PART_OF: part_of});
            Object(
                json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace, "labels": labels}}),
            )
        };
        for (object, left) in [
            (object("ClusterRole", "mesh-injector-evict", "mesh"), true),
            (object("Service", "mesh-old", "mesh"), true),
            (object("ClusterRole", "mesh-injector-evict", "other"), false),
            (object("ClusterRole", "mesh-controller", "mesh"), false),
            (object("ClusterRole", "somebody-else", "mesh"), false),
            (object("ConfigMap", "mesh-trust-bundle", "mesh"), false),
            (object("ConfigMap", "mesh-values", "mesh"), false),
            (object("CustomResourceDefinition", "mesh-old.example", "mesh"), false),
        ] {
            assert_eq!(is_left(&object, &wanted), left, "{}", object.title());
        }
        let list = json!({"items": [{"metadata": {"name": "mesh-old"}}]});
        assert_eq!(listed(&list, &["v1".into(), "Service".into()])[0].title(), "Service mesh-old");
    }
}
