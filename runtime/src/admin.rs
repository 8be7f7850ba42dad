//! The admin routes that every process has: `/live`, `/ready`, `/metrics` for anyone, `/log-level` for loopback.
//!
//! A process merges its own routes into [`router`] and serves it with [`Bound`]; routes that tell or change something
//! about the application's traffic stand behind [`guard`]. It does not know what is behind the other routes.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};

use crate::metrics::{self, Metrics};
use crate::readiness::Readiness;
use crate::serve::Ending;
use crate::telemetry::{LogHandle, MAX_FILTER};

pub mod guard;
mod serve;

pub use serve::{Bound, MAX_CONNECTIONS};

/// Longest that an answer is held back, in seconds.
pub const MAX_WAIT: u64 = 60;

/// `/ready?wait=SECONDS`: the answer comes as soon as the process is ready, or then.
#[derive(Debug, serde::Deserialize)]
pub struct Patience {
    /// Seconds; none: at once.
    #[serde(default)]
    pub wait: u64,
}

/// The routes that every process has; others are merged into it.
pub fn router(readiness: Readiness, metrics: Metrics, log: LogHandle) -> Router {
    let log_level = get(log_level).post(set_log_level).put(set_log_level);
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready).with_state(readiness))
        .route("/metrics", get(metrics_page).with_state(metrics))
        .route("/log-level", log_level.with_state(log).layer(DefaultBodyLimit::max(MAX_FILTER)))
}

/// Held back where the caller says so: a kubelet's startup probe learns of readiness at once, instead of by asking again
/// and again, each time with an event on the pod that says "probe failed".
async fn ready(
    State(readiness): State<Readiness>,
    Query(Patience { wait }): Query<Patience>,
    ending: Option<Extension<Ending>>,
) -> Response {
    let end = async {
        match &ending {
            Some(Extension(ending)) => ending.begun().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = readiness.ready() => {}
        () = tokio::time::sleep(Duration::from_secs(wait.min(MAX_WAIT))) => {}
        () = end => {}
    }
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
