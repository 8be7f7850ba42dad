//! Builds the injector's parts in order and runs them: the only module that knows them all.
//!
//! `main` and, in the playground, `meshctl` call [`main`]; tests bind with [`Bound`] and read its addresses.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use mesh_runtime::{
    admin,
    metrics::Metrics,
    readiness::{BlockReady, Readiness},
    shutdown::Signals,
    tasks::Tasks,
    telemetry::{self, LogHandle},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    certificate::{self, Certificate},
    config::{Args, Config},
    events::Events,
    namespaces::Namespaces,
    reconcile::{self, Reconciler},
    secret::Keeper,
    server::{self, Webhook},
};

/// How often the files are looked at.
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);
/// Longest that shutdown may take.
const STOP_DEADLINE: Duration = Duration::from_secs(8);

/// Runs the injector until SIGTERM or SIGINT, or until it cannot start.
pub async fn main(args: Args) -> anyhow::Result<()> {
    let log = telemetry::init(&args.log, args.log_format())?;
    let mut signals = Signals::install().context("failed to take over signals")?;
    let bound = Bound::bind(args.into_config()?).await?;
    let drain = CancellationToken::new();
    let asked_twice = async {
        signals.next().await;
        drain.cancel();
        signals.next().await;
    };
    tokio::select! {
        () = bound.run(log, drain.cancelled()) => Ok(()),
        () = asked_twice => Ok(()),
    }
}

/// An injector that has its ports and does not serve yet.
pub struct Bound {
    /// Where the webhook listens.
    pub webhook_addr: SocketAddr,
    /// Where the admin server listens.
    pub admin_addr: SocketAddr,
    webhook: server::Bound,
    admin: admin::Bound,
    config: Config,
}

impl Bound {
    /// Takes the ports.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let webhook = server::Bound::bind(config.webhook_addr).await?;
        let admin = admin::Bound::bind(config.admin_addr).await?;
        Ok(Self { webhook_addr: webhook.addr, admin_addr: admin.addr, webhook, admin, config })
    }

    /// Serves until `shutdown` resolves, and as much longer as the configuration says.
    pub async fn run(self, log: LogHandle, shutdown: impl Future<Output = ()>) {
        let Self { webhook: bound, admin, config, .. } = self;
        let Config { mesh, namespaces, tls_dir, trust_bundle_file, evict, linger, .. } = config;
        let tasks = Tasks::new();
        let _ends_with_us = tasks.token().drop_guard();
        let readiness = Readiness::new();
        let metrics = Metrics::new();

        let cluster = if let Namespaces::Cluster(cluster) = &namespaces { Some(cluster.client()) } else { None };
        let mut webhook = Webhook::new(mesh, namespaces);
        if let Some(client) = cluster {
            let keeper = Keeper::new(client.clone(), tls_dir.clone());
            tasks.spawn_until_cancelled("webhook secret", keeper.keep());
            let (events, writer) = Events::new(client.clone());
            tasks.spawn_until_cancelled("events", writer.run());
            let counts = reconcile::Counts::default();
            counts.register(&metrics);
            let reconciler = Reconciler::new(client, events.clone(), counts, evict);
            tasks.spawn_until_cancelled("reconciler", reconciler.run());
            webhook.events = events;
        }
        webhook.injections.register(&metrics);
        webhook.events.register(&metrics);
        let certificate = Certificate::default();
        let mut files = Files {
            waiting: Some(readiness.block("webhook certificate")),
            certificate: certificate.clone(),
            webhook: webhook.clone(),
            last_problem: Vec::new(),
        };
        files.look(&tls_dir, trust_bundle_file.as_deref());
        let ending = tasks.token();
        tasks.spawn("files", async move {
            let mut tick = interval(FOLLOW_PERIOD);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while ending.run_until_cancelled(tick.tick()).await.is_some() {
                files.look(&tls_dir, trust_bundle_file.as_deref());
            }
        });
        let router = admin::router(readiness, metrics, log);
        tasks.spawn("admin", admin.run(router, tasks.cancelled()));
        tracing::info!(webhook = %self.webhook_addr, admin = %self.admin_addr, "injector started");
        let end = async {
            shutdown.await;
            tokio::time::sleep(linger).await;
        };
        bound.run(webhook, certificate, end).await;
        let stopped = tasks.shutdown(STOP_DEADLINE).await;
        if !stopped.is_clean() {
            tracing::warn!(%stopped, "injector did not end in time");
        }
    }
}

/// The files that the injector follows. What is wrong with them is told once, and again when it changes.
struct Files {
    waiting: Option<BlockReady>,
    certificate: Certificate,
    webhook: Webhook,
    last_problem: Vec<String>,
}

impl Files {
    fn look(&mut self, tls_dir: &Path, trust_bundle: Option<&Path>) {
        let mut problems = Vec::new();
        match self.certificate.load(tls_dir) {
            Ok(true) => {
                tracing::info!(directory = %tls_dir.display(), "webhook certificate loaded");
                self.waiting = None;
            }
            Ok(false) => {}
            Err(error) => problems.push(format!("failed to {error}")),
        }
        match trust_bundle.map(bundle) {
            Some(Ok(bundle)) if self.webhook.mesh.read().trust_bundle.as_ref() != Some(&bundle) => {
                let mut mesh = self.webhook.mesh.write();
                Arc::make_mut(&mut mesh).trust_bundle = Some(bundle);
                tracing::info!("trust bundle loaded");
            }
            Some(Err(error)) => problems.push(error.to_string()),
            _ => {}
        }
        if problems != self.last_problem {
            for problem in &problems {
                tracing::warn!("{problem}");
            }
            self.last_problem = problems;
        }
    }
}

/// Reads a trust bundle: PEM with at least one certificate.
fn bundle(path: &Path) -> anyhow::Result<String> {
    let text = String::from_utf8(certificate::read(path).map_err(|error| anyhow::anyhow!("failed to {error}"))?);
    let text = text.with_context(|| format!("failed to read {} as PEM", path.display()))?;
    let roots = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let roots = roots.with_context(|| format!("failed to read {} as PEM", path.display()))?;
    anyhow::ensure!(!roots.is_empty(), "failed to read {}: it holds no certificate", path.display());
    Ok(text)
}
