//! What the namespaces say about their pods: labels and annotations.
//!
//! An admission review carries the pod but only the name of its namespace. `server` asks here for each review. What is not
//! known is said so and never guessed: then there is no review, and the webhook's `failurePolicy` decides.

use std::{fs, io, path::PathBuf};

use serde_json::Value;

use crate::decide::NamespaceMeta;

/// Largest manifest file that is read.
const MAX_FILE: u64 = 1024 * 1024;
/// Most files of the directory that are read.
const MAX_FILES: usize = 4096;

/// Where namespaces are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Namespaces {
    /// Nowhere.
    #[default]
    Unknown,
    /// Among the manifests of a directory, the one that the controller watches. Read for each review: a machine has few
    /// pods and few files, and so the answer is never old.
    Directory(PathBuf),
}

/// Why it is not known what a namespace says.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// Nobody to ask.
    #[error("there is no source of namespaces")]
    NoSource,
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
    /// What this namespace says. A namespace without a manifest says nothing.
    pub async fn meta(&self, name: &str) -> Result<NamespaceMeta, Unknown> {
        let Self::Directory(directory) = self else { return Err(Unknown::NoSource) };
        let (directory, name) = (directory.clone(), name.to_owned());
        tokio::task::spawn_blocking(move || find(&directory, &name)).await.map_err(|_panic| Unknown::NoSource)?
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
