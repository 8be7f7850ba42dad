//! Pages of the annotations and labels that a user may write, from the injector's own table.

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
    let plain = |text: &str| text.replace('`', "");
    let mut summary = plain(setting.doc);
    if !summary.ends_with('.') {
        summary.push('.');
    }
    if let Some(first) = summary.get(..1).map(str::to_uppercase) {
        summary.replace_range(..1, &first);
    }
    Page {
        name: setting.annotation.to_owned(),
        about: About::Annotation,
        summary,
        details: vec![
            format!("Values: {}.", plain(setting.values).trim_end_matches('.')),
            format!("Where nothing is written: {}.", plain(setting.default).trim_end_matches('.')),
            format!("A value that is none of these: {}.", plain(setting.on_mistake.text()).trim_end_matches('.')),
            "On a namespace or a pod template; the pod wins.".to_owned(),
        ],
        fix: None,
        example: Some(format!("metadata:\n  annotations:\n    {}: \"{}\"", setting.annotation, setting.example)),
    }
}
