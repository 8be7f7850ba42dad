//! Our Kubernetes custom resources, as the API server stores them. Types only: their meaning is
//! [`crate::inbound`], the translation is the controller's.
//!
//! Fields are nullable in the schema although null is refused on reading: an API server silently drops a null that the
//! schema does not allow, and a policy without `from` lets everyone in.

mod written;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may connect to the pods it selects.
///
/// A port that is selected by an Allow policy denies everyone whom no Allow policy of the port matches; ports that no
/// Allow policy selects keep the default. Deny wins.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "meshctl.dev",
    version = "v1alpha1",
    kind = "AuthorizationPolicy",
    namespaced,
    shortname = "authz",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationPolicySpec {
    /// What it protects: Services or the Namespace of the policy. Either this or `selector`; neither means the
    /// namespace. Never an empty list.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "written::target_refs")]
    #[schemars(length(min = 1), extend("nullable" = true))]
    pub target_refs: Vec<TargetRef>,
    /// Pods that it protects, by label.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written::selector")]
    #[schemars(extend("nullable" = true))]
    pub selector: Option<PodSelector>,
    /// What happens to the clients that `from` matches.
    #[serde(default)]
    #[schemars(extend("nullable" = true))]
    pub action: PolicyAction,
    /// Container ports that it is about; without the field all. Never an empty list.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "written::ports")]
    #[schemars(length(min = 1), inner(range(min = 1, max = 65535)), extend("nullable" = true))]
    pub ports: Vec<u16>,
    /// Matches when any entry does; without the field every client, meshed or not. Never an empty list, and no entry
    /// without a client: such a policy cannot be read, and lets nobody in until it can.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "written::from")]
    #[schemars(length(min = 1), extend("nullable" = true))]
    pub from: Vec<PolicySource>,
}

/// An object in the policy's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// API group; empty for core.
    #[serde(default)]
    pub group: String,
    /// `Service` or `Namespace`.
    pub kind: TargetKind,
    /// Name of the object.
    pub name: String,
}

/// Kinds that a policy can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TargetKind {
    /// Every pod of the policy's namespace.
    Namespace,
    /// The pods that the Service selects.
    Service,
}

/// Pods by label.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSelector {
    /// All must be there with these values.
    #[serde(default, deserialize_with = "written::match_labels")]
    #[schemars(extend("nullable" = true))]
    pub match_labels: std::collections::BTreeMap<String, String>,
}

/// What a policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum PolicyAction {
    /// Lets in.
    #[default]
    Allow,
    /// Refuses.
    Deny,
}

/// Clients. Within one entry any of the lists may match; at least one is there, and none is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct PolicySource {
    /// `name` in the policy's namespace, or `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "written::service_accounts")]
    #[schemars(length(min = 1), extend("nullable" = true))]
    pub service_accounts: Vec<String>,
    /// Every service account of these namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "written::namespaces")]
    #[schemars(length(min = 1), extend("nullable" = true))]
    pub namespaces: Vec<String>,
    /// SPIFFE ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "written::identities")]
    #[schemars(length(min = 1), extend("nullable" = true))]
    pub identities: Vec<String>,
}
