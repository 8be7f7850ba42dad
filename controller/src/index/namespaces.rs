//! Namespace -> facts. Called by [`super::Facts`]; pure.

use k8s_openapi::api::core::v1::Namespace;
use mesh_proto::{inbound::DefaultPolicy, names};

use super::Converted;

/// What matters of a Namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceFacts {
    /// For its pods that do not set one.
    pub default_policy: Option<DefaultPolicy>,
    /// Whether its pods are to be of the mesh.
    pub asks: bool,
    /// Whether it is being deleted.
    pub ending: bool,
}

pub(super) fn facts(namespace: &Namespace) -> Converted<NamespaceFacts> {
    let mut problems = Vec::new();
    let annotations = namespace.metadata.annotations.as_ref();
    let default_policy = default_policy(annotations, &mut problems);
    let label = namespace.metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_INJECT));
    let asks = label.is_some_and(|label| label == names::INJECT_ENABLED);
    let ending = namespace.metadata.deletion_timestamp.is_some();
    Converted { facts: NamespaceFacts { default_policy, asks, ending }, problems }
}

/// The default policy that annotations set. A value that is none counts as `deny`: a misspelt `deny` must not open a
/// port, and a misspelt `allow` is noticed at once.
pub(super) fn default_policy(
    annotations: Option<&std::collections::BTreeMap<String, String>>,
    problems: &mut Vec<String>,
) -> Option<DefaultPolicy> {
    let text = annotations?.get(names::ANNOTATION_DEFAULT_POLICY)?;
    Some(text.parse().unwrap_or_else(|error| {
        problems.push(format!("annotation {}: {error}; `deny` is in force", names::ANNOTATION_DEFAULT_POLICY));
        DefaultPolicy::Deny
    }))
}
