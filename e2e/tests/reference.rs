//! The reference pages say what the code says: docs/errors.md is made from the enum of outcomes, docs/metrics.md names
//! every family.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use mesh_e2e::sources::{self, root};
use mesh_proto::outcome::Outcome;

#[test]
fn the_page_of_errors_is_the_enum_of_outcomes() {
    let page = root().join("docs/errors.md");
    let expected = errors_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, &expected).expect("write docs/errors.md");
        return;
    }
    let written = fs::read_to_string(&page).expect("docs/errors.md");
    assert_eq!(written, expected, "write it anew: UPDATE_DOCS=1 cargo test -p mesh-e2e --test reference");
}

#[test]
fn the_page_of_metrics_names_every_family() {
    let page = fs::read_to_string(root().join("docs/metrics.md")).expect("docs/metrics.md");
    let named: BTreeSet<&str> = page.split('`').skip(1).step_by(2).collect();
    let mut families = BTreeSet::new();
    for source in sources::all() {
        let code = source.text.split_once("mod tests {").map_or(source.text.as_str(), |(code, _)| code);
        for call in ["registry.register(", ".encode_descriptor("] {
            for arguments in code.split(call).skip(1) {
                if let Some(name) = arguments.trim_start().strip_prefix('"').and_then(|name| name.split('"').next()) {
                    families.insert(name.to_owned());
                }
            }
        }
    }
    assert!(families.len() > 20, "only {families:?} found: does this test still read the code rightly?");
    let missing: Vec<_> = families.iter().filter(|family| !named.iter().any(|name| is_of(name, family))).collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");
}

/// Whether `name`, as scraped, is the family that the code calls `family`: maybe with a prefix, and with the suffix of its type.
fn is_of(name: &str, family: &str) -> bool {
    let name = name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name);
    name == family || name.ends_with(&format!("_{family}"))
}

fn errors_page() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         Every answer that the mesh makes itself carries `mesh-error: CODE`; the same code stands in the metric\n\
         `mesh_error_total`, in the log and in `meshctl tap`. Made from `proto/src/outcome.rs`; a test keeps it true.\n",
    );
    for outcome in Outcome::ALL {
        let facts = outcome.facts();
        let retry = if facts.retry_safe { "yes" } else { "no" };
        let _ = write!(
            page,
            "\n## {}\n\n{}\n\n{}\n\n\
             | HTTP | gRPC | cause lies with | safe to retry |\n|---|---|---|---|\n| {} | {} | {} | {retry} |\n",
            facts.code,
            facts.text,
            facts.fix,
            facts.http_status,
            facts.grpc_status,
            facts.side.as_str(),
        );
    }
    page
}
