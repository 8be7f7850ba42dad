//! Runs pods as their specs say: volumes, namespaces, init containers in order (native sidecars stay), containers,
//! probes, restarts. A kubelet in small; what a pod's spec is, the injector has decided before.

mod container;
mod restart;
pub(super) mod volumes;

use std::{
    collections::BTreeMap,
    fs::File,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, RawFd},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use mesh_runtime::tasks::Tasks;
use parking_lot::Mutex;

use self::{
    container::Running,
    restart::{Policy, is_sidecar},
};
use super::{
    logs::Logs,
    mounts::{Mounts, Names},
    network::Network,
    processes::Processes,
    store::{self, Store},
    tokens::Tokens,
};

/// Shared by all pods.
#[derive(Clone)]
pub(crate) struct Kubelet {
    /// Owner of every task.
    pub(crate) tasks: Tasks,
    /// Where pods are connected.
    pub(crate) network: Arc<Network>,
    /// Where processes are started and reaped.
    pub(crate) processes: Processes,
    /// Where they print.
    pub(crate) logs: Logs,
    /// Where their state goes.
    pub(crate) store: Store,
    /// Who mints bootstrap tokens.
    pub(crate) tokens: Arc<Tokens>,
    /// The private state directory.
    pub(crate) state: PathBuf,
    /// Namespaces of the pods that run, by `namespace/name`.
    pub(crate) sandboxes: Arc<Mutex<BTreeMap<String, Arc<Sandbox>>>>,
}

/// The namespaces of a pod.
pub(crate) struct Sandbox {
    /// Its link and namespaces.
    pub(crate) pod: mesh_netlab::Pod,
    net: File,
    mounts: File,
}

impl Sandbox {
    /// Descriptors of this process that name the network and the mount namespace, for `exec`.
    pub(crate) fn descriptors(&self) -> (RawFd, RawFd) {
        (self.net.as_raw_fd(), self.mounts.as_raw_fd())
    }
}

impl Kubelet {
    /// Makes a pod's namespaces and starts it; what becomes of it is in the store.
    pub(crate) async fn run(&self, pod: Pod, address: Ipv4Addr) -> anyhow::Result<()> {
        let key = store::key(&pod);
        self.store.add(pod.clone(), address)?;
        let (kubelet, owned) = (self.clone(), pod.clone());
        let sandbox = tokio::task::spawn_blocking(move || kubelet.sandbox(&owned, address))
            .await
            .context("make a sandbox")?
            .with_context(|| format!("start pod {key}"))?;
        let sandbox = Arc::new(sandbox);
        self.sandboxes.lock().insert(key, Arc::clone(&sandbox));
        let kubelet = self.clone();
        self.tasks.spawn("pod", async move { kubelet.containers(&Arc::new(pod), address, &sandbox).await });
        Ok(())
    }

    fn sandbox(&self, pod: &Pod, address: Ipv4Addr) -> anyhow::Result<Sandbox> {
        let (namespace, name) = (pod.metadata.namespace.as_deref().unwrap_or("default"), pod.metadata.name.as_deref());
        let name = name.context("it has no name")?;
        let root = volumes::root(&self.state, pod);
        let volumes = volumes::prepare(pod, &self.state, &self.tokens, &self.tasks)?;
        let mounts = Mounts::prepare(&root, &Names { pod: name, namespace, address }, &volumes)?;
        let lab_pod = self.network.pod(name, address, &mounts)?;
        let open = || (File::open("/proc/thread-self/ns/net"), File::open("/proc/thread-self/ns/mnt"));
        let (net, mounts) = lab_pod.run(open).context("enter its namespaces")?;
        Ok(Sandbox { pod: lab_pod, net: net?, mounts: mounts? })
    }

    /// Init containers one after the other, then all containers.
    async fn containers(&self, pod: &Arc<Pod>, address: Ipv4Addr, sandbox: &Arc<Sandbox>) {
        let Some(spec) = &pod.spec else { return };
        for container in spec.init_containers.iter().flatten() {
            let policy = Policy::of_init_container(spec, container);
            let running = Running::new(self, pod, container, policy, address, sandbox);
            if is_sidecar(container) {
                running.start_and_wait_until_started().await;
            } else if !running.keep_running().await {
                // The playground ends, or the pod has failed.
                return;
            }
            if self.tasks.token().is_cancelled() {
                return;
            }
        }
        for container in &spec.containers {
            Running::new(self, pod, container, Policy::of_container(spec), address, sandbox).start();
        }
    }
}
