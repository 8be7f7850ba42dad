//! The calls of [`super`]: read, create, replace.

use std::collections::BTreeMap;

use http::StatusCode;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use mesh_proto::names;

use super::SecretError;
use crate::api::{Api, Failure, objects};

/// Has `tls.crt` and `tls.key`, as cert-manager writes them; more is allowed.
const TYPE: &str = "kubernetes.io/tls";

/// What the Secret holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Its version.
    pub(super) version: String,
    /// Its files.
    pub(super) files: BTreeMap<String, String>,
}

impl From<Secret> for Kept {
    fn from(secret: Secret) -> Self {
        let text = |bytes: ByteString| String::from_utf8(bytes.0).ok().filter(|text| !text.is_empty());
        let files = secret.data.unwrap_or_default().into_iter();
        Self {
            version: secret.metadata.resource_version.unwrap_or_default(),
            files: files.filter_map(|(name, bytes)| Some((name, text(bytes)?))).collect(),
        }
    }
}

pub(super) async fn read(api: &Api) -> Result<Option<Kept>, SecretError> {
    let found: Option<Secret> = failed(api.get(names::SYSTEM_NAMESPACE, names::CA_SECRET_NAME).await, "read")?;
    Ok(found.map(Kept::from))
}

pub(super) async fn create(api: &Api, files: &BTreeMap<String, String>) -> Result<Kept, SecretError> {
    failed(api.create(&secret(files, None)).await, "create").map(Kept::from)
}

/// Replaces the Secret if it still has `version`.
pub(super) async fn replace(api: &Api, files: &BTreeMap<String, String>, version: &str) -> Result<Kept, SecretError> {
    failed(api.replace(&secret(files, Some(version))).await, "replace").map(Kept::from)
}

fn secret(files: &BTreeMap<String, String>, version: Option<&str>) -> Secret {
    Secret {
        metadata: objects::metadata(names::SYSTEM_NAMESPACE, names::CA_SECRET_NAME, version),
        type_: Some(TYPE.to_owned()),
        data: Some(files.iter().map(|(name, text)| (name.clone(), ByteString(text.clone().into_bytes()))).collect()),
        ..Secret::default()
    }
}

fn failed<T>(answer: Result<T, Failure>, act: &'static str) -> Result<T, SecretError> {
    answer.map_err(|failure| {
        // What a parser says may quote what it has read.
        let failure = match failure {
            Failure::Nonsense(_) => Failure::Nonsense("it is no Secret".into()),
            other => other,
        };
        let fix = match (failure.status(), act) {
            (Some(StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED), _) => {
                "; allow it to the controller's service account (Role mesh-controller)"
            }
            (Some(StatusCode::NOT_FOUND), "create") => "; is the namespace there?",
            _ if matches!(failure, Failure::Unreachable(_) | Failure::Silent(_)) => {
                "; is it up, and at the address that the kubeconfig or the environment names?"
            }
            _ => "",
        };
        SecretError::Api { act, failure, fix }
    })
}
