//! The routes of the proxy's admin port beside those of every process (contracts §9).
//!
//! Anyone: `/live`, `/ready`, `/metrics`, `/probe/<container>/<kind>`, `/drained`. Loopback only: `/config`, `/endpoints`, `/connections`
//! (their shapes are `mesh_proto::admin`), `/log-level`, the tap stream, and `/drain`, which changes something and needs the
//! header that says so. No secret is anywhere in it.

mod pages;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mesh_proto::{
    admin::{CONFIG, CONNECTIONS, Connections, DRAINED, ENDPOINTS, Endpoints, LET_GO},
    probe::{Probe, path},
    server,
};
use mesh_runtime::{
    admin::{self, MAX_WAIT, Patience, guard},
    metrics::Metrics,
    readiness::Readiness,
    telemetry::LogHandle,
};
use tokio::time::Instant;

use crate::{
    config::Config,
    drain::Drain,
    inspect::{Inspect, NoAnswer},
    policy::Policies,
    probe::Prober,
    tap,
    tls::Credentials,
    trust::Trust,
};

/// Path of the change that begins a drain.
pub const DRAIN: &str = "/drain";

/// What the routes show and change.
#[derive(Clone)]
pub struct Admin {
    /// Settings in force.
    pub config: Arc<Config>,
    /// Whether the proxy is ready.
    pub readiness: Readiness,
    /// Registry of the process.
    pub metrics: Metrics,
    /// Log filter.
    pub log: LogHandle,
    /// What the controller said.
    pub policies: Policies,
    /// The certificate.
    pub credentials: Credentials,
    /// Roots of trust.
    pub trust: Trust,
    /// Live traffic.
    pub tap: tap::Hub,
    /// The workers.
    pub inspect: Inspect,
    /// When the proxy started.
    pub started: Instant,
    /// The end.
    pub drain: Drain,
    /// Performs probes.
    pub prober: Prober,
}

impl Admin {
    /// All routes.
    pub fn router(self) -> Router {
        // gRPC's own answer to an unknown path would be a success to whoever speaks plain HTTP.
        let tap = server::tap(Arc::new(self.tap.clone()))
            .into_axum_router()
            .route_layer(middleware::from_extractor::<guard::Loopback>())
            .reset_fallback();
        let own = Router::new()
            .route(CONFIG, get(config))
            .route(ENDPOINTS, get(endpoints))
            .route(CONNECTIONS, get(connections))
            .route(DRAIN, post(drain).put(drain))
            .route("/probe/{container}/{kind}", get(probe))
            .route(DRAINED, get(drained))
            .with_state(Arc::new(self.clone()));
        admin::router(self.readiness, self.metrics, self.log).merge(own).merge(tap)
    }
}

async fn config(_: guard::Loopback, State(admin): State<Arc<Admin>>) -> Json<mesh_proto::admin::Config> {
    Json(admin.config_page())
}

async fn endpoints(_: guard::Loopback, State(admin): State<Arc<Admin>>) -> Result<Json<Endpoints>, NoAnswer> {
    let loads = admin.inspect.loads().await?;
    Ok(Json(pages::endpoints(admin.policies.summary(), &loads)))
}

async fn connections(_: guard::Loopback, State(admin): State<Arc<Admin>>) -> Result<Json<Connections>, NoAnswer> {
    admin.inspect.connections().await.map(Json)
}

impl IntoResponse for NoAnswer {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("failed to {self}\n")).into_response()
    }
}

async fn drain(change: guard::AdminChange, State(admin): State<Arc<Admin>>) -> &'static str {
    if !admin.drain.is_draining() {
        tracing::info!(peer = %change.peer, "drain asked for");
    }
    admin.drain.start();
    "draining\n"
}

/// The caller is a hook of the kubelet, whose only question is when. Every answer is a success: another would be an event on the
/// pod that says that its hook failed.
async fn drained(State(admin): State<Arc<Admin>>, Query(Patience { wait }): Query<Patience>) -> &'static str {
    match tokio::time::timeout(Duration::from_secs(wait.min(MAX_WAIT)), admin.drain.let_go()).await {
        Ok(true) => LET_GO,
        Ok(false) => "no drain has begun\n",
        Err(_) => {
            let holding = admin.drain.holding();
            tracing::warn!(?holding, wait, "the application ends before its clients have let go");
            "some clients have not let go\n"
        }
    }
}

async fn probe(State(admin): State<Arc<Admin>>, Path((container, kind)): Path<(String, String)>) -> Response {
    let wanted = |probe: &&Probe| probe.container == container && probe.kind.as_str() == kind;
    let Some(probe) = admin.config.probes.iter().find(wanted) else {
        let text = format!("container {container:?} has no {kind:?} probe\n");
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    match admin.prober.perform(probe).await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => {
            tracing::debug!(probe = path(&probe.container, probe.kind), %error, "probe failed");
            (StatusCode::SERVICE_UNAVAILABLE, format!("failed to {error}\n")).into_response()
        }
    }
}

/// The address where a local command finds the admin listener.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
