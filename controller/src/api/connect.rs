//! Finds the API server, and makes a client for it.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config,
    client::{Body, ClientBuilder, ConfigExt as _},
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::ServiceBuilder;

use super::{Api, chain};

/// Set in every pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
/// What names the files to use outside one.
const KUBECONFIG: &str = "KUBECONFIG";
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// How often the kernel asks whether a silent API server is still there. Beside this each watch has its own deadline.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Idle connections that are kept, and how long: lists and reviews come in bursts.
const IDLE: usize = 8;
const IDLE_TIME: Duration = Duration::from_mins(1);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file was named, or found.
    #[error("use the kubeconfig {file}: {reason}")]
    Kubeconfig {
        /// The file.
        file: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// In a pod.
    #[error("use the service account of this pod: {0}; does its pod have automountServiceAccountToken: false?")]
    ServiceAccount(String),
    /// Neither.
    #[error(
        "find the Kubernetes API: this is no pod of a cluster ({IN_CLUSTER} is not set) and there is no {0}; \
         name a kubeconfig with --kubeconfig FILE, or read manifests with --source dir:PATH"
    )]
    Nowhere(String),
    /// Its TLS or its credentials.
    #[error("make a client for {server}: {reason}")]
    Client {
        /// The API server.
        server: String,
        /// Why it cannot be made.
        reason: String,
    },
}

/// Whether this process runs in a pod.
pub fn in_cluster() -> bool {
    env::var_os(IN_CLUSTER).is_some_and(|host| !host.is_empty())
}

impl Api {
    /// With the kubeconfig `file`; without one, with what `KUBECONFIG` names, as this pod, or with `~/.kube/config`.
    /// Makes no connection yet.
    pub async fn open(file: Option<&Path>) -> Result<Self, ConnectError> {
        let config = config(file).await?;
        let server = config.cluster_url.to_string();
        let unusable = |error: kube::Error| ConnectError::Client { server: server.clone(), reason: chain(&error) };
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_nodelay(true);
        http.set_keepalive(Some(KEEPALIVE));
        http.set_keepalive_interval(Some(KEEPALIVE));
        http.set_keepalive_retries(Some(2));
        let https = config.rustls_https_connector_with_connector(http).map_err(unusable)?;
        let http = Http::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE)
            .pool_idle_timeout(IDLE_TIME)
            .build::<_, Body>(https);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(unusable)?)
            .layer(config.extra_headers_layer().map_err(unusable)?)
            .map_err(tower::BoxError::from)
            .service(http);
        Ok(Self(ClientBuilder::new(service, config.default_namespace).build()))
    }
}

async fn config(file: Option<&Path>) -> Result<Config, ConnectError> {
    let options = KubeConfigOptions::default();
    if let Some(file) = file {
        let unusable = |error: &dyn std::error::Error| ConnectError::Kubeconfig {
            file: file.display().to_string(),
            reason: error.to_string(),
        };
        let read = Kubeconfig::read_from(file).map_err(|error| unusable(&error))?;
        return Config::from_custom_kubeconfig(read, &options).await.map_err(|error| unusable(&error));
    }
    let named = env::var_os(KUBECONFIG).filter(|named| !named.is_empty());
    if named.is_none() && in_cluster() {
        return Config::incluster().map_err(|error| ConnectError::ServiceAccount(chain(&error)));
    }
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    let file = named.map(|named| named.to_string_lossy().into_owned());
    let file = file.or_else(|| home.filter(|path| path.exists()).map(|path| path.display().to_string()));
    let Some(file) = file else { return Err(ConnectError::Nowhere("~/.kube/config".into())) };
    let config = Config::from_kubeconfig(&options).await;
    config.map_err(|error| ConnectError::Kubeconfig { file, reason: chain(&error) })
}
