//! Text, or a value, of one document -> an object of a kind, or where and why it is none. Pure; called by [`super`].

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::Path;
use serde_saphyr::DuplicateKeyPolicy;

use super::{Format, place};
use crate::source::{Kind, Object};

/// Why a text is not what it should be; the line counts from the start of the text.
pub(super) struct Fault {
    pub(super) line: u64,
    pub(super) reason: String,
}

pub(super) fn read_kind(kind: Kind, text: &str, format: Format) -> Result<Object, Fault> {
    Ok(match kind {
        Kind::Namespace => Object::Namespace(read_value_of(text, format)?),
        Kind::Pod => Object::Pod(Box::new(read_value_of(text, format)?)),
        Kind::Service => Object::Service(Box::new(read_value_of(text, format)?)),
        Kind::EndpointSlice => Object::EndpointSlice(read_value_of(text, format)?),
        Kind::HttpRoute => Object::HttpRoute(read_value_of(text, format)?),
        Kind::AuthorizationPolicy => {
            // YAML would read no spec at all as a spec without fields, which lets everyone in.
            if read_leniently::<Value>(text, format)?.get("spec").is_none_or(Value::is_null) {
                return Err(Fault { line: 1, reason: "`spec` has no value: say who may connect".into() });
            }
            Object::AuthorizationPolicy(read(text, format)?)
        }
    })
}

pub(super) fn value_kind(kind: Kind, value: &Value) -> Result<Object, Fault> {
    let read = || -> Result<Object, String> {
        Ok(match kind {
            Kind::Namespace => Object::Namespace(read_value(value)?),
            Kind::Pod => Object::Pod(Box::new(read_value(value)?)),
            Kind::Service => Object::Service(Box::new(read_value(value)?)),
            Kind::EndpointSlice => Object::EndpointSlice(read_value(value)?),
            Kind::HttpRoute => Object::HttpRoute(read_value(value)?),
            Kind::AuthorizationPolicy => Object::AuthorizationPolicy(read_value(value)?),
        })
    };
    read().map_err(|reason| Fault { line: 1, reason })
}

/// Reads a value; what is wrong names the field by its path.
fn read_value<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, String> {
    located(value).map_err(|(reason, _)| reason)
}

/// As [`read_value`], with the path by itself.
fn located<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, (String, Path)> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let reason = one_line(&error.inner().to_string());
        // A document without a field that it must have has no path; what we refuse ourselves names its field.
        let is_named = error.path().iter().next().is_none() || reason.starts_with('`');
        let reason = if is_named { reason } else { format!("{}: {reason}", error.path()) };
        (reason, error.path().clone())
    })
}

/// Reads a document of a type that Kubernetes or the Gateway API defines. YAML not as the type itself: that would be the reader
/// of YAML once more for each of their 220 types, a quarter of the program. What values do not tell, as whether a list was meant where
/// fields belong, does not matter in these.
fn read_value_of<T: DeserializeOwned>(text: &str, format: Format) -> Result<T, Fault> {
    if format == Format::Json {
        return read(text, format);
    }
    let mut value = read_with(text, format, DuplicateKeyPolicy::Error)?;
    quantities(&mut value);
    located(&value).map_err(|(reason, path)| Fault { line: place::line(text, &path), reason })
}

/// Reads a document as the type itself, which is the strictest. A reader of text knows the line of a fault, a reader of values
/// its field: of a field that does not fit both are told.
pub(super) fn read<T: DeserializeOwned>(text: &str, format: Format) -> Result<T, Fault> {
    read_with(text, format, DuplicateKeyPolicy::Error).map_err(|fault| {
        let value: Option<Value> = read_leniently(text, format).ok();
        match value.as_ref().map(read_value::<T>) {
            Some(Err(reason)) => Fault { reason, ..fault },
            // The text itself is at fault.
            Some(Ok(_)) | None => fault,
        }
    })
}

/// Reads past keys that are there twice, to tell what a document was meant to be.
pub(super) fn read_leniently<T: DeserializeOwned>(text: &str, format: Format) -> Result<T, Fault> {
    read_with(text, format, DuplicateKeyPolicy::LastWins)
}

fn read_with<T: DeserializeOwned>(text: &str, format: Format, twice: DuplicateKeyPolicy) -> Result<T, Fault> {
    match format {
        Format::Json => serde_json::from_str(text).map_err(|error| Fault {
            line: u64::try_from(error.line()).unwrap_or(1).max(1),
            reason: one_line(&error.to_string()),
        }),
        Format::Yaml => {
            // As values, `n` and `yes` would be booleans where a name is meant.
            let options = serde_saphyr::options! { duplicate_keys: twice, strict_booleans: true };
            serde_saphyr::from_str_with_options(text, options).map_err(|error| Fault {
                line: error.location().map_or(1, |location| location.line()).max(1),
                reason: one_line(&error.without_snippet().to_string()),
            })
        }
    }
}

/// A pod's `cpu: 1` is a quantity to an API server, which makes it text; a type of ours takes text only.
fn quantities(document: &mut Value) {
    for list in ["/spec/initContainers", "/spec/containers"] {
        let containers = document.pointer_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for amounts in ["/resources/requests", "/resources/limits"] {
                let amounts = container.pointer_mut(amounts).and_then(Value::as_object_mut);
                for (_, amount) in amounts.into_iter().flatten().filter(|(_, amount)| amount.is_number()) {
                    *amount = amount.to_string().into();
                }
            }
        }
    }
}

/// The first line of an error's text, without the place: that counts from the start of the document.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.rsplit_once(" at line ").map_or(line, |(reason, _)| reason);
    // A hint of the library to whoever calls it.
    line.split(", set DuplicateKeyPolicy").next().unwrap_or_default().chars().take(300).collect()
}

/// Splits at document markers, so that a syntax error ends with its own document. A marker is `---` at the start of a
/// line: within a block scalar a line is indented.
pub(super) fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    for (line, number) in text.split_inclusive('\n').zip(1_u64..) {
        let end = offset + line.len();
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.starts_with(char::is_whitespace) || rest.is_empty());
        if marker {
            documents.push((first_line, &text[start..offset]));
            (start, first_line) = (offset, number);
        }
        offset = end;
    }
    documents.push((first_line, &text[start..]));
    documents.retain(|(_, document)| {
        document.lines().any(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#') && line != "---"
        })
    });
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<u64> {
        documents(text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_value_of_a_wrong_type_is_named_by_field_and_line_in_yaml_and_json() {
        let yaml = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec:\n  rules:\n  - backendRefs:\n    - name: web\n      port: 80\n      weight: heavy\n";
        let reason = "spec.rules[0].backendRefs[0].weight: invalid type: string \"heavy\", expected i32";
        let fault = read_kind(Kind::HttpRoute, yaml, Format::Yaml).err().unwrap();
        assert_eq!((fault.line, fault.reason.as_str()), (9, reason));
        let value: Value = read_leniently(yaml, Format::Yaml).ok().unwrap();
        let json = serde_json::to_string_pretty(&value).unwrap();
        let fault = read_kind(Kind::HttpRoute, &json, Format::Json).err().unwrap();
        let line = json.lines().position(|line| line.contains("heavy")).unwrap() + 1;
        assert_eq!((fault.line, fault.reason.as_str()), (line as u64, reason));
        assert_eq!(value_kind(Kind::HttpRoute, &value).err().unwrap().reason, reason);
    }

    #[test]
    fn what_an_api_server_takes_for_a_quantity_is_one() {
        let text =
            "metadata: {name: a}\nspec:\n  containers:\n  - name: a\n    resources: {limits: {cpu: 1, memory: 64Mi}}\n";
        let Ok(Object::Pod(pod)) = read_kind(Kind::Pod, text, Format::Yaml) else { panic!("a pod") };
        let limits = pod.spec.unwrap().containers[0].resources.clone().unwrap().limits.unwrap();
        assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("1", "64Mi"));
        let label = "metadata:\n  name: a\n  labels:\n    version: 2\nspec: {}\n";
        let fault = read_kind(Kind::Service, label, Format::Yaml).err().unwrap();
        assert_eq!(
            (fault.line, fault.reason.starts_with("metadata.labels.version: invalid type: integer `2`")),
            (4, true)
        );
    }

    #[test]
    fn other_wrong_types_are_named_too() {
        for (kind, spec, reason) in [
            (Kind::Service, "{ports: {port: 80}}", "spec.ports: invalid type: map, expected a sequence"),
            (Kind::Service, "{ports: [{port: web}]}", "spec.ports[0].port: invalid type: string \"web\", expected i32"),
            (Kind::Pod, "{containers: web}", "spec.containers: invalid type: string \"web\", expected a sequence"),
            (Kind::AuthorizationPolicy, "{ports: [99999]}", "spec.ports[0]: invalid value: integer `99999`"),
            (Kind::AuthorizationPolicy, "{form: []}", "spec.form: unknown field `form`"),
        ] {
            let text = format!("metadata: {{name: a}}\nspec: {spec}\n");
            let fault = read_kind(kind, &text, Format::Yaml).err().unwrap();
            assert!(fault.reason.starts_with(reason), "{spec}: {}", fault.reason);
        }
    }

    #[test]
    fn documents_are_split_at_markers_and_know_their_lines() {
        for (text, expected) in [
            ("", vec![]),
            ("# only\n---\n\n", vec![]),
            ("a: 1", vec![1]),
            ("---\na: 1\n---\nb: 2\n", vec![1, 3]),
            ("a: 1\n--- # next\nb: 2\n", vec![1, 2]),
            ("a: |\n  ---\n  text\n", vec![1]),
            ("a: 1\n---b: 2\n", vec![1]),
            ("a: 1\r\n---\r\nb: 2\r\n", vec![1, 2]),
        ] {
            assert_eq!(lines(text), expected, "{text:?}");
        }
    }
}
