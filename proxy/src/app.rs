//! The whole proxy, part by part, in order; the only module that knows them all.
//!
//! The main thread runs the control side (certificate, stream, admin) on a current-thread runtime, the data path has its
//! own threads. [`App::start`] takes every port before anything runs; [`App::run`] ends after the drain.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
};

use anyhow::Context as _;
use mesh_runtime::{
    admin::Bound, metrics::Metrics, readiness::Readiness, shutdown::Signal, tasks::Tasks, telemetry::LogHandle,
};
use tokio::time::{Duration, Instant};

use crate::{
    access_log::{AccessLog, Writer},
    admin::Admin,
    config::{self, Config},
    control_metrics::ControlMetrics,
    controller::Controller,
    drain::{Drain, Drained},
    identity::{Renewal, Schedule},
    inspect::Inspect,
    limits::Limits,
    listen::Listeners,
    metrics,
    observers::Observers,
    policy::{Policies, client::Client},
    probe::Prober,
    tap,
    tls::Credentials,
    trace::{Export, Origin, Traces},
    trust::Trust,
    worker::{self, Shared},
};

/// What the control side gets to end; workers have ended before.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A proxy that has its ports and runs.
pub struct App {
    /// Where the admin port is.
    pub admin: SocketAddr,
    /// Where the outbound listeners are: IPv4, and IPv6 where there is one.
    pub outbound: Vec<SocketAddr>,
    /// Where the inbound listener is.
    pub inbound: SocketAddr,
    /// Whether it is ready.
    pub readiness: Readiness,
    /// Its end.
    pub drain: Drain,
    /// Its certificate.
    pub credentials: Credentials,
    /// What the controller said.
    pub policies: Policies,
    /// Its live traffic.
    pub tap: tap::Hub,
    tasks: Tasks,
    workers: Vec<JoinHandle<()>>,
    log_writer: Option<Writer>,
    deadline: Duration,
}

impl App {
    /// Takes the ports, then starts every part. Needs a runtime to run in.
    pub async fn start(config: Config, schedule: Schedule, log: LogHandle) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let listeners = (0..config.workers).map(|index| bind(&config, index)).collect::<anyhow::Result<Vec<_>>>()?;
        let outbound = listeners[0].outbound_addrs().context("read the outbound listeners' addresses")?;
        let inbound = listeners[0].inbound_addr().context("read the inbound listener's address")?;
        let admin = bind_admin(config.data.admin_port).await?;

        let (metrics, readiness, tasks) = (Metrics::new(), Readiness::new(), Tasks::new());
        metrics::register_pod(&metrics, &config.pod);
        let (drain, tap, policies) = (Drain::new(), tap::Hub::new(), Policies::new());
        let inspect = Inspect::default();
        let credentials = Credentials::new(config.data.identity.clone());
        let trust = Trust::new(config.data.identity.trust_domain(), config.trust.clone());
        let control_metrics = ControlMetrics::new(&metrics, &policies);
        let mark = config.data.socket_mark;
        let controller =
            Controller::new(config.controller.clone(), mark, credentials.clone(), trust.clone(), tasks.clone())
                .context("name the controller's identity")?;

        let renewal = Renewal {
            controller: controller.clone(),
            credentials: credentials.clone(),
            trust: trust.clone(),
            token_file: config.token_file.clone(),
            schedule,
            metrics: control_metrics.clone(),
        };
        let client = Client {
            controller,
            hello: config.hello(),
            policies: policies.clone(),
            credentials: credentials.clone(),
            trust: trust.clone(),
            drain: drain.clone(),
            metrics: control_metrics,
        };
        // Nothing is ready before both are held (contracts §3).
        let (identity_ready, policy_ready) = (readiness.block("identity"), readiness.block("inbound policy"));
        tasks.spawn_until_cancelled("identity", renewal.run(identity_ready));
        tasks.spawn_until_cancelled("configuration stream", client.run(policy_ready));

        let routes = Admin {
            config: Arc::clone(&config),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            log,
            policies: policies.clone(),
            credentials: credentials.clone(),
            trust,
            tap: tap.clone(),
            inspect: inspect.clone(),
            started: Instant::now(),
            drain: drain.clone(),
            prober: Prober { ip: config.data.pod_ips[0], mark, tasks: tasks.clone() },
        };
        let address = admin.addr;
        tasks.spawn("admin", admin.run(routes.router(), tasks.cancelled()));

        let (observers, log_writer) = observers(&config, &metrics, tap.clone(), &tasks)?;
        let limits = Limits::new(&metrics, &config.data.limits);
        tasks.spawn_until_cancelled("limits", limits.clone().watch());
        let shared = Shared {
            config: Arc::clone(&config.data),
            policies: policies.clone(),
            credentials: credentials.clone(),
            observers,
            metrics: metrics::Metrics::with_budget(&metrics, config.data.limits.series),
            inspect: inspect.clone(),
            limits,
            drain: drain.clone(),
        };
        let workers = listeners
            .into_iter()
            .enumerate()
            .map(|(index, listeners)| worker::spawn(index, shared.clone(), listeners))
            .collect::<io::Result<_>>()
            .context("start a worker thread")?;
        let deadline = config.drain;
        Ok(Self {
            admin: address,
            outbound,
            inbound,
            readiness,
            drain,
            credentials,
            policies,
            tap,
            tasks,
            workers,
            log_writer,
            deadline,
        })
    }

    /// Runs until `signal` asks for the end, then drains and ends. A signal is a drain, the next an abort.
    pub async fn run(self, mut signal: impl AsyncFnMut() -> Signal) {
        if signal().await == Signal::Drain {
            tracing::info!(deadline = ?self.deadline, "draining: connections are served until clients let go");
            self.drain.start();
        } else {
            self.drain.abort();
        }
        let drained = tokio::select! {
            drained = self.drain.finish(self.deadline) => drained,
            _ = signal() => {
                self.drain.abort();
                self.drain.finish(Duration::ZERO).await
            }
        };
        match drained {
            Drained::Idle => tracing::info!("drained"),
            Drained::Cut(connections) => {
                tracing::warn!(connections, "connections were cut off at the end of the drain");
            }
        }
        // Workers end with the abort, also where nothing is left to cut.
        self.drain.abort();
        let stopped = self.tasks.shutdown(LAST_WORDS).await;
        if !stopped.is_clean() {
            tracing::debug!(%stopped, "the control side did not end in time");
        }
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        if self.log_writer.is_some_and(|writer| !writer.finish(LAST_WORDS)) {
            tracing::warn!("the access log was not written to its end: nobody reads it");
        }
    }
}

/// Whoever wants to know of every request, as the settings have it.
fn observers(
    config: &Config,
    metrics: &Metrics,
    tap: tap::Hub,
    tasks: &Tasks,
) -> anyhow::Result<(Observers, Option<Writer>)> {
    tap.register(metrics);
    let pod = &config.pod;
    let log = match config.access_log {
        config::AccessLog::Off => None,
        config::AccessLog::Json => {
            let own = (pod.namespace.clone(), pod.name.clone());
            Some(AccessLog::start(own, io::stdout(), metrics).context("start the access log's thread")?)
        }
    };
    let (access_log, writer) = log.unzip();
    let traces = config.traces.as_ref().map(|settings| {
        let (traces, pending) = Traces::new(settings.sample, metrics);
        let origin = Origin {
            service: config.data.identity.service_account().to_owned(),
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
        };
        let (endpoint, mark) = (settings.endpoint.clone(), config.data.socket_mark);
        let export = Export { endpoint, mark, origin, tasks: tasks.clone() };
        tasks.spawn("traces", export.run(pending, tasks.cancelled()));
        traces
    });
    Ok((Observers { tap, access_log, traces }, writer))
}

fn bind(config: &Config, index: usize) -> anyhow::Result<Listeners> {
    Listeners::bind(&config.data).with_context(|| {
        let data = &config.data;
        format!(
            "take the ports {} (outbound) and {} (inbound) for worker {index}; another proxy in this pod has them?",
            data.outbound_port, data.inbound_port
        )
    })
}

/// Both families, or IPv4 alone where the kernel has no IPv6.
async fn bind_admin(port: u16) -> anyhow::Result<Bound> {
    let both = Bound::bind((IpAddr::from(Ipv6Addr::UNSPECIFIED), port).into()).await;
    match both {
        Ok(bound) => Ok(bound),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error.into()),
        Err(_) => Ok(Bound::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), port).into()).await?),
    }
}
