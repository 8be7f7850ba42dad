//! The reference pages say what the code says: docs/errors.md is made from the enum of outcomes, docs/annotations.md from
//! the table of settings and the codes of the injector, docs/metrics.md from what each process registers.

use std::fmt::Write as _;
use std::fs;

use mesh_e2e::sources::root;
use mesh_injector::events::Events;
use mesh_injector::reason::Code;
use mesh_injector::reconcile;
use mesh_injector::server::Injections;
use mesh_injector::settings::table::{SETTINGS, Target};
use mesh_proto::names;
use mesh_proto::outcome::Outcome;
use mesh_proxy::metrics::EDGE;
use mesh_runtime::metrics::{Described, Metrics};

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
fn the_page_of_metrics_is_what_the_processes_register() {
    holds("docs/metrics.md", &metrics_page());
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
         The code is in the column REASON of `meshctl list`, in the label `reason` of the metric `injection_total`, in the audit\n\
         annotation of the API server, and the reason of the Event on the pod's owner (`kubectl events`). Refusals are told at\n\
         `kubectl apply` too, as a warning: a pod that cannot be meshed is still a pod, and policy treats it as outside the\n\
         mesh. `meshctl list` also says `restart-needed`: the pod is older than the label, and would get a sidecar if it were\n\
         created now, or no webhook answered then. The injector looks for such pods every 30 seconds: `uninjected_pods` counts\n\
         them, and each has an Event that says so.\n\n\
         | code | what it means | what to do |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        let _ = writeln!(page, "| `{}` | {} | {} |", code.as_str(), code.text(), code.fix().unwrap_or_default());
    }
    page
}

fn metrics_page() -> String {
    let process = Metrics::new().described();
    let of = |all: Vec<Described>| -> Vec<Described> {
        all.into_iter().filter(|family| !process.contains(family)).collect()
    };
    let (edges, others): (Vec<_>, Vec<_>) =
        of(mesh_proxy::families::described()).into_iter().partition(|family| family.labels.starts_with(&EDGE));
    let controller = Metrics::new();
    mesh_controller::metrics::Metrics::new(&controller);
    let injector = Metrics::new();
    Events::nowhere().register(&injector);
    reconcile::Counts::default().register(&injector);
    Injections::default().register(&injector);

    let mut page = String::from(
        "# Metrics\n\n\
         Every process serves OpenMetrics at `/metrics` of its admin port: a proxy on 4191, controller and injector on 9990.\n\
         Made from what the processes register; a test keeps it true, and another one compares it with what a real proxy\n\
         shows.\n\n\
         ## Every process\n\n",
    );
    table(&mut page, &process, 0);
    let _ = write!(
        page,
        "\n## Proxy: traffic\n\n\
         Counted per edge, with the labels `{}`.\n\n\
         | label | what |\n|---|---|\n\
         | `direction` | `inbound`, `outbound` |\n\
         | `dst_namespace`, `dst_service`, `dst_workload` | outbound: what was dialled, and what owns the pod that was picked |\n\
         | `dst_port` | the port that was dialled: of the Service outbound, of the pod inbound |\n\
         | `client_id` | inbound: the client's SPIFFE id, where it was proved |\n\
         | `tls` | `true` where both proxies spoke mutual TLS |\n\n\
         A series is made when there is something to count, and all edges together have a budget of 800 (`MESH_MAX_SERIES` in\n\
         the sidecar's environment): 16 for an edge with requests, and one for each status; 4 for one with opaque connections,\n\
         and one or two for their ends. There are at most 200 edges per direction, and 24 pairs of statuses per edge. What\n\
         comes past that is counted in an edge, or status, named `other`: nothing is lost but its name, and\n\
         `metrics_folded_total` says how often. All other labels come from fixed lists. So a page has fewer than 1000 series,\n\
         whatever clients send. The families below have these labels and those that stand in the table.\n\n",
        EDGE.join("`, `"),
    );
    table(&mut page, &edges, EDGE.len());
    page.push_str("\n## Proxy: itself\n\n");
    table(&mut page, &others, 0);
    page.push_str(
        "\n`code` is explained in [errors.md](errors.md), limits in [limits.md](limits.md), traces and the access log in\n\
         [telemetry.md](telemetry.md).\n\n\
         ## Controller\n\n",
    );
    table(&mut page, &of(controller.described()), 0);
    page.push_str("\n## Injector\n\n");
    table(&mut page, &of(injector.described()), 0);
    page.push_str(COMING_FROM_LINKERD);
    page
}

/// A table of families; of their labels, the first `known` are said elsewhere.
fn table(page: &mut String, families: &[Described], known: usize) {
    page.push_str("| family | type | labels | what |\n|---|---|---|---|\n");
    for Described { name, kind, labels, help } in families {
        assert!(!help.is_empty(), "{name} has no description");
        let labels: Vec<_> = labels[known..].iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
}

const COMING_FROM_LINKERD: &str = "
## Coming from Linkerd

A family that means the same has the same name, so that dashboards and alerts move over. What differs:

| Linkerd | here |
|---|---|
| `request_total`, `response_total`, `response_latency_ms` | the same; `direction` and `tls` too, `tls` is `true` or `false`. No label `authority`, `deployment`, `pod`: the client may choose the first, and the others are in `proxy_info`, to join with. Of a destination there are `dst_namespace`, `dst_service`, `dst_port`, `dst_workload`. Fewer buckets |
| `tcp_open_total`, `tcp_open_connections`, `tcp_close_total`, `tcp_read_bytes_total`, `tcp_write_bytes_total` | the same for opaque connections. Connections that carry HTTP are not in them: their requests are counted, and all connections held are in `proxy_connections`. `tcp_close_total` has `classification` instead of `errno` |
| `control_identity_cert_expiration_timestamp_seconds`, `control_identity_cert_refreshes_total` | the same; `control_identity_cert_failures_total` says why there is no new one |
| `inbound_http_errors_total`, `outbound_http_errors_total`, `inbound_tcp_errors_total`, `outbound_tcp_errors_total` | `mesh_error_total` by `direction` and `code`; each code is a page of `meshctl explain` |
| `inbound_http_authz_deny_total`, `inbound_tcp_authz_deny_total`, `inbound_http_route_not_found_total` | `mesh_error_total` with the codes `denied`, `no-route` |
| `outbound_http_route_retry_requests_total` | `request_retry_total` |
| `outbound_http_balancer_endpoints` | `meshctl diagnostics endpoints`, with the load of each |
| `control_request_total`, `control_response_total` | `controller_connected`, `controller_connects_total`, `policy_rejected_total`: it is one stream |
| `proxy_build_info` | `mesh_build_info`, of every process |
| `process_*` | the same |
| `proxy_inject_admission_responses_total` | `injection_total` by `result` and `reason` |
| `issuer_cert_ttl_seconds` | `mesh_controller_issuer_not_after_timestamp_seconds` |
| `route_*`, `stack_*`, `tokio_rt_*`, `rustls_info`, `*_frame_size_bytes`, `*_detect_*` | none |
";
