//! What the playground's objects are now: one place that changes them, writes them where the controller watches, and
//! makes the cluster IPs follow.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use hickory_proto::op::Message;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Namespace, Pod, PodCondition, PodIP, PodStatus, Service,
};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{addresses::NODE, dns, network::Network, objects::World, select};

/// Shared by everybody in the supervisor.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    /// The directory that the controller watches.
    directory: PathBuf,
    network: Arc<Network>,
    namespaces: Vec<Namespace>,
    services: Vec<Service>,
    pods: Mutex<BTreeMap<String, Entry>>,
    changed: watch::Sender<()>,
}

/// A pod as it runs.
struct Entry {
    pod: Pod,
    address: Ipv4Addr,
    containers: Vec<Container>,
}

/// One container, as the kubelet knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// Its name.
    pub(crate) name: String,
    /// Whether the pod waits for it to be ready: false for an init container that runs to its end.
    pub(crate) lasting: bool,
    /// Whether a process runs.
    pub(crate) state: State,
    /// Its startup probe has succeeded, or there is none and it runs.
    pub(crate) started: bool,
    /// Its readiness probe succeeds, or there is none and it has started.
    pub(crate) ready: bool,
    /// How often its process was started again.
    pub(crate) restarts: u32,
    /// Why it does not run or is not ready, for people.
    pub(crate) problem: Option<String>,
    /// How its process ended last.
    pub(crate) last_end: Option<LastEnd>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastEnd {
    /// With exit code 0.
    pub(crate) success: bool,
    /// For people.
    pub(crate) how: String,
}

/// Whether a container's process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not yet, or not at the moment.
    Waiting,
    /// It does.
    Running,
    /// Never again.
    Ended,
}

impl Store {
    /// Writes everything but pods.
    pub(crate) fn new(world: &World, directory: PathBuf, network: Arc<Network>) -> anyhow::Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let store = Self {
            inner: Arc::new(Inner {
                directory,
                network,
                namespaces: world.namespaces.values().cloned().collect(),
                services: world.services.clone(),
                pods: Mutex::default(),
                changed: watch::Sender::new(()),
            }),
        };
        for namespace in &store.inner.namespaces {
            let name = namespace.metadata.name.as_deref().unwrap_or_default();
            store.write(&format!("namespace-{name}"), &with_kind("v1", "Namespace", namespace)?)?;
        }
        for service in &store.inner.services {
            let (namespace, name) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
            let file = format!("service-{}-{}", namespace.unwrap_or("default"), name.unwrap_or_default());
            store.write(&file, &with_kind("v1", "Service", service)?)?;
        }
        for object in &world.others {
            store.write(&file_name(object), object)?;
        }
        Ok(store)
    }

    /// A new pod, nothing of which runs yet.
    pub(crate) fn add(&self, pod: Pod, address: Ipv4Addr) -> anyhow::Result<()> {
        let spec = pod.spec.as_ref().context("a pod has no spec")?;
        let init = spec
            .init_containers
            .iter()
            .flatten()
            .map(|container| (container.name.clone(), container.restart_policy.as_deref() == Some("Always")));
        let usual = spec.containers.iter().map(|container| (container.name.clone(), true));
        let containers = init
            .chain(usual)
            .map(|(name, lasting)| Container {
                name,
                lasting,
                state: State::Waiting,
                started: false,
                ready: false,
                restarts: 0,
                problem: None,
                last_end: None,
            })
            .collect();
        let key = key(&pod);
        let mut pods = self.inner.pods.lock();
        pods.insert(key.clone(), Entry { pod, address, containers });
        self.after_change(&mut pods, &key, true)
    }

    /// Changes what is known of a container.
    pub(crate) fn update(&self, pod: &str, container: &str, change: impl FnOnce(&mut Container)) {
        let mut pods = self.inner.pods.lock();
        let Some(entry) = pods.get_mut(pod) else { return };
        let was_ready = entry.ready();
        let Some(container) = entry.containers.iter_mut().find(|known| known.name == container) else { return };
        let before = container.clone();
        change(container);
        if *container == before {
            return;
        }
        let readiness_changed = entry.ready() != was_ready;
        if let Err(error) = self.after_change(&mut pods, pod, readiness_changed) {
            eprintln_for_launcher(&error);
        }
    }

    fn after_change(
        &self,
        pods: &mut BTreeMap<String, Entry>,
        key: &str,
        endpoints_changed: bool,
    ) -> anyhow::Result<()> {
        let Some(entry) = pods.get_mut(key) else { return Ok(()) };
        entry.pod.status = Some(entry.status());
        self.write(&format!("pod-{}", key.replace('/', "-")), &with_kind("v1", "Pod", &entry.pod)?)?;
        if endpoints_changed {
            let facts: Vec<_> = pods.values().map(|entry| (&entry.pod, entry.address, entry.ready())).collect();
            self.inner.network.publish(&select::destinations(&self.inner.services, &facts))?;
        }
        self.inner.changed.send_replace(());
        Ok(())
    }

    /// Waits until all these pods are ready, or one of them cannot become so.
    pub(crate) async fn ready(&self, pods: &[String]) -> Result<(), NotReady> {
        let mut changed = self.inner.changed.subscribe();
        loop {
            changed.mark_unchanged();
            {
                let known = self.inner.pods.lock();
                let entries = || pods.iter().filter_map(|key| known.get(key).map(|entry| (key, entry)));
                // A third start in a row helps nobody.
                let hopeless = entries()
                    .flat_map(|(key, entry)| entry.containers.iter().map(move |container| (key, container)))
                    .find(|(_, container)| container.restarts >= 3 && !container.ready);
                if let Some((pod, container)) = hopeless {
                    return Err(NotReady::of(pod, container));
                }
                if entries().filter(|(_, entry)| entry.ready()).count() == pods.len() {
                    return Ok(());
                }
            }
            if changed.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// The first container that keeps one of these pods from being ready.
    pub(crate) fn not_ready(&self, pods: &[String]) -> Option<NotReady> {
        let known = self.inner.pods.lock();
        pods.iter().filter_map(|key| known.get(key).map(|entry| (key, entry))).find_map(|(key, entry)| {
            entry.containers.iter().find(|one| one.lasting && !one.ready).map(|one| NotReady::of(key, one))
        })
    }

    /// A ready pod behind a port of a Service.
    pub(crate) fn endpoint(&self, namespace: &str, service: &str, port: u16) -> Option<SocketAddr> {
        let wanted = self.inner.services.iter().find(|known| {
            known.metadata.namespace.as_deref() == Some(namespace) && known.metadata.name.as_deref() == Some(service)
        })?;
        let pods = self.inner.pods.lock();
        let facts: Vec<_> = pods.values().map(|entry| (&entry.pod, entry.address, entry.ready())).collect();
        let destinations = select::destinations([wanted], &facts);
        let ports = destinations.into_iter().find(|destination| destination.service.port() == port)?;
        ports.endpoints.first().copied()
    }

    /// The answer to a question about names, as things are now.
    pub(crate) fn resolve(&self, query: &Message) -> Message {
        let pods = self.inner.pods.lock();
        let facts: Vec<_> = pods.values().map(|entry| (&entry.pod, entry.address, entry.ready())).collect();
        dns::answer(query, &self.inner.services, &facts)
    }

    /// How many pods are ready, and how many there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let pods = self.inner.pods.lock();
        (pods.values().filter(|entry| entry.ready()).count(), pods.len())
    }

    /// All objects of a kind, in plural and lower case, as an API server lists them; `None` for another kind.
    pub(crate) fn list(&self, kind: &str) -> Option<Value> {
        match kind {
            "pods" => {
                let pods = self.inner.pods.lock();
                serde_json::to_value(pods.values().map(|entry| &entry.pod).collect::<Vec<_>>()).ok()
            }
            "services" => serde_json::to_value(&self.inner.services).ok(),
            "namespaces" => serde_json::to_value(&self.inner.namespaces).ok(),
            _ => None,
        }
    }

    /// Replaces a file of the watched directory in one step.
    fn write(&self, name: &str, object: &Value) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(object)?;
        let path = self.inner.directory.join(format!("{name}.json"));
        replace(&path, &text).with_context(|| format!("write {}", path.display()))
    }
}

/// `httproute-shop-web`: a person finds it by what they know of it.
fn file_name(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or("object").to_ascii_lowercase();
    let words = [Some(kind.as_str()), text("/metadata/namespace"), text("/metadata/name")];
    words.into_iter().flatten().collect::<Vec<_>>().join("-")
}

/// Writes a file so that readers see the old or the new one.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text)?;
    fs::rename(draft, path)
}

/// `namespace/name`.
pub(crate) fn key(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    format!("{namespace}/{}", pod.metadata.name.as_deref().unwrap_or_default())
}

/// What keeps a pod from being ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("container {container} of pod {pod} {problem}")]
pub(crate) struct NotReady {
    /// `namespace/name`.
    pub(crate) pod: String,
    /// The container.
    pub(crate) container: String,
    problem: String,
}

impl NotReady {
    fn of(pod: &str, container: &Container) -> Self {
        Self {
            pod: pod.to_owned(),
            container: container.name.clone(),
            problem: container.problem.clone().unwrap_or_else(|| {
                if container.state == State::Running {
                    "is not ready".to_owned()
                } else {
                    "has not been started".to_owned()
                }
            }),
        }
    }
}

impl Entry {
    fn ready(&self) -> bool {
        self.containers.iter().filter(|container| container.lasting).all(|container| container.ready)
    }

    fn phase(&self) -> &'static str {
        let failed = |container: &Container| {
            container.state == State::Ended && container.last_end.as_ref().is_some_and(|end| !end.success)
        };
        let mut lasting = self.containers.iter().filter(|container| container.lasting);
        if self.containers.iter().any(failed) {
            "Failed"
        } else if lasting.clone().all(|container| container.state == State::Ended) {
            "Succeeded"
        } else if lasting.any(|container| container.state == State::Running) {
            "Running"
        } else {
            "Pending"
        }
    }

    fn status(&self) -> PodStatus {
        let spec = self.pod.spec.as_ref();
        let is_init = |name: &str| {
            spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten()).any(|init| init.name == name)
        };
        let (init, usual): (Vec<_>, Vec<_>) = self.containers.iter().partition(|container| is_init(&container.name));
        let statuses = |containers: Vec<&Container>| Some(containers.into_iter().map(Container::status).collect());
        let address = self.address.to_string();
        PodStatus {
            phase: Some(self.phase().to_owned()),
            pod_ip: Some(address.clone()),
            pod_ips: Some(vec![PodIP { ip: address }]),
            host_ip: Some(NODE.to_string()),
            host_ips: Some(vec![HostIP { ip: NODE.to_string() }]),
            conditions: Some(vec![PodCondition {
                type_: "Ready".to_owned(),
                status: if self.ready() { "True" } else { "False" }.to_owned(),
                message: self.containers.iter().find(|one| one.lasting && !one.ready).map(|one| {
                    let reason = one.problem.as_deref().unwrap_or("is not ready");
                    format!("container {} {reason}", one.name)
                }),
                ..PodCondition::default()
            }]),
            init_container_statuses: statuses(init),
            container_statuses: statuses(usual),
            ..PodStatus::default()
        }
    }
}

impl Container {
    fn status(&self) -> ContainerStatus {
        let terminated = || {
            let end = self.last_end.as_ref()?;
            let terminated = ContainerStateTerminated {
                exit_code: i32::from(!end.success),
                message: Some(end.how.clone()),
                ..ContainerStateTerminated::default()
            };
            Some(ContainerState { terminated: Some(terminated), ..ContainerState::default() })
        };
        let state = match self.state {
            State::Running => {
                Some(ContainerState { running: Some(ContainerStateRunning::default()), ..ContainerState::default() })
            }
            State::Waiting => {
                let reason = (self.restarts > 0).then(|| "CrashLoopBackOff".to_owned());
                let waiting = ContainerStateWaiting { message: self.problem.clone(), reason };
                Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() })
            }
            State::Ended => terminated(),
        };
        ContainerStatus {
            name: self.name.clone(),
            ready: self.ready,
            started: Some(self.started),
            restart_count: i32::try_from(self.restarts).unwrap_or(i32::MAX),
            state,
            last_state: terminated().filter(|_| self.restarts > 0),
            ..ContainerStatus::default()
        }
    }
}

/// The object as a manifest: types of the client library leave out what kind they are.
fn with_kind(version: &str, kind: &str, object: &impl Serialize) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    let fields = value.as_object_mut().context("an object is no map")?;
    fields.insert("apiVersion".to_owned(), json!(version));
    fields.insert("kind".to_owned(), json!(kind));
    Ok(value)
}

/// Standard error is the launcher's pipe; a detached playground's launcher has left.
fn eprintln_for_launcher(error: &anyhow::Error) {
    use std::io::Write as _;
    let _ = writeln!(io::stderr(), "playground: {error:#}");
}
