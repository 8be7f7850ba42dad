//! Whether a pod gets a sidecar: pod and namespace in, verdict out.
//!
//! Pure. Called by the webhook for each pod that is created and by `meshctl inject` for each pod template. Does not know
//! which webhook entry called: it reads the labels itself. What a refusal means is the caller's: the webhook admits the pod
//! without a sidecar and warns, because a pod that cannot be meshed is still a pod, and policies treat it as outside.

use std::collections::BTreeMap;

use mesh_proto::names;
use serde_json::Value;

use crate::{
    pod,
    reason::{Code, Reason},
    settings::{self, Settings},
};

/// Namespaces whose pods run the cluster or the mesh itself; a sidecar there would wait for what it must start.
const SYSTEM_NAMESPACES: &[&str] = &["kube-system", "kube-public", "kube-node-lease", names::SYSTEM_NAMESPACE];

/// Containers of meshes that take over the pod's traffic as we do.
const OTHER_MESHES: &[&str] =
    &["istio-proxy", "istio-init", "linkerd-proxy", "linkerd-init", "consul-dataplane", "kuma-sidecar"];

/// Labels and annotations, with their values (none: any), by which those meshes are asked for a sidecar or a redirect.
const OTHER_LABELS: &[(&str, &[&str])] = &[
    ("istio-injection", &["enabled"]),
    ("istio.io/rev", &[]),
    ("istio.io/dataplane-mode", &["ambient"]),
    ("sidecar.istio.io/inject", &["true"]),
    ("linkerd.io/inject", &["enabled", "ingress"]),
    ("kuma.io/sidecar-injection", &["enabled", "true"]),
    ("consul.hashicorp.com/connect-inject", &["true"]),
];

/// Namespace label of PodSecurity admission.
const LABEL_POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";

/// The namespace of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels and annotations. Who does not know them cannot decide: without its PodSecurity level a sidecar may be
    /// what keeps the pod from starting, and without its annotations its settings are lost.
    pub meta: NamespaceMeta,
}

/// What a namespace says about its pods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceMeta {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl NamespaceMeta {
    /// As if the namespace had opted in: for who has named the objects that are to be injected.
    #[must_use]
    pub fn opted_in(mut self) -> Self {
        self.labels.insert(names::LABEL_INJECT.into(), names::INJECT_ENABLED.into());
        self
    }
}

/// A verdict, and what the user should be told beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub verdict: Verdict,
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

/// What to do with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Add the sidecar.
    Inject(Settings),
    /// Nobody asked for a sidecar, or it has one.
    Skip(Reason),
    /// A sidecar was asked for and would not work.
    Refuse(Reason),
}

/// Decides about one pod (or pod template: an object with `metadata` and `spec`).
pub fn decide(pod: &Value, namespace: &Namespace) -> Decision {
    let mut warnings = Vec::new();
    let reason = skip(pod, namespace, &mut warnings).map(Reason::from).or_else(|| refuse(pod, namespace));
    if let Some(reason) = reason {
        if reason.code.is_told() {
            warnings.push(format!("no sidecar: {reason}"));
        }
        let verdict = if reason.code.is_refusal() { Verdict::Refuse(reason) } else { Verdict::Skip(reason) };
        return Decision { verdict, warnings };
    }
    let inherited = namespace.meta.annotations.iter();
    let (mut settings, told) = settings::read(inherited.map(|(k, v)| (k.as_str(), v.as_str())), pod::annotations(pod));
    warnings.extend(told);
    warnings.extend(strange_labels(pod));
    warnings.extend(settings.fit(pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64)));
    settings.workload = pod::workload(pod);
    if pod.pointer("/spec/shareProcessNamespace").and_then(Value::as_bool) == Some(true) {
        warnings.push("shareProcessNamespace: the pod's containers see the sidecar's process".into());
    }
    Decision { verdict: Verdict::Inject(settings), warnings }
}

fn skip(pod: &Value, namespace: &Namespace, warnings: &mut Vec<String>) -> Option<Code> {
    if pod.get("spec").and_then(|spec| spec.get("containers")).and_then(Value::as_array).is_none() {
        return Some(Code::NotAPod);
    }
    if SYSTEM_NAMESPACES.contains(&namespace.name.as_str()) {
        return Some(Code::SystemNamespace);
    }
    if is_injected(pod) {
        return Some(Code::AlreadyInjected);
    }
    match pod::label(pod, names::LABEL_INJECT) {
        Some(names::INJECT_DISABLED) => return Some(Code::DisabledByPod),
        Some(names::INJECT_ENABLED) => {}
        other => {
            if let Some(wrong) = other {
                let wrong = settings::short(wrong);
                warnings.push(format!("label {}: {wrong:?} is neither enabled nor disabled", names::LABEL_INJECT));
            }
            let label = namespace.meta.labels.get(names::LABEL_INJECT).map(String::as_str);
            if label != Some(names::INJECT_ENABLED) {
                return Some(Code::NotLabelled);
            }
        }
    }
    if pod.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true) {
        return Some(Code::HostNetwork);
    }
    let selected = pod.pointer("/spec/nodeSelector").and_then(|selector| selector.get("kubernetes.io/os"));
    let os = pod.pointer("/spec/os/name").or(selected).and_then(Value::as_str);
    (os == Some("windows")).then_some(Code::Windows)
}

/// Labels under our prefix that are none of ours: of settings, which are annotations, or slips of the pen.
fn strange_labels(pod: &Value) -> Vec<String> {
    let ours = pod::labels(pod).map(|(key, _)| key).filter(|key| settings::is_ours(key) && *key != names::LABEL_INJECT);
    let mut strange: Vec<String> = ours
        .map(|key| match settings::table::find(key) {
            Some(_) => format!("label {key}: this is an annotation, not a label; it is ignored"),
            None => format!(
                "label {}: not known and ignored; the one label is {}",
                settings::short(key),
                names::LABEL_INJECT
            ),
        })
        .collect();
    strange.sort_unstable();
    strange
}

/// The label or annotation by which a namespace or pod asks another mesh for the same, as `key=value`.
pub fn other_mesh(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Option<String> {
    let asks = |(key, values): &(&str, &[&str])| {
        let value = labels.get(*key).or_else(|| annotations.get(*key))?;
        (values.is_empty() || values.contains(&value.as_str())).then(|| format!("{key}={}", settings::short(value)))
    };
    OTHER_LABELS.iter().find_map(asks)
}

/// The container of another mesh that a pod has, if it has one.
pub fn other_meshs_container(pod: &Value) -> Option<&str> {
    pod::every_container(pod).filter_map(pod::name).find(|name| OTHER_MESHES.contains(name))
}

fn refuse(pod: &Value, namespace: &Namespace) -> Option<Reason> {
    let container_name = |container| pod::name(container).unwrap_or("?");
    let of = |code, container| Some(Reason::about(code, format!("container {}", container_name(container))));
    let named = |entry: &Value, names: &[&str]| pod::name(entry).is_some_and(|name| names.contains(&name));
    if let Some(other) = other_meshs_container(pod) {
        return Some(Reason::about(Code::OtherMesh, format!("container {other}")));
    }
    let ours = [names::CONTAINER_PROXY, names::CONTAINER_REDIRECT];
    if let Some(taken) = pod::every_container(pod).find(|container| named(container, &ours)) {
        return of(Code::NameTaken, taken);
    }
    let ours = [names::VOLUME_TOKEN, names::VOLUME_STATE, names::TRUST_BUNDLE_NAME];
    if let Some(taken) = pod::list(pod, "volumes").iter().find(|volume| named(volume, &ours)) {
        return Some(Reason::about(Code::NameTaken, format!("volume {}", container_name(taken))));
    }
    let pod_uid = pod.pointer("/spec/securityContext/runAsUser").and_then(Value::as_u64);
    for container in pod::every_container(pod) {
        let uid = container.pointer("/securityContext/runAsUser").and_then(Value::as_u64).or(pod_uid);
        if uid == Some(u64::from(names::PROXY_UID)) {
            return of(Code::UsesProxyUid, container);
        }
        let ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
        let used = [names::PORT_OUTBOUND, names::PORT_INBOUND, names::PORT_PROXY_ADMIN].map(u64::from);
        for port in ports.filter_map(|port| port.get("containerPort").and_then(Value::as_u64)) {
            if used.contains(&port) {
                let about = format!("port {port} of container {}", container_name(container));
                return Some(Reason::about(Code::UsesProxyPort, about));
            }
        }
    }
    // A level that PodSecurity does not know counts as `restricted` there.
    let level = namespace.meta.labels.get(LABEL_POD_SECURITY).filter(|level| *level != "privileged");
    level.map(|level| Reason::about(Code::PodSecurityForbidsRedirect, format!("level {}", settings::short(level))))
}

/// Whether a pod (or template) carries our sidecar: its name alone is not enough, the pod may have brought it.
pub fn is_injected(pod: &Value) -> bool {
    pod::list(pod, "initContainers").iter().any(is_sidecar)
}

/// Whether an init container is the sidecar that the injector adds: no proxy runs without the file of its token.
pub fn is_sidecar(container: &Value) -> bool {
    let mut env = container.get("env").and_then(Value::as_array).into_iter().flatten();
    pod::name(container) == Some(names::CONTAINER_PROXY)
        && env.any(|entry| pod::name(entry) == Some(names::ENV_TOKEN_FILE))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn namespace(labels: &[(&str, &str)]) -> Namespace {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Namespace { name: "shop".into(), meta: NamespaceMeta { labels, annotations: BTreeMap::new() } }
    }

    fn enabled() -> Namespace {
        namespace(&[("meshctl.dev/inject", "enabled")])
    }

    fn pod(spec: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "web"}]}});
        let spec_of_pod = pod["spec"].as_object_mut().unwrap();
        spec_of_pod.extend(spec.as_object().unwrap().clone());
        pod
    }

    fn labelled(value: &str) -> Value {
        let mut pod = pod(json!({}));
        pod["metadata"]["labels"] = json!({"meshctl.dev/inject": value});
        pod
    }

    fn code(pod: &Value, namespace: &Namespace) -> String {
        match decide(pod, namespace).verdict {
            Verdict::Inject(_) => "inject".into(),
            Verdict::Skip(reason) => format!("skip {}", reason.code()),
            Verdict::Refuse(reason) => format!("refuse {}", reason.code()),
        }
    }

    #[test]
    fn the_pods_label_wins_over_the_namespaces() {
        let disabled = namespace(&[("meshctl.dev/inject", "disabled")]);
        for (pod, namespace, want) in [
            (pod(json!({})), enabled(), "inject"),
            (pod(json!({})), namespace(&[]), "skip not-labelled"),
            (pod(json!({})), disabled.clone(), "skip not-labelled"),
            (labelled("enabled"), namespace(&[]), "inject"),
            (labelled("enabled"), disabled, "inject"),
            (labelled("disabled"), enabled(), "skip disabled-by-pod"),
            (labelled("yes"), enabled(), "inject"),
            (labelled("yes"), namespace(&[]), "skip not-labelled"),
        ] {
            assert_eq!(code(&pod, &namespace), want, "{pod} in {namespace:?}");
        }
        assert_eq!(
            decide(&labelled("yes"), &enabled()).warnings,
            ["label meshctl.dev/inject: \"yes\" is neither enabled nor disabled"]
        );
    }

    #[test]
    fn every_pod_that_cannot_be_meshed_says_why() {
        for (spec, want) in [
            (json!({"hostNetwork": true}), "skip host-network"),
            (json!({"os": {"name": "windows"}}), "skip windows"),
            (json!({"nodeSelector": {"kubernetes.io/os": "windows"}}), "skip windows"),
            (json!({"nodeSelector": {"kubernetes.io/os": "linux"}}), "inject"),
            (
                json!({"initContainers": [{"name": "mesh-proxy", "env": [{"name": "MESH_TOKEN_FILE", "value": "/t"}]}]}),
                "skip already-injected",
            ),
            (json!({"initContainers": [{"name": "mesh-proxy"}]}), "refuse name-taken"),
            (json!({"initContainers": [{"name": "mesh-proxy", "env": [{"name": "A"}, 1]}]}), "refuse name-taken"),
            (json!({"containers": [{"name": "mesh-proxy"}]}), "refuse name-taken"),
            (json!({"initContainers": [{"name": "mesh-redirect"}]}), "refuse name-taken"),
            (json!({"volumes": [{"name": "mesh-state"}]}), "refuse name-taken"),
            (json!({"containers": [{"name": "a"}, {"name": "linkerd-proxy"}]}), "refuse other-mesh"),
            (json!({"initContainers": [{"name": "istio-init"}]}), "refuse other-mesh"),
            (json!({"securityContext": {"runAsUser": 2102}}), "refuse uses-proxy-uid"),
            (json!({"containers": [{"name": "a", "securityContext": {"runAsUser": 2102}}]}), "refuse uses-proxy-uid"),
            (
                json!({"securityContext": {"runAsUser": 2102}, "containers": [{"name": "a", "securityContext": {"runAsUser": 1}}]}),
                "inject",
            ),
            (json!({"containers": [{"name": "a", "ports": [{"containerPort": 4143}]}]}), "refuse uses-proxy-port"),
            (json!({"containers": "many"}), "skip not-a-pod"),
        ] {
            assert_eq!(code(&pod(spec.clone()), &enabled()), want, "{spec}");
        }
        for foreign in [json!(null), json!([]), json!({"spec": 1}), json!({"metadata": 1, "spec": {"containers": [1]}})]
        {
            decide(&foreign, &enabled());
        }
    }

    #[test]
    fn who_asks_another_mesh_is_known_by_label_or_annotation() {
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let none = BTreeMap::new();
        for (key, value, asks) in [
            ("istio-injection", "enabled", true),
            ("istio-injection", "disabled", false),
            ("istio.io/rev", "1-24", true),
            ("linkerd.io/inject", "enabled", true),
            ("linkerd.io/inject", "disabled", false),
            ("meshctl.dev/inject", "enabled", false),
        ] {
            let expected = asks.then(|| format!("{key}={value}"));
            assert_eq!(other_mesh(&map(key, value), &none), expected);
            assert_eq!(other_mesh(&none, &map(key, value)), expected);
        }
        assert_eq!(
            other_meshs_container(&pod(json!({"initContainers": [{"name": "istio-init"}]}))),
            Some("istio-init")
        );
        assert_eq!(other_meshs_container(&pod(json!({}))), None);
    }

    #[test]
    fn a_namespace_can_forbid_the_redirect_or_be_the_systems() {
        for (level, want) in [
            ("privileged", "inject"),
            ("baseline", "refuse pod-security-forbids-redirect"),
            ("restricted", "refuse pod-security-forbids-redirect"),
            ("Privileged", "refuse pod-security-forbids-redirect"),
        ] {
            let labels = [("meshctl.dev/inject", "enabled"), ("pod-security.kubernetes.io/enforce", level)];
            assert_eq!(code(&pod(json!({})), &namespace(&labels)), want, "{level}");
        }
        let system = Namespace { name: "mesh-system".into(), ..enabled() };
        assert_eq!(code(&labelled("enabled"), &system), "skip system-namespace");
    }

    #[test]
    fn a_refusal_and_a_surprise_are_told_and_the_ordinary_is_not() {
        let told = |spec| decide(&pod(spec), &enabled()).warnings.join("\n");
        assert!(told(json!({"hostNetwork": true})).contains("hostNetwork"));
        assert!(told(json!({"containers": [{"name": "istio-proxy"}]})).contains("(other-mesh)"));
        assert!(
            told(json!({"initContainers": [{"name": "mesh-proxy"}]}))
                .contains("name that the sidecar needs: container mesh-proxy; rename it")
        );
        assert!(told(json!({"shareProcessNamespace": true})).contains("shareProcessNamespace"));
        assert_eq!(told(json!({})), "");
        let mut slips = labelled("enabled");
        slips["metadata"]["labels"]["meshctl.dev/injct"] = json!("enabled");
        slips["metadata"]["labels"]["meshctl.dev/log-level"] = json!("debug");
        let warnings = decide(&slips, &enabled()).warnings;
        assert_eq!(
            warnings,
            [
                "label meshctl.dev/injct: not known and ignored; the one label is meshctl.dev/inject",
                "label meshctl.dev/log-level: this is an annotation, not a label; it is ignored",
            ]
        );
        assert!(decide(&pod(json!({})), &namespace(&[])).warnings.is_empty());
    }
}
