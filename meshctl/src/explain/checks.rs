//! Pages of the checks.

use super::{About, Page};
use crate::check::{Category, Check};

pub(super) fn pages() -> Vec<Page> {
    Check::ALL.into_iter().map(page).collect()
}

fn page(check: Check) -> Page {
    let facts = check.facts();
    let (command, of) = match facts.category {
        Category::Prerequisites if check == Check::PlaygroundRuns => {
            ("meshctl check --pre --playground", "this machine, before a playground")
        }
        Category::Prerequisites => ("meshctl check --pre", "a cluster, before the mesh is installed"),
        Category::Manifests => ("meshctl check -f FILE", "manifests, without a cluster"),
        Category::Identity | Category::DataPlane | Category::Workloads => ("meshctl check --proxy", "a running mesh"),
        _ => ("meshctl check", "a running mesh"),
    };
    let mut title = facts.title.to_owned();
    if let Some(first) = title.get(..1).map(str::to_uppercase) {
        title.replace_range(..1, &first);
    }
    Page {
        name: facts.id.to_owned(),
        about: About::Check,
        summary: format!("{title}: that is checked of {of}."),
        details: vec![facts.why.to_owned()],
        fix: Some(facts.fix.to_owned()),
        example: Some(format!("{command} -o short")),
    }
}
