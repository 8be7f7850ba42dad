//! `meshctl check --pre`: what must be true before there is a mesh, of a cluster or of this machine.
//!
//! A cluster is asked for its version, for this user's rights to create each kind of object of the manifest, and for what it
//! thinks of every object: a dry run on the server, which changes nothing. This machine is asked by trying.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    process::{Command, Stdio},
};

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use super::{Check, Finding, Outcome, judge, observe};
use crate::{
    cluster::{Cluster, ClusterError},
    failure::{Exit, Failure},
    install::{
        Values,
        objects::{Object, Resource, objects},
    },
    playground::paths::RuntimeDir,
    roles::Role,
};

/// The oldest release that has native sidecars without a feature gate.
const OLDEST: (u32, u32) = (1, 29);
const VERSION: &str = "/version";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// Asks an API server. Every check has its own deadline: what one of them waits for in vain does not keep the others. The
/// exit code is of the first that was not answered. Fails where the server cannot be reached at all.
pub(crate) async fn cluster(cluster: &Cluster) -> Result<(Vec<Outcome>, Option<Exit>), ClusterError> {
    let objects = objects(&Values::defaults());
    let (version, served, allowed, accepted) = tokio::join!(
        cluster.get(VERSION),
        observe::served(cluster),
        allowed(cluster, &objects),
        accepted(cluster, &objects)
    );
    let Some(version) = version else { return Ok((Vec::new(), None)) };
    let (reachable, version) = match version {
        Ok(version) => (Ok(Outcome::error(Check::ClusterReachable, Vec::new())), Some(version)),
        Err(error @ ClusterError::TimedOut { .. }) => (Err(error), None),
        Err(error) => return Err(error),
    };
    let mut exit = None;
    let mut settle = |check, answer: Result<Outcome, ClusterError>| {
        answer.unwrap_or_else(|error| {
            let finding = late(&error);
            let failure = Failure::from(error);
            exit.get_or_insert(failure.exit);
            Outcome::error(check, vec![finding.unwrap_or(Finding { text: failure.message, fix: failure.fix })])
        })
    };
    let mut outcomes = vec![settle(Check::ClusterReachable, reachable)];
    outcomes.extend(served.map(|served| {
        let judged =
            served.map(|served| Outcome::error(Check::ResourceVersions, judge::served::versions(&served, false)));
        settle(Check::ResourceVersions, judged)
    }));
    // Of a release that was not told nothing can be said.
    outcomes.extend(version.map(|version| Outcome::error(Check::KubernetesVersion, too_old(&version))));
    outcomes.push(settle(Check::InstallAllowed, allowed));
    outcomes.push(settle(Check::InstallAccepted, accepted));
    Ok((outcomes, exit))
}

fn late(error: &ClusterError) -> Option<Finding> {
    let ClusterError::TimedOut { what, limit } = error else { return None };
    let fix = "--request-timeout gives it longer; a webhook of the cluster that does not answer holds up what it is asked about";
    Some(Finding::new(format!("timed out after {limit:?}: {what}")).fix(fix))
}

/// Whether this user may create each kind of object.
async fn allowed(cluster: &Cluster, objects: &[Object]) -> Result<Outcome, ClusterError> {
    let resources: BTreeSet<Resource> = objects.iter().map(Object::resource).collect();
    let rights = join_all(resources.iter().map(|resource| may_create(cluster, resource))).await;
    let missing = rights.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    Ok(Outcome::not_allowed(Check::InstallAllowed, missing))
}

/// Whether the API server takes each object, and how many it could not be asked about.
async fn accepted(cluster: &Cluster, objects: &[Object]) -> Result<Outcome, ClusterError> {
    let answers = join_all(objects.iter().map(|object| dry_run(cluster, object))).await;
    let (mut refused, mut hidden, mut waiting) = (Vec::new(), Vec::new(), BTreeMap::<&str, usize>::new());
    for (object, answer) in objects.iter().zip(answers) {
        let name = object.title();
        match answer {
            Ok(()) => {}
            Err(ClusterError::Forbidden { reason, .. }) => hidden.push(Finding::new(format!("{name}: {reason}"))),
            Err(ClusterError::NotFound { reason, .. }) if waits_for_namespace(object, &reason) => {
                *waiting.entry(object.namespace().unwrap_or_default()).or_default() += 1;
            }
            Err(ClusterError::NotFound { reason, .. } | ClusterError::Answer { reason, .. }) => {
                refused.push(Finding::new(format!("{name}: {reason}")));
            }
            Err(error) => return Err(error),
        }
    }
    let outcome = if refused.is_empty() {
        Outcome::not_allowed(Check::InstallAccepted, hidden)
    } else {
        Outcome::error(Check::InstallAccepted, refused)
    };
    Ok(outcome.note(untried(&waiting, objects.len())))
}

/// A dry run makes no namespace: what goes into one that is not there yet cannot be tried, and that is said.
fn untried(waiting: &BTreeMap<&str, usize>, all: usize) -> Option<String> {
    let (namespace, _) = waiting.first_key_value()?;
    let count: usize = waiting.values().sum();
    Some(format!(
        "{count} of {all} objects could not be tried: they go into namespace {namespace}, which is not there yet, and a dry \
         run makes none; the other {} were, the namespace itself included",
        all - count
    ))
}

/// Tries what a playground needs of this machine.
pub(crate) async fn machine() -> Outcome {
    let mut findings = Vec::new();
    // Under a second, and nothing else goes on meanwhile.
    let probe = tokio::task::spawn_blocking(|| {
        let program = std::env::current_exe()?;
        Command::new(program).arg(Role::PlaygroundProbe.name()).stdin(Stdio::null()).output()
    });
    match probe.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let reason = said.strip_prefix(&format!("{}: ", Role::PlaygroundProbe.name())).unwrap_or(&said);
            findings.push(Finding::new(reason));
        }
        Err(error) => findings.push(Finding::new(format!("run this program again: {error}"))),
    }
    if let Err(error) = RuntimeDir::of_this_user() {
        findings.push(Finding::new(format!("{error:#}")));
    }
    Outcome::error(Check::PlaygroundRuns, findings)
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What this user may not do, if so.
async fn may_create(cluster: &Cluster, resource: &Resource) -> Result<Option<Finding>, ClusterError> {
    let mut attributes = json!({"verb": "create", "group": resource.group, "resource": resource.plural});
    if let Some(namespace) = &resource.namespace {
        attributes["namespace"] = namespace.as_str().into();
    }
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes},
    });
    let Some(answer) = cluster.send(Method::POST, REVIEWS, "application/json", &review).await else { return Ok(None) };
    let answer = answer?;
    if answer.pointer("/status/allowed").and_then(Value::as_bool) == Some(true) {
        return Ok(None);
    }
    let dot = if resource.group.is_empty() { "" } else { "." };
    let place = resource.namespace.as_ref().map(|name| format!(" in namespace {name}")).unwrap_or_default();
    let what = format!("not allowed to create {}{dot}{}{place}", resource.plural, resource.group);
    Ok(Some(Finding::new(what).fix(Check::InstallAllowed.facts().fix)))
}

/// What the API server would make of the object.
async fn dry_run(cluster: &Cluster, object: &Object) -> Result<(), ClusterError> {
    let answer = cluster.apply(&object.url(), &object.0, true).await;
    answer.map_or(Ok(()), |answer| answer.map(drop))
}

/// Whether that is all that keeps the object from being tried.
fn waits_for_namespace(object: &Object, reason: &str) -> bool {
    object.namespace().is_some_and(|namespace| reason.contains(&format!("namespaces \"{namespace}\" not found")))
}

fn too_old(version: &Value) -> Vec<Finding> {
    // "29+" on some clouds.
    let number = |field: &str| {
        let digits: String = text(version, field).chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    };
    match number("/major").zip(number("/minor")) {
        Some(found) if found >= OLDEST => Vec::new(),
        Some((major, minor)) => vec![Finding::new(format!("the API server is Kubernetes {major}.{minor}"))],
        None => vec![Finding::new(format!("the API server does not say which release it is: {version}"))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        for (major, minor, good) in
            [("1", "29", true), ("1", "36+", true), ("1", "9", false), ("2", "0", true), ("", "", false)]
        {
            let found = too_old(&json!({"major": major, "minor": minor}));
            assert_eq!(found.is_empty(), good, "{major}.{minor}: {found:?}");
        }
    }

    #[test]
    fn what_goes_into_a_namespace_that_is_not_there_yet_is_counted_and_no_finding() {
        assert_eq!(untried(&BTreeMap::new(), 28), None);
        let text = untried(&BTreeMap::from([("mesh-system", 18)]), 28).unwrap();
        assert!(text.starts_with("18 of 28 objects could not be tried") && text.contains("the other 10"), "{text}");
        let object = Object(json!({"metadata": {"namespace": "mesh-system"}}));
        assert!(waits_for_namespace(&object, "namespaces \"mesh-system\" not found"));
        assert!(!waits_for_namespace(&object, "admission webhook \"x\" denied the request"));
        assert!(!waits_for_namespace(&Object(json!({"metadata": {}})), "namespaces \"\" not found"));
    }
}
