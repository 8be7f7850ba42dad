//! The Helm chart in `deploy/chart`: the same templates with Helm's way of writing a value. Made by a test, which also keeps it
//! true, so that there is one source; no other program of ours knows Helm.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use super::{DEFAULTS, TEMPLATES, Values, render, values::flatten};

/// What the chart consists of, by path.
fn chart() -> BTreeMap<String, String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut files = BTreeMap::from([
        (
            "Chart.yaml".to_owned(),
            format!(
                "# Made from deploy/ by `just docs`.\napiVersion: v2\nname: mesh\ndescription: The control plane of the mesh\n\
                 type: application\nversion: {version}\nappVersion: {version}\nkubeVersion: \">=1.29.0-0\"\n"
            ),
        ),
        (
            "values.yaml".to_owned(),
            DEFAULTS.replace("meshctl install --set", "helm --set").replace("${version}", version),
        ),
    ]);
    for template in TEMPLATES {
        let name = template.name.trim_start_matches("deploy/").replace('/', "-");
        let mut text = String::new();
        let mut rest = template.text;
        while let Some((before, (key, after))) = rest.split_once("${").and_then(|(a, b)| Some((a, b.split_once('}')?)))
        {
            text.push_str(&format!("{before}{{{{ .Values.{key} }}}}"));
            rest = after;
        }
        text.push_str(rest);
        if let Some(only) = template.only {
            text = format!("{{{{- if .Values.{only} }}}}\n{text}{{{{- end }}}}\n");
        }
        files.insert(format!("templates/{name}"), text);
    }
    files
}

/// What Helm would make of a template that has nothing but values and one condition.
fn helm(template: &str, values: &BTreeMap<String, String>) -> String {
    let value = |expression: &str| values[expression.trim().strip_prefix(".Values.").unwrap()].clone();
    let body = match template.strip_prefix("{{- if ") {
        Some(rest) => {
            let (condition, body) = rest.split_once(" }}\n").unwrap();
            if value(condition) != "true" {
                return String::new();
            }
            body.strip_suffix("{{- end }}\n").unwrap()
        }
        None => template,
    };
    let mut parts = body.split("{{");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let (expression, after) = part.split_once("}}").unwrap();
        text.push_str(&value(expression));
        text.push_str(after);
    }
    text
}

#[test]
fn the_chart_is_made_from_the_manifest() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart");
    for (name, text) in chart() {
        let path = folder.join(&name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(written == text, "deploy/chart/{name} differs: UPDATE_DOCS=1 cargo test -p meshctl the_chart_is_made");
    }
}

#[test]
fn what_the_chart_renders_is_what_is_installed() {
    let files = chart();
    for (ours, set) in [(Values::defaults(), None), (Values::of_every_part(), Some(("injector.evict", "true")))] {
        let tree: Value = serde_saphyr::from_str(&files["values.yaml"]).unwrap();
        let mut values = BTreeMap::new();
        flatten("", &tree, &mut values);
        values.extend(set.map(|(key, value): (&str, &str)| (key.to_owned(), value.to_owned())));
        let templates = files.iter().filter(|(name, _)| name.starts_with("templates/"));
        let documents = |text: &str| -> Vec<Value> { serde_saphyr::from_multiple(text).unwrap() };
        let sorted = |mut all: Vec<Value>| {
            all.retain(|document| !document.is_null());
            all.sort_by_key(|object| (object["kind"].to_string(), object["metadata"]["name"].to_string()));
            all
        };
        let rendered = templates.flat_map(|(_, template)| documents(&helm(template, &values))).collect();
        assert_eq!(sorted(rendered), sorted(documents(&render(&ours))));
    }
}
