//! What the namespaces say about their pods: labels and annotations.
//!
//! An admission review carries the pod but only the name of its namespace. `server` asks here for each review. What is not
//! known is said so and never guessed: then there is no review, and the webhook's `failurePolicy` decides.

mod together;

use std::{fmt, fs, io, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use serde_json::Value;

use self::together::Together;
use crate::decide::NamespaceMeta;

/// Largest manifest file that is read.
const MAX_FILE: u64 = 1024 * 1024;
/// Most files of the directory that are read.
const MAX_FILES: usize = 4096;

/// Longest that the API server may take; it waits 5 seconds for the review.
const API_TIMEOUT: Duration = Duration::from_secs(2);

/// Where namespaces are looked up.
#[derive(Debug, Clone)]
pub enum Namespaces {
    /// At the API server, after each review has come: a namespace that was labelled a moment ago counts. Reviews that come at
    /// the same time share a look.
    Cluster(Cluster),
    /// Among the manifests of a directory, the one that the controller watches. Read for each review: a machine has few
    /// pods and few files, and so the answer is never old.
    Directory(PathBuf),
}

/// The API server that this pod belongs to.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    together: Arc<Together<Result<NamespaceMeta, String>>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

impl Cluster {
    /// Whoever answers for it; a script in tests.
    pub fn new(client: Client) -> Self {
        Self { client, together: Arc::default() }
    }

    /// As the service account of this pod. Needs a runtime, as its client does.
    pub fn of_this_pod() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self::new(Client::try_from(kube::Config::incluster()?)?))
    }

    /// How it is spoken to.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    async fn meta(&self, name: &str) -> Result<NamespaceMeta, Unknown> {
        // The name comes from whoever reaches the webhook, and becomes part of a path.
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
            return Err(Unknown::NoName);
        }
        self.together.ask(name, || self.look(name)).await.map_err(Unknown::Cluster)
    }

    async fn look(&self, name: &str) -> Result<NamespaceMeta, String> {
        let api: Api<Namespace> = Api::all(self.client());
        let found = tokio::time::timeout(API_TIMEOUT, api.get_metadata(name)).await;
        let found = found.map_err(|_elapsed| format!("no answer within {API_TIMEOUT:?}"))?;
        let metadata = found.map_err(|error| error.to_string().chars().take(200).collect::<String>())?.metadata;
        Ok(NamespaceMeta {
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
        })
    }
}

/// Why it is not known what a namespace says.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// It cannot be looked up.
    #[error("it is no name of a namespace")]
    NoName,
    /// The API server does not say.
    #[error("ask the API server: {0}")]
    Cluster(String),
    /// The search failed by itself.
    #[error("a bug of the injector; its log says where")]
    Bug,
    /// The directory cannot be read.
    #[error("read the directory of manifests {}: {error}", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file that may hold the namespace is no YAML.
    #[error("{} is not YAML, and the namespace may be in it: mend the file", file.display())]
    Broken {
        /// Which.
        file: PathBuf,
    },
}

impl Namespaces {
    /// What this namespace says. In a directory, a namespace without a manifest says nothing.
    pub async fn meta(&self, name: &str) -> Result<NamespaceMeta, Unknown> {
        let directory = match self {
            Self::Cluster(cluster) => return cluster.meta(name).await,
            Self::Directory(directory) => directory.clone(),
        };
        let name = name.to_owned();
        tokio::task::spawn_blocking(move || find(&directory, &name)).await.map_err(|_panic| Unknown::Bug)?
    }
}

fn find(directory: &PathBuf, name: &str) -> Result<NamespaceMeta, Unknown> {
    let unreadable = |error| Unknown::Directory { directory: directory.clone(), error };
    let entries = fs::read_dir(directory).map_err(unreadable)?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).take(MAX_FILES).collect();
    paths.sort();
    let is_manifest = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
    };
    let small = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_FILE);
    let mut broken = None;
    for path in paths.into_iter().filter(|path| is_manifest(path) && small(path)) {
        let Some(text) = fs::read_to_string(&path).ok().filter(|text| text.contains("Namespace")) else { continue };
        match serde_saphyr::from_multiple::<Value>(&text) {
            Ok(objects) => {
                if let Some(meta) = objects.into_iter().flat_map(flatten).find_map(|object| read(&object, name)) {
                    return Ok(meta);
                }
            }
            // What is wrong with it is the controller's to report.
            Err(_) => broken = Some(path),
        }
    }
    // The namespace may be in the file that cannot be read; then it is not known whether it says something.
    broken.map_or_else(|| Ok(NamespaceMeta::default()), |file| Err(Unknown::Broken { file }))
}

/// The items of a List, or the object itself.
fn flatten(mut object: Value) -> Vec<Value> {
    match object.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => vec![object],
    }
}

fn read(object: &Value, name: &str) -> Option<NamespaceMeta> {
    let is_it = object.get("kind")?.as_str()? == "Namespace" && object.pointer("/metadata/name")?.as_str()? == name;
    let strings = |field: &str| {
        let map = object.pointer(field).and_then(Value::as_object).into_iter().flatten();
        map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    };
    is_it.then(|| NamespaceMeta { labels: strings("/metadata/labels"), annotations: strings("/metadata/annotations") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An API server that answers every request alike, and a list of the paths it was asked for.
    fn scripted(status: u16, body: &'static str) -> (Cluster, Arc<parking_lot::Mutex<Vec<String>>>) {
        let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            heard.lock().push(request.uri().path().to_owned());
            let body = kube::client::Body::from(body.as_bytes().to_vec());
            async move { Ok::<_, std::convert::Infallible>(http::Response::builder().status(status).body(body).unwrap()) }
        });
        (Cluster::new(Client::new(service, "default")), asked)
    }

    #[tokio::test]
    async fn a_cluster_is_asked_for_what_a_namespace_says_and_never_guessed() {
        let (cluster, asked) = scripted(
            200,
            r#"{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "shop", "labels": {"a": "b"}, "annotations": {"c": "d"}}}"#,
        );
        let namespaces = Namespaces::Cluster(cluster);
        let shop = namespaces.meta("shop").await.unwrap();
        assert_eq!((shop.labels["a"].as_str(), shop.annotations["c"].as_str()), ("b", "d"));
        for odd in ["", "../secrets/x", "a/b", "a?b", "A", &"a".repeat(64)] {
            assert!(matches!(namespaces.meta(odd).await, Err(Unknown::NoName)), "{odd:?}");
        }
        assert_eq!(*asked.lock(), ["/api/v1/namespaces/shop"]);
        for (status, body) in
            [(404, r#"{"status": "Failure", "message": "gone", "code": 404}"#), (500, "x"), (200, "x")]
        {
            let error = Namespaces::Cluster(scripted(status, body).0).meta("shop").await.unwrap_err();
            assert!(matches!(error, Unknown::Cluster(_)), "{status}: {error}");
        }
    }

    #[test]
    fn a_namespace_is_found_among_manifests_and_never_guessed() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(directory.path().join(file), text).unwrap();
        write("a-broken.yaml", "kind: Namespace\n  x: [");
        write(
            "b.yaml",
            "kind: Pod\nmetadata: {name: shop}\n---\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}, annotations: {c: d}}\n",
        );
        write("c.json", r#"{"kind": "List", "items": [{"kind": "Namespace", "metadata": {"name": "other"}}]}"#);
        let path = directory.path().to_owned();
        let shop = find(&path, "shop").unwrap();
        assert_eq!(shop.labels.get("a").map(String::as_str), Some("b"));
        assert_eq!(shop.annotations.get("c").map(String::as_str), Some("d"));
        assert_eq!(find(&path, "other").unwrap(), NamespaceMeta::default());
        let error = find(&path, "nowhere").unwrap_err().to_string();
        assert!(error.contains("a-broken.yaml is not YAML"), "{error}");
        fs::remove_file(path.join("a-broken.yaml")).unwrap();
        assert_eq!(find(&path, "nowhere").unwrap(), NamespaceMeta::default());
        assert!(matches!(find(&path.join("gone"), "shop"), Err(Unknown::Directory { .. })));
    }
}
