//! The calls of [`super`]: read, create, replace.

use std::{collections::BTreeMap, time::Duration};

use http::{Request, StatusCode};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Resource as _,
    api::{GetParams, PostParams},
};
use mesh_proto::names;

use super::SecretError;
use crate::api::{Api, Failure};

/// Longest for one answer.
const ANSWER: Duration = Duration::from_secs(10);
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

pub(super) async fn read(api: &Api) -> Result<Option<Kept>, SecretError> {
    let get = request().get(names::CA_SECRET_NAME, &GetParams::default());
    match call(api, get, "read").await {
        Ok(kept) => Ok(Some(kept)),
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn create(api: &Api, files: &BTreeMap<String, String>) -> Result<Kept, SecretError> {
    call(api, request().create(&PostParams::default(), body(files, None)?), "create").await
}

/// Replaces the Secret if it still has `version`.
pub(super) async fn replace(api: &Api, files: &BTreeMap<String, String>, version: &str) -> Result<Kept, SecretError> {
    let body = body(files, Some(version))?;
    call(api, request().replace(names::CA_SECRET_NAME, &PostParams::default(), body), "replace").await
}

fn request() -> kube::core::Request {
    kube::core::Request::new(Secret::url_path(&(), Some(names::SYSTEM_NAMESPACE)))
}

fn body(files: &BTreeMap<String, String>, version: Option<&str>) -> Result<Vec<u8>, SecretError> {
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(names::CA_SECRET_NAME.to_owned()),
            namespace: Some(names::SYSTEM_NAMESPACE.to_owned()),
            labels: Some(BTreeMap::from([(names::LABEL_PART_OF.to_owned(), names::PART_OF.to_owned())])),
            resource_version: version.map(str::to_owned),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        data: Some(files.iter().map(|(name, text)| (name.clone(), ByteString(text.clone().into_bytes()))).collect()),
        ..Secret::default()
    };
    serde_json::to_vec(&secret).map_err(|error| SecretError::Make(error.to_string()))
}

async fn call(
    api: &Api,
    request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    act: &'static str,
) -> Result<Kept, SecretError> {
    let request = request.map_err(|error| SecretError::Make(error.to_string()))?;
    let secret: Secret = api.call(request, ANSWER).await.map_err(|failure| {
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
            _ => "",
        };
        SecretError::Api { act, failure, fix }
    })?;
    let text = |bytes: ByteString| String::from_utf8(bytes.0).ok().filter(|text| !text.is_empty());
    let files = secret.data.unwrap_or_default();
    Ok(Kept {
        version: secret.metadata.resource_version.unwrap_or_default(),
        files: files.into_iter().filter_map(|(name, bytes)| Some((name, text(bytes)?))).collect(),
    })
}
