//! How far an installation has come, and why no further: what the API server says of Deployments, pods and events -> a line
//! for each part. Pure; asked for by `install --apply` and `upgrade --apply`.

use std::fmt;

use mesh_proto::names;
use serde_json::Value;

/// Where the API server keeps whom it asks about pods.
pub(crate) const WEBHOOK: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/mesh-injector";

/// A part of the control plane on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    name: String,
    /// Replicas that serve, of those that are wanted; none where that is no question.
    replicas: Option<(u64, u64)>,
    /// Why it is not done; none where it is.
    waits: Option<String>,
}

impl Part {
    pub(crate) fn is_done(&self) -> bool {
        self.waits.is_none()
    }

    /// What it waits for, with its name.
    pub(crate) fn reason(&self) -> String {
        format!("{}: {}", self.name, self.waits.as_deref().unwrap_or("done"))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_done() { "√" } else { "…" };
        write!(f, "{mark} {}", self.name)?;
        if let Some((serve, of)) = self.replicas {
            write!(f, " {serve}/{of}")?;
        }
        match &self.waits {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// Both Deployments, and the webhook once its injector serves.
pub(crate) fn parts(deployments: &Value, pods: &Value, events: &Value, webhook: &Value) -> Vec<Part> {
    let part = |name| deployment(name, deployments, pods, events);
    let mut parts = vec![part(names::CONTROLLER_NAME), part(names::INJECTOR_NAME)];
    if parts.iter().all(Part::is_done) {
        parts.push(Part { name: "webhook".to_owned(), replicas: None, waits: trust(webhook) });
    }
    parts
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn deployment(name: &str, deployments: &Value, pods: &Value, events: &Value) -> Part {
    let named = |waits: &str| Part { name: name.to_owned(), replicas: None, waits: Some(waits.to_owned()) };
    let Some(found) = items(deployments).find(|one| text(one, "/metadata/name") == name) else {
        return named("its Deployment, which is not there");
    };
    let wanted = found.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let updated = number(found, "/status/updatedReplicas");
    // While some of the release before are there, those that are available may be they.
    let old = number(found, "/status/replicas").saturating_sub(updated);
    let serve = number(found, "/status/availableReplicas").saturating_sub(old).min(updated);
    let current = number(found, "/status/observedGeneration") >= number(found, "/metadata/generation");
    let serve = if current { serve } else { 0 };
    if serve >= wanted {
        return Part { name: name.to_owned(), replicas: Some((wanted, wanted)), waits: None };
    }
    let is_its = |pod: &&Value| text(pod, "/metadata/labels/app.kubernetes.io~1name") == name;
    let pods: Vec<&Value> = items(pods).filter(is_its).collect();
    let reason = pods.iter().find_map(|pod| why(pod, events)).or_else(|| refused(found));
    let reason = reason.unwrap_or_else(|| if pods.is_empty() { "a pod".to_owned() } else { "it starts".to_owned() });
    Part { name: name.to_owned(), replicas: Some((serve, wanted)), waits: Some(reason) }
}

/// Why the API server takes none of its pods.
fn refused(deployment: &Value) -> Option<String> {
    let conditions = deployment.pointer("/status/conditions").and_then(Value::as_array)?;
    let failure = conditions.iter().find(|one| one["type"] == "ReplicaFailure" && one["status"] == "True")?;
    Some(text(failure, "/message").to_owned())
}

/// Why a pod does not serve; none where it does, or where nothing is wrong yet.
fn why(pod: &Value, events: &Value) -> Option<String> {
    let conditions = || pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let is_false = |kind: &str| conditions().find(|one| one["type"] == kind && one["status"] == "False");
    let name = text(pod, "/metadata/name");
    if let Some(scheduled) = is_false("PodScheduled") {
        return Some(format!("pod {name} has no node: {}", text(scheduled, "/message")));
    }
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten();
    for status in statuses {
        let waiting = text(status, "/state/waiting/reason");
        if !matches!(waiting, "" | "ContainerCreating" | "PodInitializing") {
            let said = text(status, "/state/waiting/message");
            let last = text(status, "/lastState/terminated/message");
            let image = text(status, "/image");
            let node = text(pod, "/spec/nodeName");
            let more = if last.is_empty() { said } else { last };
            let image = if waiting.contains("Image") { format!(" {image:?} on {node}") } else { String::new() };
            return Some(format!("pod {name}: {waiting}{image}: {}", more.lines().last().unwrap_or_default()));
        }
    }
    let ready = is_false("Ready").is_none();
    let is_about = |event: &&Value| text(event, "/involvedObject/name") == name;
    let last = items(events).filter(is_about).max_by_key(|event| text(event, "/lastTimestamp"));
    let probe = last.filter(|_| !ready).map(|event| format!("pod {name}: {}", text(event, "/message")));
    probe.map(|text| text.lines().next().unwrap_or_default().to_owned())
}

/// What keeps the API server from asking the injector.
fn trust(webhook: &Value) -> Option<String> {
    let mut entries = webhook["webhooks"].as_array().into_iter().flatten();
    let waits = entries.any(|entry| text(entry, "/clientConfig/caBundle").is_empty());
    waits.then(|| "the injector to write whom the API server is to trust".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployments(available: u64) -> Value {
        let one = |name: &str| {
            json!({"metadata": {"name": name, "generation": 2}, "spec": {"replicas": 1},
                "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": available}})
        };
        json!({"items": [one(names::CONTROLLER_NAME), one(names::INJECTOR_NAME)]})
    }

    fn pods(conditions: Value, state: Value) -> Value {
        json!({"items": [{
            "metadata": {"name": "c-1", "labels": {"app.kubernetes.io/name": names::CONTROLLER_NAME}},
            "spec": {"nodeName": "node-a"},
            "status": {"conditions": conditions, "containerStatuses": [{"image": "mesh-controller:9", "state": state}]},
        }]})
    }

    #[test]
    fn what_is_waited_for_is_said_in_the_words_of_the_cluster() {
        let unready = || json!([{"type": "Ready", "status": "False"}]);
        let events = json!({"items": [
            {"involvedObject": {"name": "c-1"}, "lastTimestamp": "2026-01-01T00:00:00Z", "message": "old"},
            {"involvedObject": {"name": "c-1"}, "lastTimestamp": "2026-01-01T00:00:01Z",
             "message": "Startup probe failed: HTTP probe failed with statuscode: 503"},
        ]});
        for (pods, events, says) in [
            (json!({"items": []}), &Value::Null, "… mesh-controller 0/1: a pod"),
            (pods(unready(), json!({"waiting": {"reason": "ContainerCreating"}})), &Value::Null, "0/1: it starts"),
            (
                pods(
                    json!([{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient cpu"}]),
                    json!({}),
                ),
                &Value::Null,
                "pod c-1 has no node: 0/1 nodes: Insufficient cpu",
            ),
            (
                pods(unready(), json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling"}})),
                &Value::Null,
                "pod c-1: ImagePullBackOff \"mesh-controller:9\" on node-a: Back-off pulling",
            ),
            (pods(unready(), json!({"running": {}})), &events, "pod c-1: Startup probe failed: HTTP probe"),
        ] {
            let parts = parts(&deployments(0), &pods, events, &Value::Null);
            assert!(parts[0].to_string().contains(says) && !parts[0].is_done(), "{says}: {}", parts[0]);
        }
        let refused = json!({"items": [{"metadata": {"name": names::CONTROLLER_NAME}, "status": {"conditions": [
            {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}}]});
        let parts = parts(&refused, &Value::Null, &Value::Null, &Value::Null);
        assert_eq!(parts[0].to_string(), "… mesh-controller 0/1: exceeded quota");
        assert_eq!(parts[1].to_string(), "… mesh-injector: its Deployment, which is not there");
    }

    #[test]
    fn it_is_done_when_the_api_server_trusts_the_webhook() {
        let entry = |bundle: &str| json!({"webhooks": [{"clientConfig": {"caBundle": bundle}}]});
        let parts = |bundle: &str| parts(&deployments(1), &Value::Null, &Value::Null, &entry(bundle));
        assert!(parts("eA==").iter().all(Part::is_done));
        let waits: Vec<String> = parts("").iter().map(ToString::to_string).collect();
        assert_eq!(waits[..2], ["√ mesh-controller 1/1", "√ mesh-injector 1/1"]);
        assert!(waits[2].starts_with("… webhook: the injector to write"), "{}", waits[2]);
        // What is being replaced is not counted as what replaces it: before the change is seen, and while both are there.
        for (pointer, number) in [("/items/0/metadata/generation", 3), ("/items/0/status/replicas", 2)] {
            let mut old = deployments(1);
            *old.pointer_mut(pointer).unwrap() = number.into();
            assert!(!super::parts(&old, &Value::Null, &Value::Null, &entry("eA=="))[0].is_done(), "{pointer}");
        }
    }
}
