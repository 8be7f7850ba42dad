//! Reading a pod as a JSON value.
//!
//! Everything here is foreign: whatever is missing or of another type reads as absent, never as a panic. The API server
//! validates pods after us.

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

/// The pod's annotations.
pub fn annotations(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    annotations.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// The first init container or container of this name.
pub fn container<'a>(pod: &'a Value, wanted: &str) -> Option<&'a Value> {
    every_container(pod).find(|container| name(container) == Some(wanted))
}
