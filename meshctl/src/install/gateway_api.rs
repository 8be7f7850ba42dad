//! The definition of HTTPRoute that `--set gatewayApi.install=true` brings: whether it may be put where there is one already. Pure;
//! called by the commands that apply, for which it is the one object of the manifest that others may have brought before.
//!
//! Its file is the Gateway API's own, without the descriptions: with them it is too large for the annotation that `kubectl apply`
//! leaves. A test makes it, and keeps it true.

use serde_json::Value;

use super::objects::{Object, is_ours};

const GROUP: &str = ".gateway.networking.k8s.io";
const VERSION: &str = "/metadata/annotations/gateway.networking.k8s.io~1bundle-version";

/// Whether this is a definition of the Gateway API. Routes of everybody go with it, so that the mesh never removes one.
pub(crate) fn is_definition(object: &Object) -> bool {
    object.kind() == "CustomResourceDefinition" && object.name().ends_with(GROUP)
}

/// Why a definition that a cluster has is not replaced; none where it may be.
pub(crate) fn keeps(live: &Value, ours: &Object) -> Option<String> {
    let name = ours.name();
    let (there, here) = (version(live), version(&ours.0));
    let said = |value: &Value| value.pointer(VERSION).and_then(Value::as_str).unwrap_or("of no release").to_owned();
    if !is_ours(live) {
        return Some(format!("{name} is there already ({}), and not of the mesh: it stays", said(live)));
    }
    let newer = there.zip(here).is_some_and(|(there, here)| there > here);
    newer.then(|| format!("{name} is there already, and newer ({} than {}): it stays", said(live), said(&ours.0)))
}

/// `v1.5.1` as numbers; none where it is not of this shape. What comes before a release is taken for it.
fn version(definition: &Value) -> Option<(u32, u32, u32)> {
    let text = definition.pointer(VERSION)?.as_str()?.strip_prefix('v')?;
    let mut parts = text.split(['.', '-']).map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use mesh_proto::names;
    use serde_json::json;

    use super::*;

    const FILE: &str = include_str!("../../../deploy/gateway-api/httproutes.yaml");
    const NAME: &str = "gateway.networking.k8s.io_httproutes.yaml";
    /// Most that the API server keeps of an object's annotations, in bytes; `kubectl apply` puts the whole object there.
    const ANNOTATIONS: usize = 262_144;

    /// Without what only people read. A field may be called `description`, then it is no text.
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|key, value| key != "description" || !value.is_string());
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }

    fn made_from(upstream: &str) -> String {
        let mut definition: Value = serde_saphyr::from_str(upstream).unwrap();
        strip(&mut definition);
        definition["metadata"]["labels"] = json!({names::LABEL_PART_OF: names::PART_OF});
        definition["metadata"]["annotations"]["helm.sh/resource-policy"] = "keep".into();
        let release = definition.pointer(VERSION).unwrap().as_str().unwrap();
        format!(
            "# The definition of HTTPRoute, without its descriptions. Made by `just gateway-api` from sigs.k8s.io/gateway-api {release},\n\
             # Copyright The Kubernetes Authors, Apache License 2.0. Rendered only where gatewayApi.install is true.\n{}",
            serde_saphyr::to_string(&definition).unwrap()
        )
    }

    /// `GATEWAY_API_CRDS` is the folder of the standard channel's definitions: `just gateway-api` sets it, and `UPDATE_DOCS`.
    #[test]
    fn the_gateway_api_definition_is_made_from_its_release() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/gateway-api/httproutes.yaml");
        if let Some(folder) = env::var_os("GATEWAY_API_CRDS") {
            let made = made_from(&fs::read_to_string(Path::new(&folder).join(NAME)).unwrap());
            if env::var_os("UPDATE_DOCS").is_some() {
                fs::write(&path, &made).unwrap();
            }
            assert!(fs::read_to_string(&path).unwrap() == made, "run `just gateway-api`");
        }
        let text = fs::read_to_string(&path).unwrap();
        let definition: Value = serde_saphyr::from_str(&text).unwrap();
        let mut stripped = definition.clone();
        strip(&mut stripped);
        assert_eq!(stripped, definition, "nothing that only people read");
        assert!(definition.to_string().len() < ANNOTATIONS / 2, "{}", definition.to_string().len());
        assert!(!text.contains("{{") && !text.contains("${"), "no template of anybody's");
        let module = fs::read_to_string(path.with_file_name("../../e2e/cluster/gateway-api/go.mod")).unwrap();
        let release = definition.pointer(VERSION).unwrap().as_str().unwrap();
        assert!(
            module.contains(&format!("sigs.k8s.io/gateway-api {release}\n")),
            "tested with another release: {release}"
        );
    }

    #[test]
    fn what_others_have_brought_and_what_is_newer_stays() {
        let ours = Object(serde_saphyr::from_str(FILE).unwrap());
        assert!(is_definition(&ours));
        let live = |labels: Value, version: &str| json!({"metadata": {"labels": labels, "annotations": {"gateway.networking.k8s.io/bundle-version": version}}});
        let mesh = || json!({names::LABEL_PART_OF: names::PART_OF});
        for (live, says) in [
            (live(mesh(), "v1.4.9"), None),
            (live(mesh(), "v1.5.1"), None),
            (live(mesh(), "v1.10.0"), Some("and newer (v1.10.0 than v1.5.1)")),
            (live(json!({}), "v1.2.0"), Some("(v1.2.0), and not of the mesh")),
            (json!({"metadata": {}}), Some("(of no release), and not of the mesh")),
        ] {
            let keeps = keeps(&live, &ours);
            assert_eq!(keeps.is_some(), says.is_some(), "{live} {keeps:?}");
            assert!(keeps.is_none_or(|text| text.contains(says.unwrap_or_default())), "{live}");
        }
    }
}
