//! The manifest as objects: how an API server names them, and in which order they come and go. Called by everything that
//! asks a cluster about an installation; pure, what the cluster answers is not known here.

use mesh_proto::names;
use serde_json::Value;

use super::{Values, render};

/// One object of the manifest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object(pub(crate) Value);

/// A kind of objects, and where they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resource {
    pub(crate) group: String,
    version: String,
    /// As in URLs.
    pub(crate) plural: String,
    pub(crate) namespace: Option<String>,
}

/// The objects that `meshctl install` prints with these values, in the order in which they are applied.
pub(crate) fn objects(values: &Values) -> Vec<Object> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&render(values)).unwrap_or_default();
    documents.into_iter().map(Object).collect()
}

/// Whether an object of a cluster is of the mesh, as its label says.
pub(crate) fn is_ours(live: &Value) -> bool {
    live.pointer("/metadata/labels").is_some_and(|labels| labels[names::LABEL_PART_OF] == names::PART_OF)
}

/// The order in which they go: who intercepts pods first, then who may write, then who does; what everything else is in or
/// made of comes last.
pub(crate) fn removal(mut objects: Vec<Object>) -> Vec<Object> {
    objects.sort_by_key(|object| match object.kind() {
        "MutatingWebhookConfiguration" => 0,
        "ValidatingAdmissionPolicyBinding" => 1,
        "ValidatingAdmissionPolicy" => 2,
        // Whoever still runs can put nothing back.
        "ClusterRoleBinding" | "RoleBinding" => 3,
        "Deployment" => 4,
        "ClusterRole" => 6,
        "CustomResourceDefinition" => 7,
        "Namespace" => 8,
        _ => 5,
    });
    objects
}

impl Object {
    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub(crate) fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        Some(self.text("/metadata/namespace")).filter(|name| !name.is_empty())
    }

    /// `Kind name`, as findings name it.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.kind(), self.name())
    }

    pub(crate) fn resource(&self) -> Resource {
        let api = self.text("/apiVersion");
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural(self.kind()),
            namespace: self.namespace().map(str::to_owned),
        }
    }

    /// Path of the object itself.
    pub(crate) fn url(&self) -> String {
        format!("{}/{}", self.resource().path(), self.name())
    }

    /// What is enough to delete it, as a YAML document.
    pub(crate) fn reference(&self) -> String {
        let namespace = self.namespace().map(|name| format!("  namespace: {name}\n")).unwrap_or_default();
        format!(
            "---\napiVersion: {}\nkind: {}\nmetadata:\n  name: {}\n{namespace}",
            self.text("/apiVersion"),
            self.kind(),
            self.name()
        )
    }
}

impl Resource {
    /// Path of the collection.
    pub(crate) fn path(&self) -> String {
        let api = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        let namespace = self.namespace.as_ref().map(|name| format!("/namespaces/{name}")).unwrap_or_default();
        format!("{api}/{}{namespace}/{}", self.version, self.plural)
    }
}

/// Without what the API server and controllers note on an object.
pub(crate) fn said(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for noted in ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"] {
            metadata.remove(noted);
        }
        let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
        if let Some(annotations) = annotations {
            annotations.retain(|key, _| {
                !key.starts_with("deployment.kubernetes.io/") && !key.starts_with("kubectl.kubernetes.io/")
            });
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    object
}

/// How URLs name a kind.
fn plural(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn objects_of_the_manifest_have_the_urls_of_their_kinds() {
        let objects = objects(&Values::defaults());
        let paths: BTreeSet<String> = objects.iter().map(|object| object.resource().path()).collect();
        for path in [
            "/api/v1/namespaces",
            "/api/v1/namespaces/mesh-system/services",
            "/apis/apps/v1/namespaces/mesh-system/deployments",
            "/apis/networking.k8s.io/v1/namespaces/mesh-system/networkpolicies",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        ] {
            assert!(paths.contains(path), "{path}: {paths:#?}");
        }
        assert_eq!(plural("Ingress"), "ingresses");
    }

    #[test]
    fn the_webhook_goes_first_and_the_namespace_last() {
        let order = removal(objects(&Values::defaults()));
        let place = |kind: &str| order.iter().position(|object| object.kind() == kind).unwrap();
        assert_eq!(place("MutatingWebhookConfiguration"), 0);
        assert_eq!(place("Namespace"), order.len() - 1);
        assert!(place("ClusterRoleBinding") < place("Deployment"), "nobody puts anything back");
        assert_eq!(
            order[0].reference(),
            "---\napiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\nmetadata:\n  name: mesh-injector\n"
        );
    }
}
