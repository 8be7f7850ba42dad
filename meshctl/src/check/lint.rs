//! `meshctl check -f`: manifests on their own, read by the very parser of the controller and judged by the very rules of
//! controller and injector. Pure; asks no cluster, so what is not in the files counts as absent.

mod references;
mod templates;

use std::{fmt, path::Path, sync::Arc};

use mesh_controller::{
    index::Facts,
    source::{
        Object,
        manifest::{self, Format},
    },
};
use mesh_injector::decide::{self, Namespace, NamespaceMeta, Verdict};
use mesh_proto::names;
use serde_json::json;

use self::{references::References, templates::Template};
use super::{Check, Finding, Outcome};
use crate::{commands::inject::Input, reason};

/// A place in a file.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    line: u64,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How the checks of files come out.
pub(crate) fn lint(files: &[Input]) -> Vec<Outcome> {
    let mut unreadable = Vec::new();
    let mut objects: Vec<(Place<'_>, Arc<Object>)> = Vec::new();
    for file in files {
        let format = if is_json(file) { Format::Json } else { Format::Yaml };
        let read = manifest::parse(&file.text, format);
        let place = |line| Place { file: &file.name, line };
        unreadable.extend(read.mistakes.into_iter().map(|mistake| {
            let object = mistake.object.map(|object| format!("{object}: ")).unwrap_or_default();
            Finding::new(format!("{}: {object}{}", place(mistake.line), mistake.reason))
        }));
        objects.extend(read.objects.into_iter().map(|(line, object)| (place(first_line(&file.text, line)), object)));
    }

    let mut facts = Facts::new(names::DEFAULT_TRUST_DOMAIN);
    let mut invalid = Vec::new();
    for (place, object) in &objects {
        let problems = facts.apply(object).problems;
        let name = object.object_ref();
        invalid.extend(problems.into_iter().map(|problem| Finding::new(format!("{place}: {name}: {problem}"))));
    }

    let templates = templates::read(files);
    let references = References { facts: &facts, pods: &templates };
    let mut backends = Vec::new();
    let mut ports = Vec::new();
    for (place, object) in &objects {
        references.judge(object, *place, &mut backends, &mut ports);
    }

    let (annotations, refused) = injection(&templates, &objects);
    vec![
        Outcome::error(Check::ManifestReadable, unreadable),
        Outcome::error(Check::ObjectsValid, invalid),
        Outcome::warning(Check::RouteBackendsExist, backends),
        Outcome::warning(Check::PortsExist, ports),
        Outcome::warning(Check::AnnotationsKnown, annotations),
        Outcome::warning(Check::PodsInjectable, refused),
    ]
}

/// The line on which a document says something first; it may begin with its separator, comments and blank lines.
fn first_line(text: &str, document: u64) -> u64 {
    let numbered = text.lines().zip(1_u64..).skip_while(|(_, line)| *line < document);
    let said = |line: &str| !line.trim().is_empty() && !line.starts_with("---") && !line.trim_start().starts_with('#');
    numbered.filter(|(line, _)| said(line)).map(|(_, line)| line).next().unwrap_or(document)
}

fn is_json(file: &Input) -> bool {
    Path::new(&file.name).extension().is_some_and(|extension| extension == "json")
}

/// What the injector would say: of annotations, and of pods that it would refuse.
fn injection(pods: &[Template<'_>], objects: &[(Place<'_>, Arc<Object>)]) -> (Vec<Finding>, Vec<Finding>) {
    let mut annotations = Vec::new();
    let mut refused = Vec::new();
    for (place, object) in objects {
        let Object::Namespace(namespace) = &**object else { continue };
        let Ok(value) = serde_json::to_value(namespace) else { continue };
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let meta = reason::meta(&value).opted_in();
        // Any pod will do: what is asked is what the namespace says.
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "app"}]}});
        let warnings = decide::decide(&pod, &Namespace { name, meta }).warnings;
        annotations.extend(warnings.into_iter().map(|warning| Finding::new(format!("{place}: {warning}"))));
    }
    for pod in pods {
        // To be checked is to be asked for; what the namespace says is told with it.
        let namespace = Namespace { name: pod.namespace.clone(), meta: NamespaceMeta::default().opted_in() };
        let decision = decide::decide(&pod.pod, &namespace);
        let object = format!("{} {}", pod.kind, pod.name);
        if let Verdict::Refuse(reason) = decision.verdict {
            let place = Place { file: pod.file, line: line_of(pod.text, &pod.name, None) };
            let finding = Finding::new(format!("{place}: {object}: {} ({})", reason.text(), reason.code()));
            refused.push(finding.fix(format!("meshctl explain {}", reason.code())));
            continue;
        }
        annotations.extend(decision.warnings.iter().map(|warning| {
            let place = Place { file: pod.file, line: line_of(pod.text, &pod.name, Some(warning)) };
            Finding::new(format!("{place}: {object}: {warning}"))
        }));
    }
    (annotations, refused)
}

/// The line that a warning is about: where the annotation that it names stands, in or after the object with this name.
fn line_of(text: &str, object: &str, warning: Option<&str>) -> u64 {
    let numbered = || text.lines().zip(1_u64..);
    let start = numbered().find(|(line, _)| line.contains("name:") && line.contains(object)).map_or(1, |(_, at)| at);
    let prefix = format!("{}/", names::GROUP);
    let key = warning.and_then(|warning| warning.split_whitespace().find(|word| word.starts_with(&prefix)));
    let Some(key) = key.map(|key| key.trim_end_matches([':', ','])) else { return start };
    let is_key = |line: &str| line.contains(&format!("{key}:")) || line.contains(&format!("{key}\":"));
    numbered().find(|(line, at)| *at >= start && is_key(line)).map_or(start, |(_, at)| at)
}

#[cfg(test)]
mod tests;
