//! One container: its process, its probes, and starting it again when it ends.

use std::{
    io,
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Container, Pod};
use mesh_netlab::Namespace;
use nix::sys::signal::Signal;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    Kubelet, Sandbox,
    restart::{Backoff, End, Policy},
};
use crate::{
    playground::{
        env::{command_line, environment, image_program},
        probe::{Check, EAGER},
        store::{self, LastEnd, State},
    },
    roles::Role,
};

/// A container with everything it needs to run. Cheap to clone.
#[derive(Clone)]
pub(super) struct Running {
    kubelet: Kubelet,
    pod: Arc<Pod>,
    /// `namespace/name` of the pod.
    key: String,
    container: Arc<Container>,
    policy: Policy,
    address: Ipv4Addr,
    sandbox: Arc<Sandbox>,
    started: watch::Sender<bool>,
}

impl Running {
    pub(super) fn new(
        kubelet: &Kubelet,
        pod: &Arc<Pod>,
        container: &Container,
        policy: Policy,
        address: Ipv4Addr,
        sandbox: &Arc<Sandbox>,
    ) -> Self {
        Self {
            kubelet: kubelet.clone(),
            key: store::key(pod),
            pod: Arc::clone(pod),
            container: Arc::new(container.clone()),
            policy,
            address,
            sandbox: Arc::clone(sandbox),
            started: watch::Sender::new(false),
        }
    }

    /// Runs it as often as its policy says, until the playground ends.
    pub(super) fn start(&self) {
        let this = self.clone();
        self.kubelet.tasks.spawn("container", async move {
            this.keep_running().await;
        });
    }

    /// As [`Running::start`]; returns when its startup probe has succeeded.
    pub(super) async fn start_and_wait_until_started(&self) {
        let mut started = self.started.subscribe();
        self.start();
        tokio::select! {
            _ = started.wait_for(|started| *started) => {}
            () = self.kubelet.tasks.cancelled() => {}
        }
    }

    /// Runs it as often as its policy says; returns whether it has ended with success.
    pub(super) async fn keep_running(&self) -> bool {
        let mut backoff = Backoff::default();
        loop {
            let since = Instant::now();
            let end = self.run_once().await;
            let again = self.policy.starts_again_after(&end);
            self.ended(&end, again);
            if !again {
                return end.is_success();
            }
            if !self.pause(backoff.after(since.elapsed())).await {
                return false;
            }
        }
    }

    async fn run_once(&self) -> End {
        let mut process = match self.spawn() {
            Ok(process) => process,
            Err(error) => return End::NotStarted(format!("{error:#}")),
        };
        self.update(|container| container.state = State::Running);
        tokio::select! {
            ended = process.ended() => End::Ended(ended),
            unhealthy = self.probe() => {
                process.signal(Signal::SIGKILL);
                process.ended().await;
                End::Unhealthy(unhealthy)
            }
        }
    }

    /// Starts its process in the pod's namespaces.
    fn spawn(&self) -> anyhow::Result<crate::playground::processes::Running> {
        let image = self.container.image.as_deref().unwrap_or_default();
        let environment = environment(&self.pod, &self.container, self.address)?;
        let words = command_line(&self.container, image_program(image), &environment);
        let (program, arguments) = words.split_first().context("it has no command")?;
        let role = Role::of_image(image_program(image)).filter(|_| program == image_program(image));
        let mut command = match role {
            // The image holds nothing but this program.
            Some(role) => {
                let mut command = Command::new("/proc/self/exe");
                command.arg(role.name());
                command
            }
            None => Command::new(program),
        };
        let log = self.kubelet.logs.pipe(&self.kubelet.tasks, &self.key, &self.container.name)?;
        command
            .args(arguments)
            .args(
                role.into_iter()
                    .flat_map(extra_arguments)
                    .filter(|_| arguments.first().is_some_and(|word| word == "run")),
            )
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("HOME", "/")
            .env("HOSTNAME", self.pod.metadata.name.as_deref().unwrap_or_default())
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let namespace: &Namespace = self.sandbox.pod.namespace();
        self.kubelet
            .processes
            .spawn(|| namespace.spawn(&mut command))
            .map_err(|error: io::Error| anyhow::anyhow!("cannot be started: {program}: {error}"))
    }

    /// Probes as long as the process lives; returns why it has to be ended.
    async fn probe(&self) -> String {
        let check = |probe| Check::of(probe, &self.pod, self.address);
        let checks = check(self.container.startup_probe.as_ref())
            .and_then(|startup| Ok((startup, check(self.container.readiness_probe.as_ref())?)))
            .and_then(|(startup, ready)| Ok((startup, ready, check(self.container.liveness_probe.as_ref())?)));
        let (startup, readiness, liveness) = match checks {
            Ok(checks) => checks,
            Err(reason) => {
                self.update(|container| container.problem = Some(reason.clone()));
                return std::future::pending().await;
            }
        };
        if let Some(startup) = startup
            && let Err(reason) = self.until_started(&startup).await
        {
            return reason;
        }
        self.update(|container| {
            (container.started, container.ready) = (true, readiness.is_none());
            container.problem = container.problem.take().filter(|_| !container.ready);
        });
        self.started.send_replace(true);
        tokio::select! {
            () = self.watch_readiness(readiness.as_ref()) => std::future::pending().await,
            reason = self.until_dead(liveness.as_ref()) => reason,
        }
    }

    async fn until_started(&self, startup: &Check) -> Result<(), String> {
        let deadline = Instant::now() + startup.patience();
        loop {
            match startup.perform(&self.kubelet.network).await {
                Ok(()) => return Ok(()),
                Err(reason) if Instant::now() >= deadline => return Err(reason),
                Err(reason) => self.update(|container| container.problem = Some(format!("is not up yet: {reason}"))),
            }
            sleep(EAGER).await;
        }
    }

    async fn watch_readiness(&self, readiness: Option<&Check>) {
        let Some(check) = readiness else { return };
        let (mut failures, mut ready) = (0, false);
        loop {
            match check.perform(&self.kubelet.network).await {
                Ok(()) => (failures, ready) = (0, true),
                Err(reason) => {
                    failures += 1;
                    ready = ready && failures < check.failures;
                    self.update(|container| container.problem = Some(format!("is not ready: {reason}")));
                }
            }
            self.update(|container| {
                container.ready = ready;
                if ready {
                    container.problem = None;
                }
            });
            sleep(if ready { check.period } else { EAGER }).await;
        }
    }

    async fn until_dead(&self, liveness: Option<&Check>) -> String {
        let Some(check) = liveness else { return std::future::pending().await };
        let mut failures = 0;
        loop {
            match check.perform(&self.kubelet.network).await {
                Ok(()) => failures = 0,
                Err(reason) => {
                    failures += 1;
                    if failures >= check.failures {
                        return reason;
                    }
                }
            }
            sleep(check.period).await;
        }
    }

    fn ended(&self, end: &End, again: bool) {
        self.started.send_replace(false);
        self.update(|container| {
            (container.started, container.ready) = (false, false);
            container.last_end = Some(LastEnd { success: end.is_success(), how: end.to_string() });
            container.problem = (again || !end.is_success()).then(|| end.to_string());
            container.state = if again { State::Waiting } else { State::Ended };
            container.restarts += u32::from(again);
        });
    }

    fn update(&self, change: impl FnOnce(&mut store::Container)) {
        self.kubelet.store.update(&self.key, &self.container.name, change);
    }

    /// Waits; false when the playground ends.
    async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            () = sleep(time) => true,
            () = self.kubelet.tasks.cancelled() => false,
        }
    }
}

/// What the playground differs in from a cluster, on the command lines of the control plane.
fn extra_arguments(role: Role) -> Vec<String> {
    match role {
        // One user id is all there is, so the proxies' sockets are told by their mark (contracts §10, design §7);
        // namespaces are looked up where an API server would be asked.
        Role::Injector => vec![
            format!("--socket-mark={:#x}", mesh_proto::names::PROXY_MARK),
            format!("--manifests={}", crate::playground::objects::MANIFESTS_IN_POD),
        ],
        _ => Vec::new(),
    }
}
