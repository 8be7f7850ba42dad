//! Reading a pod as a JSON value.
//!
//! Everything here is foreign: whatever is missing or of another type reads as absent, never as a panic. The API server
//! validates pods after us.

use mesh_proto::workload;
use serde_json::{Map, Value};

/// A list of the pod's spec, e.g. `containers`; empty when absent.
pub fn list<'a>(pod: &'a Value, field: &str) -> &'a [Value] {
    pod.pointer("/spec").and_then(|spec| spec.get(field)).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Every container of the pod, init containers first.
pub fn every_container(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|field| list(pod, field))
}

/// The containers whose probes the kubelet performs: the application's, and native sidecars among the init containers.
pub fn probed_container_mut(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    let spec = pod.get_mut("spec").and_then(Value::as_object_mut);
    spec.into_iter()
        .flat_map(Map::iter_mut)
        .filter(|(field, _)| matches!(field.as_str(), "initContainers" | "containers"))
        .flat_map(|(field, list)| {
            let init = field == "initContainers";
            let containers = list.as_array_mut().into_iter().flatten();
            containers.filter(move |container| !init || is_native_sidecar(container))
        })
}

/// The application's containers.
pub fn container_mut(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    pod.pointer_mut("/spec/containers").and_then(Value::as_array_mut).into_iter().flatten()
}

/// Whether an init container keeps running beside the application.
pub fn is_native_sidecar(container: &Value) -> bool {
    container.get("restartPolicy").and_then(Value::as_str) == Some("Always")
}

/// The `name` of a container or volume.
pub fn name(entry: &Value) -> Option<&str> {
    entry.get("name").and_then(Value::as_str)
}

/// A label of the pod.
pub fn label<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod.pointer("/metadata/labels")?.get(key)?.as_str()
}

/// The pod's labels.
pub fn labels(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    strings(pod.pointer("/metadata/labels"))
}

/// The pod's annotations.
pub fn annotations(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    strings(pod.pointer("/metadata/annotations"))
}

fn strings(map: Option<&Value>) -> impl Iterator<Item = (&str, &str)> {
    let map = map.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// One object, whatever its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// E.g. `apps/v1`.
    pub api_version: String,
    /// E.g. `ReplicaSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Tells it from others of the same name.
    pub uid: String,
}

/// What made the pod; none for a bare pod.
pub fn owner(pod: &Value) -> Option<Reference> {
    let reference = controller(pod)?;
    let field = |field| text(reference, field).map(str::to_owned);
    Some(Reference {
        api_version: field("apiVersion")?,
        kind: field("kind")?,
        name: field("name")?,
        uid: field("uid")?,
    })
}

/// What the pod belongs to, as `kind/name`; none for a bare pod.
pub fn workload(pod: &Value) -> Option<String> {
    let owner = controller(pod)?;
    Some(workload::of_owner(text(owner, "kind")?, text(owner, "name")?, label(pod, workload::LABEL_TEMPLATE_HASH)))
}

fn controller(pod: &Value) -> Option<&Value> {
    let owners = pod.pointer("/metadata/ownerReferences")?.as_array()?;
    let controls = |owner: &&Value| owner.get("controller").and_then(Value::as_bool) == Some(true);
    owners.iter().find(controls).or(owners.first())
}

fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get(field)?.as_str().filter(|text| !text.is_empty() && text.len() <= MAX_NAME)
}

/// Longest name of an object, and more than any kind's.
const MAX_NAME: usize = 253;

/// The first init container or container of this name.
pub fn container<'a>(pod: &'a Value, wanted: &str) -> Option<&'a Value> {
    every_container(pod).find(|container| name(container) == Some(wanted))
}
