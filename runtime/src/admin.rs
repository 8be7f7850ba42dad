//! The admin routes that every process has: `/live`, `/ready`, `/metrics` for anyone, `/log-level` for loopback.
//!
//! A process merges its own routes into [`router`] and serves it with [`Bound`]; routes that tell or change something
//! about the application's traffic stand behind [`guard`]. It does not know what is behind the other routes.

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::metrics::{self, Metrics};
use crate::readiness::Readiness;
use crate::telemetry::{LogHandle, MAX_FILTER};

pub mod guard;
mod serve;

pub use serve::{Bound, MAX_CONNECTIONS};

/// The routes that every process has; others are merged into it.
pub fn router(readiness: Readiness, metrics: Metrics, log: LogHandle) -> Router {
    let log_level = get(log_level).post(set_log_level).put(set_log_level);
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready).with_state(readiness))
        .route("/metrics", get(metrics_page).with_state(metrics))
        .route("/log-level", log_level.with_state(log).layer(DefaultBodyLimit::max(MAX_FILTER)))
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let pending = readiness.pending();
    if pending.is_empty() {
        return "ready\n".into_response();
    }
    let text = format!("not ready, waiting for: {}\n", pending.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics_page(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.encode())
}

async fn log_level(_: guard::Loopback, State(log): State<LogHandle>) -> String {
    format!("{}\n", log.current())
}

async fn set_log_level(change: guard::AdminChange, State(log): State<LogHandle>, filter: String) -> Response {
    match log.set(filter.trim()) {
        Ok(()) => {
            tracing::info!(peer = %change.peer, filter = log.current(), "log level changed");
            format!("{}\n", log.current()).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}
