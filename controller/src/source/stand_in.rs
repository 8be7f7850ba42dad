//! What stands for an object that could not be read and never was: the strictest that it may have meant.
//!
//! An object that was good before stays in force as it was; this is for those of which there is no good version. Only
//! kinds whose absence would let somebody in have a stand-in. Pure; called by [`super::manifest`] with whatever could
//! be read of the document. It does not know what is in force.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Namespace, Pod, PodIP, PodSpec, PodStatus, Service, ServiceSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use mesh_proto::{
    crd::{AuthorizationPolicy, AuthorizationPolicySpec, PodSelector, PolicyAction, PolicySource, TargetRef},
    inbound::DefaultPolicy,
    names,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Kind, Object, ObjectRef};

/// An object that stands in, and what that means in a sentence for people.
#[derive(Debug, Clone, PartialEq)]
pub struct StandIn {
    /// In force until the object can be read.
    pub object: Object,
    /// What is in force now.
    pub means: &'static str,
}

/// What stands for an unreadable object; an error says why nothing can, none that nothing needs to.
pub fn stand_in(object: &ObjectRef, read: &Value) -> Result<Option<StandIn>, &'static str> {
    match object.kind {
        Kind::AuthorizationPolicy => authorization(object, read).map(Some),
        Kind::Namespace => Ok(namespace(object, read)),
        Kind::Pod => Ok(Some(pod(object, read))),
        Kind::Service => Ok(service(object, read)),
        Kind::EndpointSlice | Kind::HttpRoute => Ok(None),
    }
}

/// Fields of an AuthorizationPolicy's spec.
const POLICY_FIELDS: [&str; 5] = ["targetRefs", "selector", "action", "ports", "from"];

/// A policy that lets nobody in, on the pods and ports that it names.
fn authorization(object: &ObjectRef, read: &Value) -> Result<StandIn, &'static str> {
    let Some(spec) = read.get("spec").and_then(Value::as_object) else {
        return Err("what it protects cannot be read, so it protects nothing");
    };
    let misspelt = spec.keys().any(|field| !POLICY_FIELDS.contains(&field.as_str()));
    let target_refs: Vec<TargetRef> = entries(spec, "targetRefs");
    let selector = spec.get("selector").and_then(selector);
    let whole_namespace = !spec.contains_key("targetRefs") && !spec.contains_key("selector") && !misspelt;
    if target_refs.is_empty() && selector.is_none() && !whole_namespace {
        return Err("what it protects cannot be read, so it protects nothing");
    }
    // A port that cannot be read may be any port.
    let ports: Vec<u16> = entries(spec, "ports");
    let written = spec.get("ports").and_then(Value::as_array).map_or(0, Vec::len);
    let ports = if ports.len() == written && !ports.contains(&0) { ports } else { Vec::new() };
    let allows = match spec.get("action") {
        Some(action) => action == "Allow",
        None => !misspelt,
    };
    let (action, from, means) = if allows {
        // An entry without clients matches nobody; without an entry it would be everyone.
        let nobody = vec![PolicySource::default()];
        (PolicyAction::Allow, nobody, "until it can be read it lets nobody in")
    } else {
        (PolicyAction::Deny, Vec::new(), "until it can be read it denies everyone")
    };
    let spec = AuthorizationPolicySpec { target_refs, selector, action, ports, from };
    let policy = AuthorizationPolicy { metadata: metadata(object), spec };
    Ok(StandIn { object: Object::AuthorizationPolicy(policy), means })
}

/// The entries of a list that can be read.
fn entries<T: serde::de::DeserializeOwned>(spec: &Map<String, Value>, field: &str) -> Vec<T> {
    let list = spec.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|entry| T::deserialize(entry).ok()).collect()
}

/// A selector whose every label can be read.
fn selector(read: &Value) -> Option<PodSelector> {
    let mut read = read.clone();
    let labels = read.get_mut("matchLabels").and_then(Value::as_object_mut);
    labels.into_iter().flat_map(Map::values_mut).for_each(as_text);
    PodSelector::deserialize(read).ok()
}

/// The value of a label: YAML takes a plain `1` or `true` for something else than text.
fn as_text(value: &mut Value) {
    if value.is_i64() || value.is_u64() || value.is_boolean() {
        *value = Value::String(value.to_string());
    }
}

/// The namespace with the default policy that it sets, or the strictest one if that cannot be told.
fn namespace(object: &ObjectRef, read: &Value) -> Option<StandIn> {
    let annotations = read.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let default = match annotations {
        None | Some(Value::Null) => return None,
        Some(Value::Object(annotations)) => match annotations.get(names::ANNOTATION_DEFAULT_POLICY)? {
            Value::String(text) => text.as_str(),
            _ => DefaultPolicy::Deny.as_str(),
        },
        Some(_) => DefaultPolicy::Deny.as_str(),
    };
    let annotations = BTreeMap::from([(names::ANNOTATION_DEFAULT_POLICY.to_owned(), default.to_owned())]);
    let metadata = ObjectMeta { annotations: Some(annotations), namespace: None, ..metadata(object) };
    let namespace = Namespace { metadata, ..Namespace::default() };
    Some(StandIn { object: Object::Namespace(namespace), means: "of it only the default policy is in force" })
}

/// A Service without ports, so that its addresses are not taken for a place outside the mesh, and with the pods that it
/// picks, so that policies about it still protect them.
fn service(object: &ObjectRef, read: &Value) -> Option<StandIn> {
    let spec = read.get("spec")?;
    let more = spec.get("clusterIPs").and_then(Value::as_array).into_iter().flatten();
    let ips = spec.get("clusterIP").into_iter().chain(more).filter_map(Value::as_str);
    let ips: Vec<String> = ips.map(str::to_owned).collect();
    let mut selector = spec.get("selector").and_then(Value::as_object).cloned().unwrap_or_default();
    selector.values_mut().for_each(as_text);
    let selector: Option<BTreeMap<String, String>> = Deserialize::deserialize(Value::Object(selector)).ok();
    if ips.is_empty() && selector.as_ref().is_none_or(BTreeMap::is_empty) {
        return None;
    }
    let spec = ServiceSpec { cluster_ips: Some(ips), selector, ..ServiceSpec::default() };
    let service = Service { metadata: metadata(object), spec: Some(spec), status: None };
    let means = "until it can be read its addresses are not dialled";
    Some(StandIn { object: Object::Service(Box::new(service)), means })
}

/// A pod that is taken for meshed, so that nobody dials its addresses in plaintext (contracts §1). Without uid and
/// readiness it gets no configuration and no traffic of a Service.
fn pod(object: &ObjectRef, read: &Value) -> StandIn {
    let text = |part: &str, field: &str| read.get(part)?.get(field)?.as_str().map(str::to_owned);
    let addresses = read.get("status").and_then(|status| status.get("podIPs")).and_then(Value::as_array);
    let addresses = addresses.into_iter().flatten().filter_map(|one| one.get("ip")?.as_str());
    let addresses = addresses.map(|ip| PodIP { ip: ip.to_owned() }).collect();
    let proxy = Container { name: names::CONTAINER_PROXY.to_owned(), ..Container::default() };
    let pod = Pod {
        metadata: metadata(object),
        spec: Some(PodSpec {
            service_account_name: text("spec", "serviceAccountName"),
            init_containers: Some(vec![proxy]),
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            pod_ip: text("status", "podIP"),
            pod_ips: Some(addresses),
            phase: text("status", "phase"),
            ..PodStatus::default()
        }),
    };
    StandIn { object: Object::Pod(Box::new(pod)), means: "its addresses are dialled with mutual TLS only" }
}

fn metadata(object: &ObjectRef) -> ObjectMeta {
    ObjectMeta {
        name: Some(object.name.to_string()),
        namespace: Some(object.namespace.to_string()),
        ..ObjectMeta::default()
    }
}
