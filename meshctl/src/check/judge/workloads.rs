//! Pods as the cluster sees them: is each meshed that should be, and ready?

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use mesh_injector::decide::{self, Namespace, Verdict};
use mesh_proto::names;

use super::name;
use crate::{
    check::{Finding, observe::Observed},
    cluster::PodInfo,
    reason::{self, RESTART},
};

/// A pod may take so long to become ready before that is worth a word.
const STARTS_WITHIN: SignedDuration = SignedDuration::from_secs(60);

fn in_scope(observed: &Observed) -> impl Iterator<Item = (&Pod, PodInfo)> {
    let pods = observed.pods.iter().map(|pod| (pod, PodInfo::from_object(pod)));
    pods.filter(|(_, info)| observed.scope.as_ref().is_none_or(|scope| *scope == info.namespace))
}

pub(super) fn meshed(observed: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(unseen) = &observed.namespaces_hidden {
        // Without their labels nobody can say which pods should be.
        return vec![Finding::new(format!("namespaces cannot be read: {}", unseen.reason))];
    }
    for (pod, info) in in_scope(observed).filter(|(_, info)| !info.meshed) {
        let Ok(object) = serde_json::to_value(pod) else { continue };
        let meta = observed.namespaces.get(&info.namespace).map(reason::meta).unwrap_or_default();
        let namespace = Namespace { name: info.namespace.clone(), meta };
        let (code, text) = match decide::decide(&object, &namespace).verdict {
            Verdict::Inject(_) => {
                (RESTART, "it is older than the label that asks for a sidecar, or than the mesh".to_owned())
            }
            Verdict::Refuse(reason) => (reason.code(), reason.text()),
            // Nobody asked.
            Verdict::Skip(_) => continue,
        };
        let fix = match (&info.workload, code) {
            (Some(workload), RESTART) => format!("kubectl -n {} rollout restart {workload}", info.namespace),
            _ => format!("meshctl explain {code}"),
        };
        findings.push(Finding::new(format!("pod {}: {text} ({code})", name(&info))).fix(fix));
    }
    findings
}

/// Namespaces that ask two meshes, and pods that have two.
pub(super) fn one_mesh(observed: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    let in_question = |name: &str| observed.scope.as_ref().is_none_or(|scope| scope == name);
    for (name, namespace) in observed.namespaces.iter().filter(|(name, _)| in_question(name)) {
        let meta = reason::meta(namespace);
        let asks_us = meta.labels.get(names::LABEL_INJECT).is_some_and(|value| value == names::INJECT_ENABLED);
        if let Some(other) = decide::other_mesh(&meta.labels, &meta.annotations).filter(|_| asks_us) {
            let text = format!("namespace {name} asks for this mesh and, by {other}, for another");
            let key = other.split('=').next().unwrap_or_default();
            let verb = if meta.labels.contains_key(key) { "label" } else { "annotate" };
            let fix = format!(
                "kubectl {verb} namespace {name} {key}-, or kubectl label namespace {name} {}-; then kubectl -n {name} rollout restart deployment",
                names::LABEL_INJECT
            );
            findings.push(Finding::new(text).fix(fix));
        }
    }
    for (pod, info) in in_scope(observed).filter(|(_, info)| info.meshed) {
        let Ok(object) = serde_json::to_value(pod) else { continue };
        if let Some(other) = decide::other_meshs_container(&object) {
            findings.push(Finding::new(format!("pod {} has a sidecar of this mesh and {other}", name(&info))));
        }
    }
    findings
}

pub(super) fn ready(observed: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (pod, info) in in_scope(observed).filter(|(_, info)| info.meshed && !info.ready) {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let since = conditions
            .filter(|condition| condition.type_ == "Ready")
            .find_map(|condition| condition.last_transition_time.as_ref());
        let since = since.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0);
        if since.is_some_and(|since| observed.now.duration_since(since) < STARTS_WITHIN) {
            continue;
        }
        let fix = observed.describe(&info);
        findings.push(Finding::new(format!("pod {} is not ready: {}", name(&info), why(pod))).fix(fix));
    }
    findings
}

/// The first container that says something.
fn why(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    let usual = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let statuses: Vec<&ContainerStatus> = init.chain(usual).collect();
    let waiting = statuses.iter().find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let said = waiting.message.as_deref().or(waiting.reason.as_deref())?;
        Some(format!("container {} waits: {said}", status.name))
    });
    let failing = statuses
        .iter()
        .find(|status| !status.ready && status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let failing = failing.map(|status| format!("container {} runs and its probe does not pass", status.name));
    waiting.or(failing).unwrap_or_else(|| "its containers do not say why".to_owned())
}
