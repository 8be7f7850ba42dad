//! The application's end waits for the drain: a `preStop` hook for its containers, and back.
//!
//! When a pod is told to end, the kubelet sends SIGTERM to the application at once, while clients still send to it: whoever
//! ends in that moment takes requests with it. With a hook the kubelet asks the sidecar first, whose answer comes when the
//! clients have let go ([`mesh_proto::admin::DRAINED`]). A container with a hook of its own keeps that. Pure; `sidecar` and
//! `manifest` call it on the way in, `uninject` on the way out.

use mesh_proto::{admin, names};
use serde_json::{Map, Value, json};

use crate::{pod, settings::Settings};

/// Most seconds that an application's end waits, however long its drain: what is still there then, such as a connection to a
/// database, does not go by itself.
const MOST: u64 = 10;

/// The hook of every container of a pod with these settings; None where a drain has no time for it.
pub fn hook(settings: &Settings) -> Option<Value> {
    // Half of it is the application's.
    let wait = (settings.drain_seconds() / 2).min(MOST);
    let path = format!("{}?wait={wait}", admin::DRAINED);
    (wait > 0).then(|| json!({"httpGet": {"path": path, "port": names::PORT_PROXY_ADMIN}}))
}

/// Has every container of the application wait, that has no hook of its own.
pub fn hold_end(pod: &mut Value, hook: &Value) {
    for container in pod::container_mut(pod).filter(|container| may_have(container)) {
        let lifecycle = container.as_object_mut().map(|fields| fields.entry("lifecycle").or_insert(Value::Null));
        if let Some(lifecycle) = lifecycle {
            if lifecycle.is_null() {
                *lifecycle = json!({});
            }
            lifecycle["preStop"] = hook.clone();
        }
    }
}

/// Whether a container is one that gets the hook.
pub fn may_have(container: &Value) -> bool {
    match container.get("lifecycle") {
        None | Some(Value::Null) => container.is_object(),
        Some(Value::Object(lifecycle)) => !lifecycle.contains_key("preStop"),
        // The API server says what is wrong with it.
        Some(_) => false,
    }
}

/// Takes the hooks away.
pub fn release(pod: &mut Value) {
    for container in pod::container_mut(pod) {
        let Some(container) = container.as_object_mut() else { continue };
        let lifecycle = container.get_mut("lifecycle").and_then(Value::as_object_mut);
        let empty = lifecycle.is_some_and(|lifecycle: &mut Map<String, Value>| {
            let ours = lifecycle.get("preStop").is_some_and(is_ours);
            ours && lifecycle.shift_remove("preStop").is_some() && lifecycle.is_empty()
        });
        if empty {
            container.shift_remove("lifecycle");
        }
    }
}

/// Whether it is what [`hook`] made; the API server may have added defaults to it.
pub fn is_ours(hook: &Value) -> bool {
    let Some(request) = hook.get("httpGet") else { return false };
    let path = request.get("path").and_then(Value::as_str).and_then(|path| path.split('?').next());
    path == Some(admin::DRAINED)
        && request.get("port").and_then(Value::as_u64) == Some(u64::from(names::PORT_PROXY_ADMIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    #[test]
    fn containers_without_a_hook_get_one_and_lose_it_again() {
        let hook = hook(&Settings::default()).expect("there is time");
        assert_eq!(hook, json!({"httpGet": {"path": "/drained?wait=10", "port": 4191}}));
        for (lifecycle, held) in [
            (None, true),
            (Some(json!({"postStart": {"exec": {"command": ["true"]}}})), true),
            (Some(json!({"preStop": {"sleep": {"seconds": 5}}})), false),
            (Some(json!({"preStop": {"httpGet": {"path": "/drained", "port": 8080}}})), false),
            (Some(json!("?")), false),
        ] {
            let mut container = json!({"name": "web"});
            if let Some(lifecycle) = lifecycle {
                container["lifecycle"] = lifecycle;
            }
            let before = json!({"spec": {"containers": [container]}});
            let mut pod = before.clone();
            hold_end(&mut pod, &hook);
            let found = pod.pointer("/spec/containers/0/lifecycle/preStop").is_some_and(is_ours);
            assert_eq!((found, pod != before), (held, held), "{before}");
            // As the API server stores it.
            if held {
                pod["spec"]["containers"][0]["lifecycle"]["preStop"]["httpGet"]["scheme"] = "HTTP".into();
            }
            release(&mut pod);
            assert_eq!(pod, before);
        }
    }

    #[test]
    fn the_wait_leaves_half_of_the_drain_to_the_application() {
        for (drain, path) in
            [("0", None), ("1", None), ("4", Some("/drained?wait=2")), ("600", Some("/drained?wait=10"))]
        {
            let (settings, _) = settings::read([], [(names::ANNOTATION_DRAIN_SECONDS, drain)]);
            let hook = hook(&settings);
            assert_eq!(hook.as_ref().and_then(|hook| hook.pointer("/httpGet/path")?.as_str()), path, "{drain}");
        }
    }
}
