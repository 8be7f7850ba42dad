//! Builds the parts in order; the only module that knows them all.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use axum::{Json, Router, routing::get};
use mesh_proto::server;
use mesh_runtime::{
    admin::{self, guard::Loopback},
    metrics::Metrics as Registry,
    readiness::Readiness,
    serve,
    shutdown::Signals,
    tasks::Tasks,
    telemetry, tls as runtime_tls,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    api::{Api, connect::ConnectError},
    ca::{
        Authority, CaError,
        secret::SecretError,
        store::{Store, StoreError},
    },
    cluster::Cluster,
    config::{Args, Config, Source},
    grpc::{config::Configs, identity::Identities, proxies::Proxies, trusted},
    metrics::Metrics,
    problems::Problems,
    publish::{self, Publisher},
    source::{
        Event, Opened,
        dir::{Dir, DirError},
        kube::Kube,
    },
    tls::{Connections, Port, TlsError},
};

/// Events on their way to the index.
const EVENTS: usize = 4096;
/// Most streams of one HTTP/2 connection; a proxy needs two.
const MOST_STREAMS: u32 = 1000;
/// How long a call may take to be answered; a stream is answered when its hello is accepted, which takes 13 s at most.
const LONGEST_CALL: Duration = Duration::from_secs(30);
/// How often an idle connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long the index may take to say how many objects there are.
const LONGEST_COUNT: Duration = Duration::from_secs(2);
/// How long everything may take to end.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Why a controller cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its secrets.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The Secret of its authority.
    #[error("keep the certificate authority: {0}")]
    Secret(#[from] SecretError),
    /// Its authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// Its TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its source.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The Kubernetes API.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The trust bundle file.
    #[error("write the roots of trust to {path}: {source}")]
    TrustBundle {
        /// The file.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The port.
    #[error(transparent)]
    Listen(io::Error),
}

/// The controller, to be started in this process. It has its port, and has asked nobody.
pub struct Controller {
    /// Address of the gRPC port.
    pub addr: SocketAddr,
    listener: TcpListener,
    config: Config,
    store: Store,
    origin: Origin,
    task: publish::Task,
    publisher: Publisher,
    problems: Problems,
    proxies: Proxies,
    metrics: Metrics,
}

/// The source, before anybody is asked.
enum Origin {
    Dir(Box<Authority>, Dir),
    Kube(Api),
}

/// A controller that has everything it needs, and does nothing yet.
pub struct Bound {
    addr: SocketAddr,
    listener: TcpListener,
    authority: Arc<Authority>,
    port: Port,
    source: Opened,
    /// None where the source is a directory.
    cluster: Option<Cluster>,
    task: publish::Task,
    publisher: Publisher,
    problems: Problems,
    proxies: Proxies,
    metrics: Metrics,
    tasks: Tasks,
    trust_bundle_out: Option<PathBuf>,
    slowest_reader: Duration,
}

impl Controller {
    /// Opens what is on this machine and takes the port. It is not ready before it serves all that was there at its start.
    pub async fn open(config: Config, registry: &Registry, readiness: &Readiness) -> Result<Self, StartError> {
        let problems = Problems::default();
        let metrics = Metrics::new(registry);
        let store = Store::open(&config.state_dir)?;
        let (given, domain) = (config.ca.as_deref(), config.trust_domain.as_str());
        let origin = match &config.source {
            Source::Dir(root) => {
                let authority = Authority::open(&store, given, domain, config.leaf_lifetime)?;
                Origin::Dir(Box::new(authority), Dir::open(root.clone(), problems.clone())?)
            }
            Source::Kube => Origin::Kube(Api::open(config.kubeconfig.as_deref()).await?),
        };
        let synced = readiness.block("source");
        let (publisher, task) = publish::new(publish::Settings {
            trust_domain: config.trust_domain.clone(),
            default_policy: config.default_policy,
            remembered: publish::departed::REMEMBERED,
            problems: problems.clone(),
            metrics: metrics.clone(),
            synced: Box::new(move || drop(synced)),
        });
        let listener = serve::listen(config.listen, "proxies").await.map_err(StartError::Listen)?;
        let addr = listener.local_addr().map_err(StartError::Listen)?;
        let proxies = Proxies::default();
        Ok(Self { addr, listener, config, store, origin, task, publisher, problems, proxies, metrics })
    }

    /// What the admin port shows of this controller: `/proxies` and `/objects`, on loopback.
    pub fn admin(&self) -> Router {
        let (proxies, publisher, problems) = (self.proxies.clone(), self.publisher.clone(), self.problems.clone());
        let objects = get(move |_: Loopback| async move {
            // Nobody counts before the controller runs, which may wait for an API server.
            let counts = tokio::time::timeout(LONGEST_COUNT, publisher.counts()).await;
            let counts = counts.ok().and_then(Result::ok).unwrap_or_default();
            let counts: serde_json::Map<_, _> =
                counts.into_iter().map(|(kind, count)| (kind.as_str().to_owned(), count.into())).collect();
            Json(serde_json::json!({ "objects": counts, "problems": problems.list() }))
        });
        Router::new()
            .route("/objects", objects)
            .route("/proxies", get(move |_: Loopback| async move { Json(proxies.list()) }))
    }

    /// Makes or reads the secrets: where they are in a cluster, that takes as long as its API server is away.
    pub async fn bind(self, tasks: &Tasks) -> Result<Bound, StartError> {
        let Self { addr, listener, config, store, origin, task, publisher, problems, proxies, metrics } = self;
        let (given, domain, lifetime) = (config.ca.as_deref(), config.trust_domain.as_str(), config.leaf_lifetime);
        let (authority, source, cluster) = match origin {
            Origin::Dir(authority, dir) => (*authority, Opened::Dir(dir), None),
            Origin::Kube(api) => {
                let own = given.is_none().then(|| (store.clone(), domain));
                let cluster = Cluster::open(api.clone(), config.pace, own).await?;
                let authority = Authority::open_in_cluster(&store, given, domain, lifetime, api.clone())?;
                let source = Kube::new(api, config.pace, problems.clone(), metrics.clone());
                (authority, Opened::Kube(source), Some(cluster))
            }
        };
        if let Some(path) = &config.trust_bundle_out {
            write(path, &authority.trust_bundle_pem())
                .map_err(|source| StartError::TrustBundle { path: path.display().to_string(), source })?;
        }
        // Before anybody is served: a reader of the gauge never meets its zero, which says 1970.
        metrics.issuer(authority.issuer_not_after());
        let port = Port::new(&authority)?;
        Ok(Bound {
            addr,
            listener,
            authority: Arc::new(authority),
            port,
            source,
            cluster,
            task,
            publisher,
            problems,
            proxies,
            metrics,
            tasks: tasks.clone(),
            trust_bundle_out: config.trust_bundle_out,
            slowest_reader: config.slowest_reader,
        })
    }
}

impl Bound {
    /// Serves until the tasks are cancelled.
    pub async fn run(self) -> Result<(), tonic::transport::Error> {
        let Self {
            addr,
            listener,
            authority,
            port,
            source,
            cluster,
            task,
            publisher,
            problems,
            proxies,
            metrics,
            tasks,
            trust_bundle_out,
            slowest_reader,
        } = self;
        let (send, events) = mpsc::channel::<Event>(EVENTS);
        let namespaces = task.namespaces();
        tasks.spawn_until_cancelled("source", source.run(send));
        tasks.spawn_until_cancelled("index", task.run(events));
        let (roots, kept_roots) = watch::channel(Arc::from(authority.trust_bundle_pem()));
        if let Some(cluster) = cluster {
            cluster.start(&tasks, &problems, &metrics, namespaces, kept_roots);
        }
        let live = port.live();
        tasks.spawn_until_cancelled("own certificate", Arc::clone(&live).renew(Arc::clone(&authority)));
        let (trust_bundle, trusted) = trusted::trust_bundle(authority.trust_bundle());
        let following = Arc::clone(&authority);
        let counted = metrics.clone();
        tasks.spawn_until_cancelled("certificate authority", async move {
            let owner = format!("certificate authority in {}", following.directory().display());
            let problem = |reason: Option<String>| {
                problems.set(&owner, reason.into_iter().collect());
                counted.issuer(following.issuer_not_after());
            };
            let changed = || {
                tracing::info!(%owner, "other roots of trust or another issuer in force");
                trust_bundle.replace(following.trust_bundle());
                roots.send_replace(Arc::from(following.trust_bundle_pem()));
                let bundle = trust_bundle_out.as_deref().map(|path| write(path, &following.trust_bundle_pem()));
                let bundle = bundle.transpose().map_err(|error| format!("write the roots of trust: {error}"));
                let followed = live.follow(&following).map_err(|error| error.to_string());
                if let Err(error) = bundle.and(followed) {
                    tracing::error!(%error, "not everybody learns of the change");
                }
            };
            following.follow(problem, changed).await;
        });
        let connections = Connections::default();
        let identities = Identities::new(authority, publisher.clone(), metrics.clone());
        let configs = Configs {
            publisher,
            trust_bundle: trusted,
            proxies,
            tasks: tasks.clone(),
            metrics: metrics.clone(),
            connections: connections.clone(),
            slowest_reader,
        };
        let incoming = ReceiverStream::new(port.listen(listener, &tasks, connections, metrics));
        tracing::info!(%addr, "controller serves");
        tonic::transport::Server::builder()
            .timeout(LONGEST_CALL)
            .max_concurrent_streams(MOST_STREAMS)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .http2_max_header_list_size(16 * 1024)
            .add_routes(server::controller(Arc::new(identities), Arc::new(configs)))
            .serve_with_incoming_shutdown(incoming, tasks.cancelled())
            .await
    }
}

/// Replaces a file in one step: whoever reads it never sees half of it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text)?;
    fs::rename(draft, path)
}

/// `mesh-controller run`: serves until a signal.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let format = if args.log_json { telemetry::Format::Json } else { telemetry::Format::Plain };
    let log = telemetry::init(&args.log, format)?;
    runtime_tls::install_default();
    let (tasks, registry, readiness) = (Tasks::new(), Registry::new(), Readiness::new());
    let controller = Controller::open(Config::try_from(&args)?, &registry, &readiness).await.map_err(whole)?;
    // Before anybody is asked: a controller that waits for the API server is alive, and says so.
    let admin = admin::Bound::bind(args.admin).await?;
    tracing::info!(addr = %admin.addr, "admin serves");
    let routes = admin::router(readiness, registry, log).merge(controller.admin());
    tasks.spawn("admin", admin.run(routes, tasks.cancelled()));
    let mut signals = Signals::install().context("listen for signals")?;
    let bound = tokio::select! {
        bound = controller.bind(&tasks) => bound.map_err(whole)?,
        _ = signals.next() => return Ok(()),
    };
    let serve = bound.run();
    tokio::pin!(serve);
    let served = tokio::select! {
        served = &mut serve => served,
        _ = signals.next() => {
            tasks.token().cancel();
            // Streams end with their tasks; a second signal does not wait for stragglers.
            tokio::select! {
                served = tokio::time::timeout(SHUTDOWN, &mut serve) => served.unwrap_or(Ok(())),
                _ = signals.next() => Ok(()),
            }
        }
    };
    let stopped = tasks.shutdown(SHUTDOWN).await;
    if !stopped.is_clean() {
        tracing::warn!(still_running = ?stopped.still_running, "ended by force");
    }
    served.context("serve gRPC")
}

/// Our errors say their causes themselves; as sources they would be printed twice.
pub(crate) fn whole(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}
