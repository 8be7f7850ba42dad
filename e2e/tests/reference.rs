//! The reference pages say what the code says: docs/errors.md is made from the enum of outcomes, docs/annotations.md from
//! the table of settings and the codes of the injector, docs/metrics.md names every family.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use mesh_e2e::sources::{self, root};
use mesh_injector::reason::Code;
use mesh_injector::settings::table::{SETTINGS, Target};
use mesh_proto::names;
use mesh_proto::outcome::Outcome;

#[test]
fn the_page_of_errors_is_the_enum_of_outcomes() {
    holds("docs/errors.md", &errors_page());
}

#[test]
fn the_page_of_annotations_is_the_table_of_settings() {
    holds("docs/annotations.md", &annotations_page());
}

#[test]
fn every_variable_that_a_setting_writes_is_read() {
    for setting in SETTINGS {
        let Some(variable) = setting.target.env() else { continue };
        let names = fs::read_to_string(root().join("proto/src/names.rs")).expect("names.rs");
        let declared = names.lines().find(|line| line.contains(&format!("\"{variable}\"")));
        let constant = declared.and_then(|line| line.split(&[' ', ':'][..]).nth(2)).expect("a constant");
        let reader = match setting.target {
            Target::Sidecar(_) => "controller/src/index/pods.rs",
            _ => "proxy/src/config/env.rs",
        };
        let code = fs::read_to_string(root().join(reader)).expect(reader);
        assert!(
            code.contains(&format!("names::{constant}")),
            "{reader} does not read {variable}: {}",
            setting.annotation
        );
    }
}

/// Compares a page with what it must be, or writes it.
fn holds(name: &str, expected: &str) {
    let page = root().join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, expected).expect("write the page");
        return;
    }
    let written = fs::read_to_string(&page).unwrap_or_default();
    assert_eq!(written, expected, "write {name} anew: UPDATE_DOCS=1 cargo test -p mesh-e2e --test reference");
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

fn annotations_page() -> String {
    let mut page = format!(
        "# Labels and annotations\n\n\
         Made from `injector/src/settings/table.rs` and `injector/src/reason.rs`; a test keeps it true.\n\n\
         ## The label\n\n\
         `{label}: {enabled}` on a namespace gives every new pod in it a sidecar. On a pod template it does so for that\n\
         workload alone, and `{label}: {disabled}` there keeps the workload out of the mesh: the pod wins. It takes effect\n\
         when a pod is created, so restart what runs: `kubectl rollout restart deployment/NAME`.\n\n\
         ## Where an annotation is written\n\n\
         Every annotation below may stand on a namespace, on a workload and on a bare pod, and the nearest wins, setting by\n\
         setting: pod, then namespace, then the default of the mesh. *On a workload* means in the metadata of its pod\n\
         template (`spec.template.metadata.annotations` of a Deployment, `spec.jobTemplate.spec.template.metadata` of a\n\
         CronJob): Kubernetes copies these to the pods, and the webhook sees a pod and its namespace, nothing else. What\n\
         stands in the metadata of the Deployment itself has no effect, and `meshctl inject` says so.\n\n\
         A name under `{group}/` that is not known, or a value that cannot be, is a warning at `kubectl apply` and in\n\
         `meshctl inject`, with what was probably meant; the pod is created. What holds then is in the table: most\n\
         settings count as not written, and those that could open something fall back to their strictest value, also\n\
         where the namespace says otherwise.\n\n\
         ## Annotations\n",
        label = names::LABEL_INJECT,
        enabled = names::INJECT_ENABLED,
        disabled = names::INJECT_DISABLED,
        group = names::GROUP,
    );
    for setting in SETTINGS {
        let from = match setting.target {
            Target::Controller => "the controller, from pod and namespace; a change is in force at once".to_owned(),
            Target::Containers => "the kubelet, from the pod's spec".to_owned(),
            Target::Sidecar(variable) => {
                format!("the controller, from the pod, else from `{variable}` in its sidecar")
            }
            Target::Proxy(variable) => format!("the proxy, from `{variable}`"),
            Target::ProxyAndRedirect(variable) => format!("redirect, proxy and controller, from `{variable}`"),
        };
        let _ = write!(
            page,
            "\n### {}\n\n{}\n\n\
             | values | default | a wrong value | read by |\n|---|---|---|---|\n| {} | {} | {} | {from} |\n",
            setting.annotation,
            setting.doc,
            setting.values,
            setting.default,
            setting.on_mistake.text(),
        );
    }
    page.push_str(
        "\n## Why a pod has no sidecar\n\n\
         The code is in the column REASON of `meshctl list`, in the label `reason` of the metric `injection_total` and in the\n\
         audit annotation of the API server. Refusals are told at `kubectl apply` too, as a warning: a pod that cannot be\n\
         meshed is still a pod, and policy treats it as outside the mesh. `meshctl list` also says `restart-needed`: the pod\n\
         is older than the label, and would get a sidecar if it were created now.\n\n\
         | code | what it means | what to do |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        let _ = writeln!(page, "| `{}` | {} | {} |", code.as_str(), code.text(), code.fix().unwrap_or_default());
    }
    page
}
