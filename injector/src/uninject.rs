//! Takes away what `sidecar` added: `uninject(inject(pod)) == pod`.
//!
//! Pure. An empty list or map and an absent one are the same to Kubernetes and count as the same here. The text form, which
//! keeps even that apart, is `manifest`'s.

use mesh_proto::{
    names,
    probe::{self, BadProbes, Probe},
};
use serde_json::{Map, Value};

use crate::{
    decide, drain, pod,
    probes::{self, BadOriginal},
};

/// Why a sidecar cannot be taken away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UninjectError {
    /// The list of original probes in the sidecar's environment is damaged.
    #[error("the sidecar's {env}: {0}", env = names::ENV_PROBES)]
    Probes(#[from] BadProbes),
    /// One of them is.
    #[error(transparent)]
    Original(#[from] BadOriginal),
}

/// The pod (or template) without its sidecar; None when it has none.
pub fn uninject(pod: &Value) -> Result<Option<Value>, UninjectError> {
    if !decide::is_injected(pod) {
        return Ok(None);
    }
    let probes = originals(pod)?;
    let mut pod = pod.clone();
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        remove_named(spec, "initContainers", CONTAINERS);
        remove_named(spec, "volumes", VOLUMES);
    }
    probes::restore(&mut pod, &probes)?;
    drain::release(&mut pod);
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
        let empty = annotations.is_some_and(|annotations| {
            annotations.shift_remove(names::ANNOTATION_PROXY_VERSION).is_some() && annotations.is_empty()
        });
        if empty {
            metadata.shift_remove("annotations");
        }
    }
    Ok(Some(pod))
}

/// Init containers that the injector adds.
pub const CONTAINERS: &[&str] = &[names::CONTAINER_PROXY, names::CONTAINER_REDIRECT];
/// Volumes that the injector adds.
pub const VOLUMES: &[&str] = &[names::VOLUME_TOKEN, names::VOLUME_STATE, names::TRUST_BUNDLE_NAME];

/// The original probes that an injected pod's sidecar performs.
pub fn originals(pod: &Value) -> Result<Vec<Probe>, BadProbes> {
    let sidecar = pod::list(pod, "initContainers").iter().find(|container| decide::is_sidecar(container));
    let mut env = sidecar.and_then(|sidecar| sidecar.get("env")?.as_array()).into_iter().flatten();
    let list =
        env.find(|entry| pod::name(entry) == Some(names::ENV_PROBES)).and_then(|entry| entry.get("value")?.as_str());
    list.map_or(Ok(Vec::new()), probe::parse_list)
}

fn remove_named(spec: &mut Map<String, Value>, field: &str, ours: &[&str]) {
    let Some(list) = spec.get_mut(field).and_then(Value::as_array_mut) else { return };
    list.retain(|entry| !pod::name(entry).is_some_and(|name| ours.contains(&name)));
    if list.is_empty() {
        spec.shift_remove(field);
    }
}
