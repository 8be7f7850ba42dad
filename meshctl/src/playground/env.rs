//! What a container is started with: its environment and its command line, as the kubelet would resolve them. Pure.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

use super::addresses::NODE;

/// Names and values, later ones win.
pub(crate) type Environment = BTreeMap<String, String>;

/// The container's variables with fields of the pod and `$(NAME)` filled in.
pub(crate) fn environment(pod: &Pod, container: &Container, address: Ipv4Addr) -> anyhow::Result<Environment> {
    let mut resolved = Environment::new();
    for variable in container.env.iter().flatten() {
        let value = value(pod, variable, address, &resolved)
            .with_context(|| format!("variable {} of container {}", variable.name, container.name))?;
        if let Some(value) = value {
            resolved.insert(variable.name.clone(), value);
        }
    }
    Ok(resolved)
}

fn value(pod: &Pod, variable: &EnvVar, address: Ipv4Addr, before: &Environment) -> anyhow::Result<Option<String>> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or(""), before)));
    };
    if let Some(reference) = &source.field_ref {
        return field(pod, &reference.field_path, address).map(Some);
    }
    let optional = source
        .config_map_key_ref
        .as_ref()
        .and_then(|reference| reference.optional)
        .or_else(|| source.secret_key_ref.as_ref().and_then(|reference| reference.optional));
    if optional == Some(true) {
        return Ok(None);
    }
    bail!("the playground has no ConfigMap, Secret or resource to take it from")
}

/// A field of the pod, by the paths of the downward API.
fn field(pod: &Pod, path: &str, address: Ipv4Addr) -> anyhow::Result<String> {
    let metadata = &pod.metadata;
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let entry = |map: Option<&BTreeMap<String, String>>, key: &str| text(map.and_then(|map| map.get(key)));
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return match map {
            "metadata.labels" => Ok(entry(metadata.labels.as_ref(), key)),
            "metadata.annotations" => Ok(entry(metadata.annotations.as_ref(), key)),
            _ => bail!("there is no field {path}"),
        };
    }
    let spec = pod.spec.as_ref();
    Ok(match path {
        "metadata.name" => text(metadata.name.as_ref()),
        "metadata.namespace" => text(metadata.namespace.as_ref()),
        "metadata.uid" => text(metadata.uid.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.podIP" | "status.podIPs" => address.to_string(),
        "status.hostIP" | "status.hostIPs" => NODE.to_string(),
        _ => bail!("there is no field {path}"),
    })
}

/// The program and its arguments: `command` replaces what the image would run, `args` follow.
pub(crate) fn command_line(container: &Container, image_runs: &str, environment: &Environment) -> Vec<String> {
    let command = container.command.clone().filter(|command| !command.is_empty());
    let mut words = command.unwrap_or_else(|| vec![image_runs.to_owned()]);
    words.extend(container.args.iter().flatten().cloned());
    words.iter().map(|word| expand(word, environment)).collect()
}

/// The program that an image runs, by the image's name without registry, tag and digest: `x/mesh-proxy:dev` is
/// `mesh-proxy`. Images are not pulled.
pub(crate) fn image_program(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split(['@', ':']).next().unwrap_or(name)
}

/// `$(NAME)` becomes the variable's value; an unknown one stays, `$$` is a dollar sign (as Kubernetes).
fn expand(text: &str, environment: &Environment) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            match environment.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&rest[at..rest.len() - tail.len()]),
            }
            rest = tail;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 9);

    fn pod(container: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u-1", "labels": {"app": "web"}},
            "spec": {"serviceAccountName": "web", "nodeName": "playground", "containers": [container]},
        }))
        .unwrap()
    }

    fn resolve(env: serde_json::Value) -> anyhow::Result<Environment> {
        let pod = pod(json!({"name": "c", "env": env}));
        environment(&pod, &pod.spec.as_ref().unwrap().containers[0], ADDRESS)
    }

    #[test]
    fn fields_of_the_pod_are_filled_in() {
        for (path, expected) in [
            ("metadata.name", "web-1"),
            ("metadata.namespace", "shop"),
            ("metadata.uid", "u-1"),
            ("metadata.labels['app']", "web"),
            ("metadata.annotations['none']", ""),
            ("spec.serviceAccountName", "web"),
            ("status.podIPs", "10.244.0.9"),
        ] {
            let env = resolve(json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}])).unwrap();
            assert_eq!(env["A"], expected, "{path}");
        }
        let error = resolve(json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}])).unwrap_err();
        assert_eq!(format!("{error:#}"), "variable A of container c: there is no field spec.x");
    }

    #[test]
    fn variables_refer_to_earlier_ones_and_secrets_are_refused_unless_optional() {
        let env = resolve(json!([
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(LATER)-$$(A)-$A-$"},
            {"name": "LATER", "value": "x"},
        ]))
        .unwrap();
        assert_eq!(env["B"], "1-$(LATER)-$(A)-$A-$");
        let secret = |optional| json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": optional}}}]);
        assert!(resolve(secret(false)).is_err());
        assert!(resolve(secret(true)).unwrap().is_empty());
    }

    #[test]
    fn the_command_line_is_the_image_s_unless_the_container_has_one() {
        let line = |container: serde_json::Value| {
            let container: Container = serde_json::from_value(container).unwrap();
            command_line(&container, "mesh-shop", &Environment::from([("X".to_owned(), "y".to_owned())]))
        };
        assert_eq!(line(json!({"name": "c", "args": ["web", "--x=$(X)"]})), ["mesh-shop", "web", "--x=y"]);
        assert_eq!(
            line(json!({"name": "c", "command": ["mesh-proxy", "run"], "args": ["-v"]})),
            ["mesh-proxy", "run", "-v"]
        );
        assert_eq!(image_program("registry.example:5000/x/mesh-proxy:dev@sha256:0"), "mesh-proxy");
        assert_eq!(image_program("mesh-shop"), "mesh-shop");
    }
}
