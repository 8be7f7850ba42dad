//! One object of the API: read, created, replaced. The kind is a type; the rest of [`super`] knows none.
//!
//! Used where the controller keeps something in the cluster: its authority, its lease, the roots that pods trust.

use std::{collections::BTreeMap, time::Duration};

use http::{Request, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    api::{GetParams, ListParams, PostParams},
};
use mesh_proto::names;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Api, Failure};

/// Longest for one answer.
pub const ANSWER: Duration = Duration::from_secs(10);

/// Objects per page of a list.
const PAGE: u32 = 250;

#[derive(Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
struct Page<K> {
    #[serde(default)]
    metadata: PageMetadata,
    /// An API server writes an empty list as null.
    items: Option<Vec<K>>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// An object that a controller can keep.
pub trait Kept: Resource<DynamicType = ()> + Serialize + DeserializeOwned {}

impl<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned> Kept for K {}

/// Metadata of an object of ours; with a version it replaces that version only.
pub fn metadata(namespace: &str, name: &str, version: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(BTreeMap::from([(names::LABEL_PART_OF.to_owned(), names::PART_OF.to_owned())])),
        resource_version: version.map(str::to_owned),
        ..ObjectMeta::default()
    }
}

impl Api {
    /// The object; none where there is none of that name.
    pub async fn get<K: Kept>(&self, namespace: &str, name: &str) -> Result<Option<K>, Failure> {
        match self.ask(of::<K>(namespace).get(name, &GetParams::default())).await {
            Ok(object) => Ok(Some(object)),
            Err(failure) if failure.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Creates it; 409 where there is one of that name.
    pub async fn create<K: Kept>(&self, object: &K) -> Result<K, Failure> {
        let request = of::<K>(namespace(object)?).create(&PostParams::default(), body(object)?);
        self.ask(request).await
    }

    /// Replaces it; 409 where it is not of the version that its metadata has.
    pub async fn replace<K: Kept>(&self, object: &K) -> Result<K, Failure> {
        let name = object.meta().name.as_deref().ok_or_else(|| nonsense("an object without a name"))?;
        let request = of::<K>(namespace(object)?).replace(name, &PostParams::default(), body(object)?);
        self.ask(request).await
    }

    /// Those of this name, of every namespace.
    pub async fn named<K: Kept>(&self, name: &str) -> Result<Vec<K>, Failure> {
        let all = kube::core::Request::new(K::url_path(&(), None));
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let field_selector = Some(format!("metadata.name={name}"));
            let params =
                ListParams { field_selector, limit: Some(PAGE), continue_token: next, ..ListParams::default() };
            let page: Page<K> = self.call(all.list(&params).map_err(nonsense)?, ANSWER).await?;
            found.extend(page.items.into_iter().flatten());
            next = page.metadata.next.filter(|next| !next.is_empty());
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    async fn ask<K: Kept>(&self, request: Result<Request<Vec<u8>>, kube::core::request::Error>) -> Result<K, Failure> {
        self.call(request.map_err(nonsense)?, ANSWER).await
    }
}

fn of<K: Kept>(namespace: &str) -> kube::core::Request {
    kube::core::Request::new(K::url_path(&(), Some(namespace)))
}

fn namespace<K: Kept>(object: &K) -> Result<&str, Failure> {
    object.meta().namespace.as_deref().ok_or_else(|| nonsense("an object without a namespace"))
}

fn body<K: Kept>(object: &K) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(object).map_err(nonsense)
}

fn nonsense(error: impl std::fmt::Display) -> Failure {
    Failure::Nonsense(error.to_string())
}
