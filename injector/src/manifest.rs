//! Injection into manifests: YAML text in, YAML text out, for `meshctl inject` and `uninject`.
//!
//! The text is edited at the places of its pod templates and never printed again, so comments, order, quotes and line ends
//! stay, and `uninject(inject(text)) == text` byte for byte: [`inject`] checks that before it answers. What it cannot edit
//! with that promise it refuses, with the line and a way out. Decisions and parts are those of the webhook. Reads no files.

use std::{collections::BTreeMap, fmt};

use mesh_proto::workload;
use serde_json::Value;

use crate::{
    decide::{Decision, Namespace, NamespaceMeta, Verdict, decide, is_injected},
    reason::Reason,
    settings,
    sidecar::Mesh,
};

mod edit;
mod emit;
mod tree;

use edit::Source;
use tree::Node;

/// An edited text, and what was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The text.
    pub text: String,
    /// One entry for each object that has a pod template (or is a pod), in order.
    pub report: Vec<Report>,
}

/// What was done with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its kind, e.g. `Deployment`.
    pub kind: String,
    /// Its namespace, where it names one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What was done.
    pub outcome: Outcome,
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

/// What was done with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has a sidecar now.
    Injected,
    /// It had one, and has none now.
    Uninjected,
    /// Left as it was.
    Skipped(Reason),
    /// Left as it was, though a sidecar was asked for.
    Refused(Reason),
    /// Left as it was: there was no sidecar to take away.
    NoSidecar,
}

/// Why a text cannot be edited; nothing of it has been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}; {fix}")]
pub struct ManifestError {
    /// Name of the text, as given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub fix: &'static str,
}

impl fmt::Display for Report {
    /// `deployment/web injected`, or `job/x skipped: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ", self.kind.to_lowercase(), self.name)?;
        match &self.outcome {
            Outcome::Injected => f.write_str("injected"),
            Outcome::Uninjected => f.write_str("uninjected"),
            Outcome::NoSidecar => f.write_str("skipped: it has no sidecar"),
            Outcome::Skipped(reason) | Outcome::Refused(reason) => {
                write!(f, "skipped: {reason}")
            }
        }
    }
}

/// Adds the sidecar to every pod and pod template of a text. `file` is the text's name in errors.
///
/// To be named is to be asked for: a template needs no label. `meshctl.dev/inject: disabled` on it still holds.
pub fn inject(file: &str, text: &str, mesh: &Mesh) -> Result<Edited, ManifestError> {
    let source = Source::new(file, text);
    let documents = tree::documents(file, text)?;
    let namespaces = namespaces(&documents);
    let mut edits = Vec::new();
    let mut report = Vec::new();
    for object in objects(&documents) {
        let pod = object.template.value();
        let name = object.namespace.clone().unwrap_or_else(|| "default".into());
        // To be in the text is to be asked for.
        let meta = namespaces.get(&name).cloned().unwrap_or_default().opted_in();
        let Decision { verdict, mut warnings } = decide(&pod, &Namespace { name, meta });
        warnings.extend(object.misplaced());
        let outcome = match verdict {
            Verdict::Inject(mut settings) => {
                settings.workload = object.workload();
                warnings.extend(source.inject(object.template, mesh, &settings, &mut edits)?);
                Outcome::Injected
            }
            Verdict::Skip(reason) => Outcome::Skipped(reason),
            Verdict::Refuse(reason) => Outcome::Refused(reason),
        };
        report.push(object.report(outcome, warnings));
    }
    let edited = Edited { text: source.apply(edits), report };
    if is_promised(file, text, &edited)? {
        return Ok(edited);
    }
    Err(source.error(0, "the text cannot be edited so that uninject gives it back", edit::REWRITE))
}

/// Whether the sidecars are in the edited text, and without them it is the original. Objects that had a sidecar before
/// lose it in both.
fn is_promised(file: &str, text: &str, edited: &Edited) -> Result<bool, ManifestError> {
    let documents = tree::documents(file, &edited.text)?;
    let objects = objects(&documents);
    let injected = objects
        .iter()
        .zip(&edited.report)
        .all(|(object, report)| report.outcome != Outcome::Injected || is_injected(&object.template.value()));
    let same_objects = objects.len() == edited.report.len();
    Ok(injected && same_objects && uninject(file, &edited.text)?.text == uninject(file, text)?.text)
}

/// Takes the sidecar away from every pod and pod template of a text. `file` is the text's name in errors.
pub fn uninject(file: &str, text: &str) -> Result<Edited, ManifestError> {
    let source = Source::new(file, text);
    let documents = tree::documents(file, text)?;
    let mut edits = Vec::new();
    let mut report = Vec::new();
    for object in objects(&documents) {
        let removed = source.uninject(object.template, &mut edits)?;
        report.push(object.report(if removed { Outcome::Uninjected } else { Outcome::NoSidecar }, Vec::new()));
    }
    Ok(Edited { text: source.apply(edits), report })
}

/// Name of what has none.
const UNNAMED: &str = "?";

/// An object of the text that has a pod template, or is a pod.
struct Object<'a> {
    kind: String,
    namespace: Option<String>,
    name: String,
    /// Its own metadata.
    metadata: Option<&'a Node>,
    /// The mapping with `metadata` and `spec` of the pod.
    template: &'a Node,
}

impl Object<'_> {
    /// What its pods belong to; of a bare pod, nothing.
    fn workload(&self) -> Option<String> {
        let is_named = self.kind != "Pod" && self.name != UNNAMED;
        is_named.then(|| workload::of_owner(&self.kind, &self.name, None))
    }

    /// Labels and annotations of ours on the object itself, where the template is meant: nobody reads them there.
    fn misplaced(&self) -> Vec<String> {
        let Some(own) = self.metadata.filter(|_| self.kind != "Pod") else { return Vec::new() };
        let keys = |field: &'static str| {
            let map = own.get(field).map(Node::value);
            let keys = map.and_then(|map| Some(map.as_object()?.keys().cloned().collect::<Vec<_>>()));
            keys.into_iter().flatten().filter(|key| settings::is_ours(key)).map(move |key| (field, key))
        };
        let kind = self.kind.to_lowercase();
        let told = |(field, key): (&str, String)| {
            let key = settings::short(&key);
            format!("{key} of the {kind} itself has no effect; write it in the {field} of its pod template")
        };
        keys("labels").chain(keys("annotations")).map(told).collect()
    }

    fn report(self, outcome: Outcome, warnings: Vec<String>) -> Report {
        let Self { kind, namespace, name, .. } = self;
        Report { kind, namespace, name, outcome, warnings }
    }
}

/// Every object with a pod template, those of Lists too.
fn objects(documents: &[Node]) -> Vec<Object<'_>> {
    flat(documents).filter_map(object).collect()
}

/// The documents, and the items of those that are Lists.
fn flat(documents: &[Node]) -> impl Iterator<Item = &Node> {
    documents.iter().flat_map(|document| {
        let is_list = document.get("kind").and_then(Node::text).is_some_and(|kind| kind.ends_with("List"));
        match document.get("items") {
            Some(items) if is_list => items.items().iter().collect(),
            _ => vec![document],
        }
    })
}

fn object(node: &Node) -> Option<Object<'_>> {
    let kind = node.get("kind")?.text()?;
    let path: &[&str] = match kind {
        "Pod" => &[],
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            &["spec", "template"]
        }
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        _ => return None,
    };
    let template = path.iter().try_fold(node, |node, key| node.get(key))?;
    let metadata = node.get("metadata");
    let text = |key: &str| metadata?.get(key)?.text().map(str::to_owned);
    let name = text("name").or_else(|| text("generateName")).unwrap_or_else(|| UNNAMED.into());
    Some(Object { kind: kind.to_owned(), namespace: text("namespace"), name, metadata, template })
}

/// What the Namespaces in the same text say.
fn namespaces(documents: &[Node]) -> BTreeMap<String, NamespaceMeta> {
    let is_namespace = |node: &&Node| node.get("kind").and_then(Node::text) == Some("Namespace");
    let read = |node: &Node| {
        let metadata = node.get("metadata")?.value();
        let strings = |field: &str| -> BTreeMap<String, String> {
            let map = metadata.get(field).and_then(Value::as_object).into_iter().flatten();
            map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        };
        let meta = NamespaceMeta { labels: strings("labels"), annotations: strings("annotations") };
        Some((metadata.get("name")?.as_str()?.to_owned(), meta))
    };
    flat(documents).filter(is_namespace).filter_map(read).collect()
}
