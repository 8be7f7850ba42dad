//! Pods and templates of pods in the files, whatever owns them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::commands::inject::Input;

/// A pod, or a template of pods.
pub(super) struct Template<'a> {
    /// The file that it is in, and what that says.
    pub(super) file: &'a str,
    pub(super) text: &'a str,
    /// Its owner, or itself.
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Ports that its containers declare.
    pub(super) ports: Vec<u16>,
    /// `metadata` and `spec`.
    pub(super) pod: Value,
}

/// What cannot be read has been told by the controller's parser, for the kinds that matter to it.
pub(super) fn read(files: &[Input]) -> Vec<Template<'_>> {
    let mut pods = Vec::new();
    for file in files {
        for document in serde_saphyr::from_multiple::<Value>(&file.text).unwrap_or_default() {
            match document["items"].as_array() {
                Some(items) => pods.extend(items.iter().filter_map(|item| template(file, item))),
                None => pods.extend(template(file, &document)),
            }
        }
    }
    pods
}

fn template<'a>(file: &'a Input, object: &Value) -> Option<Template<'a>> {
    let kind = object["kind"].as_str()?;
    let pod = match kind {
        "Pod" => object,
        "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => &object["spec"]["template"],
    };
    let containers = pod["spec"]["containers"].as_array()?;
    let declared = containers.iter().flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    Some(Template {
        file: &file.name,
        text: &file.text,
        kind: kind.to_owned(),
        name: text("name").unwrap_or_default(),
        namespace: text("namespace").unwrap_or_else(|| "default".to_owned()),
        labels: serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default(),
        ports: declared.filter_map(|port| port["containerPort"].as_u64()?.try_into().ok()).collect(),
        pod: pod.clone(),
    })
}
