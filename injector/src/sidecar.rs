//! What is added to a pod: settings in, containers, volumes and annotation out (contracts §8).
//!
//! Pure. Called by the webhook with [`inject`] and by `manifest`, which writes the same [`Parts`] as text. `uninject` is its
//! inverse. Whether a pod gets them is `decide`'s.

use mesh_proto::{
    names,
    probe::{self, Probe},
};
use serde_json::{Map, Value, json};

use crate::{
    drain, probes,
    settings::{Resources, Settings},
};

/// Version of the proxy that this injector puts in: all parts of a release carry the same.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Life of a bootstrap token, in seconds; the kubelet renews it at 80 %. An hour is the API server's usual least maximum.
const TOKEN_SECONDS: u32 = 3600;
/// The last trust bundle, many times over; memory-backed storage counts against the sidecar's memory.
const STATE_SIZE: &str = "4Mi";
/// How long the sidecar holds back its answer until it is ready, in seconds, which is less than the kubelet waits for one:
/// the application starts as soon as it can, and no "probe failed" is told of a start that is in order. How often that may
/// pass in vain: five minutes outlast a controller that is being rescheduled.
const STARTUP_WAIT: u32 = 9;
const STARTUP_TIMEOUT: u32 = 10;
const STARTUP_PERIOD: u32 = 1;
const STARTUP_FAILURES: u32 = 30;
/// Where the API token of the service account gets mounted by the API server, unless something is mounted there.
const API_TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Program in the proxy's image, found by the image's PATH.
const PROGRAM: &str = "mesh-proxy";

/// What all sidecars of a mesh have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// Image of proxy and redirect.
    pub image: String,
    /// `imagePullPolicy` of both.
    pub pull_policy: String,
    /// Trust domain of the identities.
    pub trust_domain: String,
    /// `host:port` of the controller's gRPC.
    pub controller: String,
    /// Roots of trust, PEM; the last of the fallbacks of contracts §6.
    pub trust_bundle: Option<String>,
    /// Log filter where no annotation gives one.
    pub log: String,
    /// Socket mark that exempts the proxy's sockets, where the user id cannot.
    pub socket_mark: Option<u32>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            image: format!("mesh-proxy:{VERSION}"),
            pull_policy: "IfNotPresent".into(),
            trust_domain: names::DEFAULT_TRUST_DOMAIN.into(),
            controller: format!(
                "{}.{}.svc:{}",
                names::CONTROLLER_NAME,
                names::SYSTEM_NAMESPACE,
                names::PORT_CONTROLLER
            ),
            trust_bundle: None,
            log: "info".into(),
            socket_mark: None,
        }
    }
}

/// Everything that is added to a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// First among the init containers, in this order: the proxy (native sidecar), the redirect.
    pub init_containers: [Value; 2],
    /// After the pod's own volumes.
    pub volumes: [Value; 3],
    /// After the pod's own annotations.
    pub annotation: (&'static str, String),
}

/// A pod with its sidecar, and what the user should be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// The pod.
    pub pod: Value,
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

/// Adds the sidecar to a pod that `decide` found fit.
pub fn inject(pod: &Value, mesh: &Mesh, settings: &Settings) -> Injected {
    let mut pod = pod.clone();
    let (probes, warnings) = probes::point_at_sidecar(&mut pod);
    if let Some(hook) = drain::hook(settings) {
        drain::hold_end(&mut pod, &hook);
    }
    let Parts { init_containers, volumes, annotation: (key, value) } = parts(mesh, settings, &probes);
    if let Some(spec) = object(&mut pod, "spec") {
        if let Some(list) = array(spec, "initContainers") {
            list.splice(0..0, init_containers);
        }
        if let Some(list) = array(spec, "volumes") {
            list.extend(volumes);
        }
    }
    let annotations = object(&mut pod, "metadata").map(|metadata| metadata.entry("annotations").or_insert(Value::Null));
    if let Some(annotations) = annotations {
        if annotations.is_null() {
            *annotations = json!({});
        }
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(key.into(), value.into());
        }
    }
    Injected { pod, warnings }
}

/// The object in this field, made where it is absent; None where something else is there.
fn object<'a>(parent: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    let value = parent.as_object_mut()?.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

/// The list in this field, made where it is absent; None where something else is there.
fn array<'a>(parent: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Vec<Value>> {
    let value = parent.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut()
}

/// What is added to a pod with these probes.
pub fn parts(mesh: &Mesh, settings: &Settings, probes: &[Probe]) -> Parts {
    Parts {
        init_containers: [proxy(mesh, settings, probes), redirect(mesh, settings)],
        volumes: volumes(),
        annotation: (names::ANNOTATION_PROXY_VERSION, version(settings)),
    }
}

/// Version of the proxy: of another image, what its tag says.
fn version(settings: &Settings) -> String {
    let Some(image) = settings.get(names::ANNOTATION_PROXY_IMAGE) else { return VERSION.to_owned() };
    let last = image.rsplit('/').next().unwrap_or(image);
    let tag = last.split('@').next().and_then(|name| name.split_once(':')).map(|(_, tag)| tag);
    tag.unwrap_or("unknown").to_owned()
}

fn image<'a>(mesh: &'a Mesh, settings: &'a Settings) -> &'a str {
    settings.get(names::ANNOTATION_PROXY_IMAGE).unwrap_or(&mesh.image)
}

fn pull_policy<'a>(mesh: &'a Mesh, settings: &'a Settings) -> &'a str {
    settings.get(names::ANNOTATION_PROXY_PULL_POLICY).unwrap_or(&mesh.pull_policy)
}

fn proxy(mesh: &Mesh, settings: &Settings, probes: &[Probe]) -> Value {
    json!({
        "name": names::CONTAINER_PROXY,
        "image": image(mesh, settings),
        "imagePullPolicy": pull_policy(mesh, settings),
        "command": [PROGRAM, "run"],
        "restartPolicy": "Always",
        "env": proxy_env(mesh, settings, probes),
        "ports": [{"name": "mesh-admin", "containerPort": names::PORT_PROXY_ADMIN, "protocol": "TCP"}],
        "startupProbe": {
            "httpGet": {"path": format!("/ready?wait={STARTUP_WAIT}"), "port": names::PORT_PROXY_ADMIN},
            "timeoutSeconds": STARTUP_TIMEOUT,
            "periodSeconds": STARTUP_PERIOD,
            "failureThreshold": STARTUP_FAILURES,
        },
        // The kubelet sends SIGTERM to a native sidecar only after the application has ended, but runs this at once.
        "lifecycle": {"preStop": {"exec": {"command": [PROGRAM, "drain"]}}},
        "resources": resources(settings.resources()),
        "securityContext": {
            "runAsUser": names::PROXY_UID,
            "runAsGroup": names::PROXY_UID,
            "runAsNonRoot": true,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": names::VOLUME_TOKEN, "mountPath": names::TOKEN_DIR, "readOnly": true},
            {"name": names::VOLUME_STATE, "mountPath": names::STATE_DIR},
            {"name": names::TRUST_BUNDLE_NAME, "mountPath": names::TRUST_BUNDLE_DIR, "readOnly": true},
            no_api_token(),
        ],
    })
}

fn redirect(mesh: &Mesh, settings: &Settings) -> Value {
    let mut env: Vec<Value> = settings.redirect_env().map(|(name, value)| plain(name, value)).collect();
    env.extend(mark_env(mesh));
    let mut container = json!({
        "name": names::CONTAINER_REDIRECT,
        "image": image(mesh, settings),
        "imagePullPolicy": pull_policy(mesh, settings),
        "command": [PROGRAM, "redirect"],
        "env": env,
        "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}},
        // A user other than root gets no effective capability, whatever is added.
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [no_api_token()],
    });
    if let Some(container) = container.as_object_mut()
        && container["env"].as_array().is_some_and(Vec::is_empty)
    {
        container.shift_remove("env");
    }
    container
}

/// The API server runs its service-account plugin again after a webhook has changed a pod, and that mounts the API token
/// into every container with nothing at its path. Public roots of trust are there instead: the sidecar needs no API token.
fn no_api_token() -> Value {
    json!({"name": names::TRUST_BUNDLE_NAME, "mountPath": API_TOKEN_DIR, "readOnly": true})
}

fn proxy_env(mesh: &Mesh, settings: &Settings, probes: &[Probe]) -> Vec<Value> {
    let mut env = vec![
        field(names::ENV_POD_NAME, "metadata.name"),
        field(names::ENV_POD_NAMESPACE, "metadata.namespace"),
        field(names::ENV_POD_UID, "metadata.uid"),
        field(names::ENV_POD_IPS, "status.podIPs"),
        field(names::ENV_SERVICE_ACCOUNT, "spec.serviceAccountName"),
        plain(names::ENV_TRUST_DOMAIN, &mesh.trust_domain),
        plain(names::ENV_CONTROLLER_ADDR, &mesh.controller),
        plain(names::ENV_TOKEN_FILE, &format!("{}/{}", names::TOKEN_DIR, names::TOKEN_FILE)),
        plain(names::ENV_TRUST_BUNDLE_FILE, &format!("{}/{}", names::TRUST_BUNDLE_DIR, names::TRUST_BUNDLE_KEY)),
        plain(names::ENV_STATE_DIR, names::STATE_DIR),
    ];
    env.extend(settings.workload.iter().map(|workload| plain(names::ENV_WORKLOAD, workload)));
    env.extend(mesh.trust_bundle.iter().map(|bundle| plain(names::ENV_TRUST_BUNDLE, bundle)));
    env.extend(mark_env(mesh));
    if settings.get(names::ANNOTATION_LOG_LEVEL).is_none() {
        env.push(plain(names::ENV_LOG, &mesh.log));
    }
    // The controller reads them from the immutable spec too: a skipped port is not meshed (contracts §1).
    env.extend(settings.proxy_env().map(|(name, value)| plain(name, value)));
    if !probes.is_empty() {
        env.push(plain(names::ENV_PROBES, &probe::list(probes)));
    }
    env
}

fn mark_env(mesh: &Mesh) -> Option<Value> {
    mesh.socket_mark.map(|mark| plain(names::ENV_SOCKET_MARK, &format!("{mark:#x}")))
}

fn plain(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

fn resources(resources: Resources) -> Value {
    let Resources { cpu, cpu_limit, memory, memory_limit } = resources;
    let mut limits = Map::new();
    limits.extend(cpu_limit.map(|cpu| ("cpu".to_owned(), json!(cpu))));
    limits.insert("memory".into(), json!(memory_limit));
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": limits})
}

fn volumes() -> [Value; 3] {
    [
        json!({
            "name": names::VOLUME_TOKEN,
            "projected": {"sources": [{"serviceAccountToken": {
                "audience": names::TOKEN_AUDIENCE,
                "expirationSeconds": TOKEN_SECONDS,
                "path": names::TOKEN_FILE,
            }}]},
        }),
        json!({"name": names::VOLUME_STATE, "emptyDir": {"medium": "Memory", "sizeLimit": STATE_SIZE}}),
        json!({"name": names::TRUST_BUNDLE_NAME, "configMap": {"name": names::TRUST_BUNDLE_NAME, "optional": true}}),
    ]
}
