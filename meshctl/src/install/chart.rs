//! The Helm chart in `deploy/chart`: the same templates with Helm's way of writing a value. Made by a test, which also keeps it
//! true, so that there is one source; no other program of ours knows Helm.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use super::{DEFAULTS, Profile, RELEASE, TEMPLATES, Values, When, render, values::flatten};

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
            text.push_str(before);
            let value = format!("{{{{ .Values.{key} }}}}");
            text.push_str(if key == RELEASE { version } else { &value });
            rest = after;
        }
        text.push_str(rest);
        let condition = match template.when {
            When::Always => None,
            When::True(key) => Some(format!(".Values.{key}")),
            When::Several(key) => Some(format!("gt (int .Values.{key}) 1")),
        };
        if let Some(condition) = condition {
            text = format!("{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n");
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
            let number = condition.strip_prefix("gt (int ").and_then(|rest| rest.strip_suffix(") 1"));
            let holds = match number {
                Some(number) => value(number).parse::<u8>().unwrap() > 1,
                None => value(condition) == "true",
            };
            if !holds {
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
    let every = Values::of_every_part();
    let every = every.keys().into_iter().map(|key| (key.to_owned(), every.get(key).to_owned())).collect();
    let chosen = |profile: Profile| {
        let chosen = Values::defaults().highly_available().profile(profile);
        chosen.keys().into_iter().map(|key| (key.to_owned(), chosen.get(key).to_owned())).collect()
    };
    let sets: [BTreeMap<String, String>; 5] =
        [BTreeMap::new(), every, chosen(Profile::Permissive), chosen(Profile::Authenticated), chosen(Profile::Deny)];
    for set in sets {
        let ours = set.iter().try_fold(Values::defaults(), |all, (key, value)| all.set(key, value)).unwrap();
        let tree: Value = serde_saphyr::from_str(&files["values.yaml"]).unwrap();
        let mut values = BTreeMap::new();
        flatten("", &tree, &mut values);
        values.extend(set);
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
