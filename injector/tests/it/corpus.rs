//! A corpus of pods in the style of well-known charts (`tests/corpus`), injected and taken back as values.

use std::path::{Path, PathBuf};

use mesh_injector::{
    decide::{Decision, Namespace, NamespaceMeta, Verdict, decide},
    patch,
    sidecar::{self, Mesh},
    uninject::uninject,
};
use serde_json::Value;

/// Every file of the corpus: name, text.
pub(crate) fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 20, "the corpus is there");
    let read =
        |path: PathBuf| (path.file_stem().unwrap().to_string_lossy().into(), std::fs::read_to_string(&path).unwrap());
    paths.into_iter().map(read).collect()
}

fn pods() -> Vec<(String, Value)> {
    files().into_iter().map(|(name, text)| (name, serde_saphyr::from_str(&text).unwrap())).collect()
}

/// A namespace that has opted in.
pub(crate) fn enabled() -> Namespace {
    let labels = [("meshctl.dev/inject".to_owned(), "enabled".to_owned())].into();
    Namespace { name: "shop".into(), meta: NamespaceMeta { labels, ..NamespaceMeta::default() } }
}

/// A mesh with everything set.
pub(crate) fn mesh() -> Mesh {
    Mesh {
        image: "mesh-proxy:test".into(),
        trust_bundle: Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()),
        socket_mark: Some(0x2102),
        ..Mesh::default()
    }
}

fn injected(pod: &Value) -> Option<(Value, Vec<String>)> {
    let Decision { verdict, mut warnings } = decide(pod, &enabled());
    let Verdict::Inject(settings) = verdict else { return None };
    let injected = sidecar::inject(pod, &mesh(), &settings);
    warnings.extend(injected.warnings);
    Some((injected.pod, warnings))
}

/// Empty lists and maps are absent to Kubernetes, and so is null.
pub(crate) fn normal(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), normal(value)));
            let empty = |value: &Value| {
                value.is_null()
                    || value.as_object().is_some_and(serde_json::Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty)
            };
            Value::Object(fields.filter(|(_, value)| !empty(value)).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(normal).collect()),
        other => other.clone(),
    }
}

fn names(pod: &Value, field: &str) -> Vec<String> {
    let list = pod["spec"][field].as_array().cloned().unwrap_or_default();
    list.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_verdict_on_each_pod_is_known() {
    let verdicts: Vec<String> = pods()
        .iter()
        .map(|(name, pod)| {
            let Decision { verdict, warnings } = decide(pod, &enabled());
            let verdict = match verdict {
                Verdict::Inject(_) => "inject".to_owned(),
                Verdict::Skip(reason) => format!("skip {}", reason.code()),
                Verdict::Refuse(reason) => format!("refuse {}", reason.code()),
            };
            std::iter::once(format!("{name}: {verdict}")).chain(warnings).collect::<Vec<_>>().join("\n    ")
        })
        .collect();
    insta::assert_snapshot!(verdicts.join("\n"));
}

#[test]
fn uninject_gives_back_what_was_injected() {
    for (name, pod) in pods() {
        let Some((with, _)) = injected(&pod) else {
            assert_eq!(uninject(&pod).unwrap(), None, "{name}");
            continue;
        };
        let without = uninject(&with).unwrap().expect("has a sidecar");
        assert_eq!(normal(&without), normal(&pod), "{name}");
        assert_eq!(uninject(&without).unwrap(), None, "{name}");
    }
}

#[test]
fn the_sidecar_and_the_redirect_come_before_the_users_init_containers() {
    for (name, pod) in pods() {
        let Some((with, _)) = injected(&pod) else { continue };
        let mut want = vec!["mesh-proxy".to_owned(), "mesh-redirect".to_owned()];
        want.extend(names(&pod, "initContainers"));
        assert_eq!(names(&with, "initContainers"), want, "{name}");
        assert_eq!(names(&with, "containers"), names(&pod, "containers"), "{name}");
    }
}

#[test]
fn an_injected_pod_is_left_alone() {
    for (name, pod) in pods() {
        let Some((with, _)) = injected(&pod) else { continue };
        assert!(
            matches!(decide(&with, &enabled()).verdict, Verdict::Skip(reason) if reason.code() == "already-injected"),
            "{name}"
        );
    }
}

#[test]
fn the_patch_of_each_pod_applies_and_only_adds_but_for_probes() {
    for (name, pod) in pods() {
        let Some((with, _)) = injected(&pod) else { continue };
        let patch = patch::diff(&pod, &with);
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(patched, with, "{name}");
        for operation in &patch.0 {
            let path = operation.path().to_string();
            let adds = matches!(operation, json_patch::PatchOperation::Add(_));
            let null = pod.pointer(&path).is_some_and(|old| old.is_null() || old.as_array().is_some_and(Vec::is_empty));
            assert!(adds || null || path.contains("Probe/"), "{name}: {operation}");
        }
    }
}

#[test]
fn the_patch_of_a_pod_with_init_containers_and_probes_is_this() {
    let (_, pod) = pods().into_iter().find(|(name, _)| name == "init-containers").unwrap();
    let (with, warnings) = injected(&pod).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    insta::assert_yaml_snapshot!(serde_json::to_value(patch::diff(&pod, &with)).unwrap());
}

#[test]
fn annotations_and_named_probes_reach_the_sidecar() {
    let pods = pods();
    let env = |wanted: &str| {
        let (_, pod) = pods.iter().find(|(name, _)| name == wanted).unwrap();
        let (with, warnings) = injected(pod).unwrap();
        let containers = with["spec"]["initContainers"].as_array().unwrap()[..2].to_vec();
        let shown: Vec<Value> = containers
            .iter()
            .map(|container| {
                let env = container["env"].as_array().unwrap().iter();
                let env: Vec<&Value> = env.filter(|entry| entry.get("value").is_some()).collect();
                serde_json::json!({"name": container["name"], "env": env, "resources": container["resources"]})
            })
            .collect();
        serde_json::json!({"warnings": warnings, "containers": shown})
    };
    insta::assert_yaml_snapshot!("annotated", env("annotated"));
    insta::assert_yaml_snapshot!("named_ports", env("named-ports"));
}
