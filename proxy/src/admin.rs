//! The routes of the proxy's admin port beside those of every process (contracts §9).
//!
//! Anyone: `/live`, `/ready`, `/metrics`, `/probe/<container>/<kind>`. Loopback only: `/config`, `/log-level`, the tap stream,
//! and `/drain`, which changes something and needs the header that says so. No secret is anywhere in it.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mesh_proto::{
    outbound::OutboundPolicy,
    probe::{Probe, path},
    server,
};
use mesh_runtime::{
    admin::{self, guard},
    build_info,
    metrics::Metrics,
    readiness::Readiness,
    telemetry::LogHandle,
};
use serde_json::{Value, json};

use crate::{config::Config, drain::Drain, policy::Policies, probe::Prober, tap, tls::Credentials, trust::Trust};

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
            .route("/config", get(config))
            .route(DRAIN, post(drain).put(drain))
            .route("/probe/{container}/{kind}", get(probe))
            .with_state(Arc::new(self.clone()));
        admin::router(self.readiness, self.metrics, self.log).merge(own).merge(tap)
    }

    fn show(&self) -> Value {
        json!({
            "version": build_info::VERSION,
            "commit": build_info::COMMIT,
            "log": self.log.current(),
            "ready": self.readiness.is_ready(),
            "waitingFor": self.readiness.pending(),
            "draining": self.drain.is_draining(),
            "identity": self.credentials.identity().as_str(),
            "certificate": self.certificate(),
            "trustBundle": self.roots(),
            "config": self.config.to_json(),
            "controller": {"connected": self.policies.is_connected(), "ageSeconds": self.policies.age().as_secs()},
            "policies": self.known(),
        })
    }

    fn certificate(&self) -> Value {
        let Some(facts) = self.credentials.facts() else {
            return Value::Null;
        };
        json!({
            "serial": facts.serial,
            "issuer": facts.issuer,
            "notBefore": utc(facts.not_before),
            "notAfter": utc(facts.not_after),
        })
    }

    fn roots(&self) -> Value {
        match self.trust.roots() {
            Ok((roots, source)) => json!({
                "trustDomain": roots.bundle().trust_domain,
                "source": source.as_str(),
                "roots": roots.list().count(),
                "rootList": roots
                    .list()
                    .map(|(subject, not_after)| json!({"subject": subject, "notAfter": utc(not_after)}))
                    .collect::<Vec<_>>(),
            }),
            Err(error) => json!({"error": error.to_string()}),
        }
    }

    fn known(&self) -> Value {
        let summary = self.policies.summary();
        let outbound = summary.outbound.iter().map(|(destination, version, policy)| {
            let (kind, name) = describe(policy);
            json!({"destination": destination, "version": version, "kind": kind, "target": name})
        });
        json!({
            "inbound": summary.inbound.map(|version| json!({"version": version})),
            "outbound": outbound.collect::<Vec<_>>(),
            "waiting": summary.asked,
        })
    }
}

fn describe(policy: &OutboundPolicy) -> (&'static str, Option<String>) {
    match policy {
        OutboundPolicy::Service(service) => ("service", Some(service.service.to_string())),
        OutboundPolicy::Pod(pod) => ("pod", pod.endpoint.pod.as_ref().map(ToString::to_string)),
        OutboundPolicy::External => ("external", None),
    }
}

async fn config(_: guard::Loopback, State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(admin.show())
}

async fn drain(change: guard::AdminChange, State(admin): State<Arc<Admin>>) -> &'static str {
    if !admin.drain.is_draining() {
        tracing::info!(peer = %change.peer, "drain asked for");
    }
    admin.drain.start();
    "draining\n"
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

/// RFC 3339, to the second; nothing where the year is beyond the calendar.
fn utc(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The address where a local command finds the admin listener.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
