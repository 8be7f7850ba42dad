//! What the namespaces say about their pods: labels and annotations.
//!
//! An admission review carries the pod but only the name of its namespace. `server` asks here for each review. Where there is
//! no source, the answer is "not known", and the webhook's own selectors have decided already.

use std::{fs, path::PathBuf};

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

impl Namespaces {
    /// What this namespace says; None where that cannot be known. A namespace without a manifest says nothing.
    pub async fn meta(&self, name: &str) -> Option<NamespaceMeta> {
        let Self::Directory(directory) = self else { return None };
        let (directory, name) = (directory.clone(), name.to_owned());
        let found = tokio::task::spawn_blocking(move || find(&directory, &name)).await;
        found.unwrap_or_else(|error| {
            tracing::error!(%error, "failed to look up a namespace");
            None
        })
    }
}

fn find(directory: &PathBuf, name: &str) -> Option<NamespaceMeta> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "failed to read the directory of manifests");
            return None;
        }
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).take(MAX_FILES).collect();
    paths.sort();
    let is_manifest = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
    };
    let small = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_FILE);
    paths
        .iter()
        .filter(|path| is_manifest(path) && small(path))
        .filter_map(|path| fs::read_to_string(path).ok())
        .filter(|text| text.contains("Namespace"))
        // A file with a mistake is the controller's to report; a namespace in it says nothing until it is mended.
        .filter_map(|text| serde_saphyr::from_multiple::<Value>(&text).ok())
        .flatten()
        .flat_map(flatten)
        .find_map(|object| read(&object, name))
        .or_else(|| Some(NamespaceMeta::default()))
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
    fn a_namespace_is_found_among_manifests_and_a_broken_file_hides_no_other() {
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
        assert_eq!(find(&path, "other"), Some(NamespaceMeta::default()));
        assert_eq!(find(&path, "nowhere"), Some(NamespaceMeta::default()));
        assert_eq!(find(&path.join("gone"), "shop"), None);
    }
}
