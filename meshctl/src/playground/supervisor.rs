//! The supervisor: first process inside the namespaces, API server and kubelet in small. Starts everything in order,
//! then serves the control socket until it is told to stop.
//!
//! Wiring only: what is done with a manifest, a pod or a container is in the other modules.

use std::{
    ffi::OsString,
    io::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use mesh_controller::ca::{Authority, store::Store as SecretStore, token::Minter};
use mesh_netlab::userns;
use mesh_proto::names;
use mesh_runtime::tasks::Tasks;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use super::{
    admission::Admission,
    control::Control,
    dns,
    kubelet::{Kubelet, volumes},
    logs::Logs,
    network::Network,
    objects::World,
    paths::RuntimeDir,
    processes::Processes,
    progress::News,
    store::{self, NotReady, Store},
    tokens::Tokens,
};

/// Longest a start may take; it takes two seconds on a laptop.
const START: Duration = Duration::from_mins(1);
/// How long processes may take to end before they are ended.
const GRACE: Duration = Duration::from_secs(3);
/// The private state lives in memory and is small: manifests, tokens, certificates.
const STATE_OPTIONS: &str = "size=64m,mode=0700";
/// Lines of the culprit's log in an error.
const LOG_LINES: usize = 8;
/// How long leaf certificates would be good that this process signs; it signs none.
const LEAF_LIFETIME: Duration = Duration::from_hours(24);

/// `playground-supervisor DIR`
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let Some(directory) = arguments.first() else { return ExitCode::from(2) };
    match supervise(&RuntimeDir::at(PathBuf::from(directory))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            News::failed(&error).tell();
            ExitCode::FAILURE
        }
    }
}

fn supervise(directory: &RuntimeDir) -> anyhow::Result<()> {
    let since = Instant::now();
    prctl::set_pdeathsig(Signal::SIGKILL).context("follow the keeper's end")?;
    // A mount tree of our own, so that it goes with us and the keeper can remove the directory.
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    userns::mount_proc()?;
    mount(
        Some("tmpfs"),
        &directory.state(),
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(STATE_OPTIONS),
    )
    .context("mount memory for the playground's state")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tasks = Tasks::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let processes = Processes::start(&tasks)?;
        let done = tokio::select! {
            done = serve(directory, &tasks, &processes, since) => done,
            _ = terminate.recv() => Ok(()),
        };
        end(&tasks, &processes).await;
        if done.is_ok() {
            News::Stopped.tell();
        }
        done
    })
}

/// Nothing is started again, everybody is asked to end, and who does not is ended.
async fn end(tasks: &Tasks, processes: &Processes) {
    tasks.token().cancel();
    Processes::signal_all(Signal::SIGTERM);
    if tokio::time::timeout(GRACE, processes.all_ended()).await.is_err() {
        Processes::signal_all(Signal::SIGKILL);
    }
}

async fn serve(directory: &RuntimeDir, tasks: &Tasks, processes: &Processes, since: Instant) -> anyhow::Result<()> {
    News::begun("network, certificates and manifests").tell();
    let world = World::embedded()?;
    let state = directory.state();
    let network = Arc::new(Network::new()?);
    let store = Store::new(&world, volumes::manifests(&state), Arc::clone(&network))?;
    let secrets = Secrets::make(&world, &state)?;
    let (datagrams, connections) = network.name_server()?;
    let names = store.clone();
    dns::server::serve(tasks, datagrams, connections, Arc::new(move |query| names.resolve(query)))?;
    let kubelet = Kubelet {
        tasks: tasks.clone(),
        network: Arc::clone(&network),
        processes: processes.clone(),
        logs: Logs::default(),
        store: store.clone(),
        tokens: Arc::new(Tokens::new(secrets.minter, names::DEFAULT_TRUST_DOMAIN)),
        state,
        sandboxes: Arc::default(),
    };
    let mut control = Control::bind(directory.socket(), kubelet.clone())?;
    News::done("network, certificates and manifests", since.elapsed()).tell();

    let admission = Admission::new(&world, store.clone(), network, &secrets.webhook_authority)?;
    let start = start(&world, &kubelet, &admission, since);
    tokio::select! {
        started = tokio::time::timeout(START, start) => {
            let keys: Vec<String> = world.pods.iter().map(|(pod, _)| store::key(pod)).collect();
            let slow = || {
                let culprit = kubelet.store.not_ready(&keys).map(|not_ready| explain(&kubelet, &not_ready));
                culprit.unwrap_or_else(|| anyhow::anyhow!("a part of it did not answer"))
            };
            started.unwrap_or_else(|_| Err(slow().context(format!("not ready within {START:?}"))))?;
        }
        () = control.stopped() => return Ok(()),
    }
    News::ready(since.elapsed()).tell();
    control.stopped().await;
    Ok(())
}

/// The control plane first, since it decides what the other pods are.
async fn start(world: &World, kubelet: &Kubelet, admission: &Admission, since: Instant) -> anyhow::Result<()> {
    let is_system = |pod: &Pod| pod.metadata.namespace.as_deref() == Some(names::SYSTEM_NAMESPACE);
    let (system, others): (Vec<_>, Vec<_>) = world.pods.iter().partition(|(pod, _)| is_system(pod));
    for (what, pods) in [("control plane", system), ("pods", others)] {
        let what = format!("{what}: {}", names_of(&pods));
        News::begun(what.as_str()).tell();
        run_pods(kubelet, admission, &pods).await?;
        News::done(what, since.elapsed()).tell();
    }
    Ok(())
}

async fn run_pods(kubelet: &Kubelet, admission: &Admission, pods: &[&(Pod, Ipv4Addr)]) -> anyhow::Result<()> {
    let mut keys = Vec::new();
    for (pod, address) in pods {
        let admitted = admission.admit(pod).await.with_context(|| format!("create pod {}", store::key(pod)))?;
        for warning in &admitted.warnings {
            // As kubectl shows them.
            let _ = writeln!(std::io::stderr(), "Warning: {warning}");
        }
        kubelet.run(admitted.pod, *address).await?;
        keys.push(store::key(pod));
    }
    kubelet.store.ready(&keys).await.map_err(|not_ready| explain(kubelet, &not_ready))
}

/// What keeps a pod from being ready, with the last lines of its log.
fn explain(kubelet: &Kubelet, not_ready: &NotReady) -> anyhow::Error {
    let log = kubelet.logs.last_lines(&not_ready.pod, &not_ready.container, LOG_LINES);
    anyhow::anyhow!("{not_ready}{}{log}", if log.is_empty() { "" } else { "; its log ends with:\n" })
}

/// The workloads' names, for a person.
fn names_of(pods: &[&(Pod, Ipv4Addr)]) -> String {
    let name = |(pod, _): &&(Pod, Ipv4Addr)| {
        let info = crate::cluster::PodInfo::from_object(pod);
        let owner = info.workload_or_name();
        owner.rsplit('/').next().unwrap_or(&owner).to_owned()
    };
    pods.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// What the control plane and a cluster's administrator would make.
struct Secrets {
    minter: Minter,
    /// PEM of who signed the webhook's certificate: what `caBundle` holds in a cluster.
    webhook_authority: String,
}

impl Secrets {
    fn make(world: &World, state: &Path) -> anyhow::Result<Self> {
        let own = |workload: &str, volume: &str| {
            let mut pods = world.pods.iter().map(|(pod, _)| pod);
            let pod = pods.find(|pod| {
                let owner = crate::cluster::PodInfo::from_object(pod).workload_or_name();
                owner.rsplit('/').next() == Some(workload)
            });
            pod.map(|pod| volumes::own(state, pod, volume))
                .with_context(|| format!("the control plane has no {workload}"))
        };
        let secrets = SecretStore::open(own(names::CONTROLLER_NAME, CONTROLLER_STATE)?);
        let secrets = secrets.context("make the controller's state")?;
        let minter = Minter::open(&secrets).context("make the key of join tokens")?;
        let authority =
            Authority::open(&secrets, None, names::DEFAULT_TRUST_DOMAIN, LEAF_LIFETIME).context("make the CA")?;
        let bundle = volumes::shared(state, names::TRUST_BUNDLE_NAME);
        std::fs::create_dir_all(&bundle).context("make the trust bundle")?;
        store::replace(&bundle.join(names::TRUST_BUNDLE_KEY), &authority.trust_bundle_pem())
            .context("write the trust bundle")?;

        let service = format!("{}.{}.svc", names::INJECTOR_NAME, names::SYSTEM_NAMESPACE);
        let webhook = mesh_injector::certificate::self_signed(&[&service]).context("make the webhook's certificate")?;
        webhook.write_to(&own(names::INJECTOR_NAME, WEBHOOK_TLS)?).context("write the webhook's certificate")?;
        Ok(Self { minter, webhook_authority: webhook.authority })
    }
}

/// Volume of the controller's pod in `deploy/control-plane.yaml` that holds its keys.
const CONTROLLER_STATE: &str = "state";
/// Volume of the injector's pod in `deploy/control-plane.yaml` that holds the webhook's certificate.
const WEBHOOK_TLS: &str = "webhook-tls";
