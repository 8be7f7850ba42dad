//! Injection into text: the corpus as pods, and wrapped in every kind that has a pod template, with comments.

use mesh_injector::{
    decide::is_injected,
    manifest::{Outcome, inject, uninject},
    uninject as values,
};
use serde_json::Value;

use crate::corpus::{files, mesh, normal};

/// A pod's text inside an object of this kind, at a depth and with remarks around it.
fn wrapped(kind: &str, pod: &str) -> String {
    let indented = |spaces: usize| {
        let line = |line: &str| if line.is_empty() { String::new() } else { format!("{}{line}", " ".repeat(spaces)) };
        let body = pod.lines().filter(|line| !line.starts_with("apiVersion:") && !line.starts_with("kind:"));
        body.map(line).collect::<Vec<_>>().join("\n")
    };
    match kind {
        "Pod" if pod.contains("kind: Pod") => pod.to_owned(),
        "Pod" => format!("apiVersion: v1\nkind: Pod\n{pod}"),
        "CronJob" => format!(
            "# nightly\napiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: x}}\nspec:\n  schedule: \"0 0 * * *\"\n  jobTemplate:\n    spec:\n      template: # the pod\n{}\n  suspend: false # not now\n",
            indented(8)
        ),
        "List" => format!(
            "kind: List\nitems:\n- kind: Service\n  metadata: {{name: s}}\n- kind: Job\n  metadata:\n    name: x\n  spec:\n    template:\n{}\n",
            indented(6)
        ),
        kind => format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata:\n  name: x # its name\nspec:\n  template:\n{}\n  # after the template\n  replicas:   2\n",
            indented(4)
        ),
    }
}

/// The corpus in every wrapping: what it is, text.
fn texts() -> Vec<(String, String)> {
    let kinds = ["Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "List"];
    let files = files();
    let mut texts: Vec<(String, String)> = Vec::new();
    for kind in kinds {
        texts.extend(files.iter().map(|(name, text)| (format!("{kind} of {name}"), wrapped(kind, text))));
    }
    let all: Vec<String> = texts.iter().map(|(_, text)| text.clone()).collect();
    texts.push(("everything".into(), format!("# all\n---\n{}", all.join("---\n"))));
    let crlf: Vec<_> = texts.iter().map(|(name, text)| (format!("CRLF {name}"), text.replace('\n', "\r\n"))).collect();
    texts.extend(crlf);
    texts
}

fn pods(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let items =
        documents.into_iter().flat_map(|d| d.get("items").and_then(Value::as_array).cloned().unwrap_or(vec![d]));
    let paths = ["/spec/jobTemplate/spec/template", "/spec/template"];
    let pod = |object: Value| paths.iter().find_map(|path| object.pointer(path).cloned()).unwrap_or(object);
    items.map(pod).filter(|pod| pod.pointer("/spec/containers").is_some()).collect()
}

#[test]
fn uninject_gives_back_every_byte() {
    for (name, text) in texts() {
        let edited = inject(&name, &text, &mesh()).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        let changed = edited.report.iter().any(|report| report.outcome == Outcome::Injected);
        assert_eq!(changed, edited.text != text, "{name}");
        assert!(!edited.report.is_empty(), "{name}");
        let back = uninject(&name, &edited.text).unwrap();
        assert_eq!(back.text, text, "{name}");
    }
}

#[test]
fn the_text_means_the_pod_that_the_webhook_would_make() {
    for (name, text) in texts() {
        let edited = inject(&name, &text, &mesh()).unwrap();
        let injected = edited.report.iter().filter(|report| report.outcome == Outcome::Injected).count();
        let (before, after) = (pods(&text), pods(&edited.text));
        assert_eq!(after.iter().filter(|pod| is_injected(pod)).count(), injected, "{name}");
        for (before, after) in before.iter().zip(&after).filter(|(_, after)| is_injected(after)) {
            let names: Vec<_> =
                after["spec"]["initContainers"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
            assert_eq!(names[..2], ["mesh-proxy", "mesh-redirect"], "{name}");
            assert_eq!(normal(&values::uninject(after).unwrap().unwrap()), normal(before), "{name}");
        }
    }
}

#[test]
fn comments_stay_and_only_what_is_added_differs() {
    let (_, text) = texts().into_iter().find(|(name, _)| name == "Deployment of named-ports").unwrap();
    let edited = inject("web.yaml", &text, &mesh()).unwrap();
    insta::assert_snapshot!(edited.text);
    let report: Vec<String> = edited.report.iter().map(ToString::to_string).collect();
    assert_eq!(report, ["deployment/x injected"]);
    assert!(edited.report[0].warnings[0].contains("startupProbe of container api is left alone"));
}

#[test]
fn a_pod_that_the_webhook_injected_is_uninjected_as_text() {
    for (name, text) in files() {
        let pod: Value = serde_saphyr::from_str(&text).unwrap();
        let settings = mesh_injector::settings::Settings::default();
        if matches!(inject("", &wrapped("Pod", &text), &mesh()).unwrap().report[0].outcome, Outcome::Injected) {
            let mut with = mesh_injector::sidecar::inject(&pod, &mesh(), &settings).pod;
            with["kind"] = "Pod".into();
            let live = serde_saphyr::to_string(&with).unwrap();
            let mut back: Value = serde_saphyr::from_str(&uninject("live", &live).unwrap().text).unwrap();
            back.as_object_mut().unwrap().shift_remove("kind");
            let mut pod = pod;
            pod.as_object_mut().unwrap().shift_remove("kind");
            assert_eq!(normal(&back), normal(&pod), "{name}");
        }
    }
}

#[test]
fn what_cannot_be_edited_is_an_error_with_its_line_and_a_way_out() {
    let pod = "kind: Pod\nmetadata: {name: x}\nspec:\n";
    for (text, line, says) in [
        ("kind: Pod\nmetadata:\n  name: [\n".to_owned(), 3, "mend the YAML"),
        ("kind: Pod\nmetadata: {{ .Values.name }}:\n  x".to_owned(), 2, "mend the YAML"),
        ("kind: Pod\nspec: {containers: [{name: a}]}\n".to_owned(), 1, "flow style"),
        ("{\"kind\": \"Pod\", \"spec\": {\"containers\": []}}\n".to_owned(), 1, "flow style"),
        (format!("{pod}  containers:\n  - &a\n    name: x\n"), 6, "anchor"),
        (format!("x: &c [{{name: a}}]\n{pod}  containers: [1]\n  volumes: *c\n"), 1, "anchor"),
        (format!("{pod}  containers:\n  - name: x\n  volumes: ~\n"), 6, "write [] or {}"),
        (format!("{pod}  containers:\n  - name: x\n  volumes:\n  -\n    name: x\n"), 6, "unusual form"),
        ("a: ".repeat(500), 1, ""),
        (format!("a: {}", "[".repeat(5000)), 1, ""),
    ] {
        let error = inject("web.yaml", &text, &mesh()).expect_err(&text).to_string();
        assert!(error.starts_with(&format!("web.yaml:{line}: ")) && error.contains(says), "{text}: {error}");
    }
}

#[test]
fn a_text_cut_or_changed_anywhere_is_an_error_or_comes_back() {
    for (name, pod) in files().iter().filter(|(name, _)| name != "huge-env") {
        let text = wrapped("Deployment", pod);
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).step_by(89).collect();
        for at in places {
            let (before, after) = text.split_at(at);
            for changed in
                [before.to_owned(), format!("{before}{after}", after = &after[1..]), format!("{before}ü{after}")]
                    .into_iter()
                    .chain(["\n", "- ", "{", "]", "#", "\t", "&a "].map(|odd| format!("{before}{odd}{after}")))
            {
                if let Ok(edited) = inject(name, &changed, &mesh()) {
                    assert_eq!(uninject(name, &edited.text).unwrap().text, changed, "{name} at {at}");
                }
            }
        }
    }
}

#[test]
fn a_namespace_in_the_same_text_is_heard_and_other_objects_are_left_alone() {
    let text = "kind: Namespace\nmetadata:\n  name: shop\n  labels: {pod-security.kubernetes.io/enforce: baseline}\n---\n\
                kind: ConfigMap\nmetadata: {name: x}\n---\n\
                kind: Pod\nmetadata:\n  name: web\n  namespace: shop\nspec:\n  containers:\n  - name: web\n";
    let edited = inject("shop.yaml", text, &mesh()).unwrap();
    assert_eq!(edited.text, text);
    assert_eq!(edited.report.len(), 1);
    let Outcome::Refused(reason) = &edited.report[0].outcome else { panic!("{:?}", edited.report) };
    assert_eq!(reason.code(), "pod-security-forbids-redirect");
    let again =
        inject("x", &inject("x", &text.replace("baseline", "privileged"), &mesh()).unwrap().text, &mesh()).unwrap();
    assert!(again.report[0].to_string().contains("(already-injected)"));
}
