//! The webhook: `POST /inject` over TLS 1.3, with its limits.
//!
//! `app` binds and runs it; the accept loop is `mesh_runtime::serve`'s. Every byte comes from whoever reaches the port
//! (there is no client authentication, and none is needed: an answer holds nothing secret and changes nothing). Decides
//! nothing itself.

use std::{
    io,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use mesh_runtime::{
    metrics::Metrics,
    serve::{self, Limits},
    tls,
};
use parking_lot::RwLock;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::{
    bodies::Bodies,
    certificate::Certificate,
    events::Events,
    namespaces::Namespaces,
    review::{self, BadReview, Review},
    sidecar::Mesh,
};

/// An API server keeps a few connections and sends many requests over each.
const LIMITS: Limits = Limits { name: "webhook connection", connections: 256, streams: 32 };
/// Most reviews worked on at once. One takes a millisecond and, as a value, at most some 15 MB
/// ([`review::MAX_NODES`]).
const MAX_REVIEWS: usize = 4;

/// What the webhook needs to answer.
#[derive(Clone)]
pub struct Webhook {
    /// What all sidecars have in common; replaced when the trust bundle changes.
    pub mesh: Arc<RwLock<Arc<Mesh>>>,
    /// Where namespaces are looked up.
    pub namespaces: Namespaces,
    /// What is counted.
    pub injections: Injections,
    /// Who is told of each decision.
    pub events: Events,
    bodies: Bodies,
    reviews: Arc<Semaphore>,
}

/// `injection_total`; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Injections(pub Family<Injection, Counter>);

/// Labels of `injection_total`. Both come from fixed sets, so there are a dozen series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Injection {
    /// `injected`, `skipped`, `refused`, `bad-request` or `failed`.
    pub result: &'static str,
    /// Stable code of the reason; empty when injected.
    pub reason: &'static str,
}

/// A webhook that has its port and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens; with the real port when 0 was asked for.
    pub addr: SocketAddr,
    server: serve::Bound,
}

impl Injections {
    /// Adds the family to those of the process.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register("injection", "pods reviewed", &["result", "reason"], self.0.clone());
    }
}

impl Webhook {
    /// A webhook that has answered nothing yet.
    pub fn new(mesh: Mesh, namespaces: Namespaces) -> Self {
        Self {
            mesh: Arc::new(RwLock::new(Arc::new(mesh))),
            namespaces,
            injections: Injections::default(),
            events: Events::nowhere(),
            bodies: Bodies::default(),
            reviews: Arc::new(Semaphore::new(MAX_REVIEWS)),
        }
    }

    fn router(self) -> Router {
        Router::new().route("/inject", post(inject)).with_state(self)
    }

    fn count(&self, result: &'static str, reason: &'static str) {
        self.injections.0.get_or_create(&Injection { result, reason }).inc();
    }
}

impl Bound {
    /// Takes the port.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let server = serve::Bound::bind(addr, "the webhook").await?;
        Ok(Self { addr: server.addr, server })
    }

    /// Serves until `shutdown` resolves, then lets requests under way finish for at most 5 seconds.
    pub async fn run(self, webhook: Webhook, certificate: Certificate, shutdown: impl Future<Output = ()>) {
        self.server.run(LIMITS, Some(acceptor(certificate)), webhook.router(), shutdown).await;
    }
}

fn acceptor(certificate: Certificate) -> TlsAcceptor {
    let config = rustls::ServerConfig::builder_with_provider(tls::provider()).with_protocol_versions(tls::TLS13);
    let config = config.expect("invariant: the provider has suites for TLS 1.3");
    let mut config = config.with_no_client_auth().with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Foreign text, short enough for a message.
fn short(text: &str) -> String {
    text.chars().take(63).collect()
}

async fn inject(State(webhook): State<Webhook>, headers: HeaderMap, body: Body) -> Response {
    match answer(&webhook, &headers, body).await {
        Ok(response) => response,
        Err((status, reason)) => {
            webhook.count(if status.is_server_error() { "failed" } else { "bad-request" }, "");
            tracing::info!(%status, reason, "request to the webhook refused");
            (status, format!("{reason}\n")).into_response()
        }
    }
}

async fn answer(webhook: &Webhook, headers: &HeaderMap, body: Body) -> Result<Response, (StatusCode, String)> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json".into()));
    }
    let body = webhook.bodies.read(body).await.map_err(|error| (error.status(), error.to_string()))?;
    let bad = |error: BadReview| (StatusCode::BAD_REQUEST, error.to_string());
    let meta = webhook.namespaces.meta(&review::namespace(body.bytes()).map_err(bad)?).await;
    // Taken only now: whoever sends slowly, and an API server that is slow, keep nobody else from being answered.
    let _slot = webhook.reviews.acquire().await;
    let review = Review::parse(body.bytes()).map_err(bad)?;
    drop(body);
    let meta = meta.map_err(|error| {
        let text = format!("what namespace {:?} says is not known: {error}", short(&review.namespace));
        (StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let mesh = Arc::clone(&webhook.mesh.read());
    // A panic would be a bug of ours; it must cost one answer, not the connection with all its other requests.
    let answer = panic::catch_unwind(AssertUnwindSafe(|| review::answer(&review, meta, &mesh))).map_err(|_panic| {
        (StatusCode::INTERNAL_SERVER_ERROR, "a bug of the injector; its log says where".to_owned())
    })?;
    webhook.count(answer.result, answer.reason);
    if let Some(told) = answer.told
        && !review.dry_run
    {
        webhook.events.tell(told);
    }
    tracing::info!(namespace = review.namespace, result = answer.result, reason = answer.reason, "pod reviewed");
    Ok(axum::Json(answer.body).into_response())
}
