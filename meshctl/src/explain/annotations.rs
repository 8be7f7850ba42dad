//! Pages of the annotations and labels that a user may write, from the table by which they are validated.

use mesh_injector::settings::table::{SETTINGS, Setting};
use mesh_proto::names;

use super::{About, Page};

pub(super) fn pages() -> Vec<Page> {
    let mut pages: Vec<Page> = SETTINGS.iter().map(page).collect();
    pages.push(Page {
        name: names::LABEL_INJECT.to_owned(),
        about: About::Annotation,
        summary: "A label: whether pods get a sidecar.".to_owned(),
        details: vec![format!(
            "On a namespace, {} adds a sidecar to every pod that is created there from now on. On a pod, {} or {} wins \
             over the namespace. Whether a pod is meshed is read from its spec, never from this label.",
            names::INJECT_ENABLED,
            names::INJECT_ENABLED,
            names::INJECT_DISABLED
        )],
        fix: None,
        example: Some(format!("kubectl label namespace shop {}={}", names::LABEL_INJECT, names::INJECT_ENABLED)),
    });
    pages
}

fn page(setting: &Setting) -> Page {
    let Setting { annotation, example, values, default, doc, on_mistake, .. } = setting;
    let plain = |text: &str| text.replace('`', "");
    let (summary, more) = doc.split_once(". ").unwrap_or((doc, ""));
    let mut details = vec![
        format!("Values: {}.", plain(values)),
        format!("Default: {}.", plain(default)),
        format!(
            "On a namespace or a pod template; the pod wins. A wrong value is a warning of `kubectl apply` and of `meshctl \
             inject`, and then {}.",
            on_mistake.text()
        ),
    ];
    if !more.is_empty() {
        details.insert(0, plain(more));
    }
    Page {
        name: (*annotation).to_owned(),
        about: About::Annotation,
        summary: format!("{}.", plain(summary).trim_end_matches('.')),
        details,
        fix: None,
        example: Some(format!("metadata:\n  annotations:\n    {annotation}: \"{example}\"")),
    }
}
