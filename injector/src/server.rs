//! The webhook: `POST /inject` over TLS 1.3, with its limits.
//!
//! `app` binds and runs it. Every byte comes from whoever reaches the port (there is no client authentication, and none is
//! needed: an answer holds nothing secret and changes nothing). Decides nothing itself.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use mesh_runtime::{
    tasks::{TaskExecutor, Tasks},
    tls,
};
use parking_lot::RwLock;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{
    certificate::Certificate,
    namespaces::Namespaces,
    review::{self, Review},
    sidecar::Mesh,
};

/// Largest body; the API server's own limit for an object. More is answered with 413.
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// Most connections at once; more are closed as they come. An API server keeps a few.
const MAX_CONNECTIONS: usize = 256;
/// Most streams at once on one HTTP/2 connection; with the body limit this bounds the memory of one.
const MAX_STREAMS: u32 = 32;
/// Most reviews whose bodies are held at once, over all connections.
const MAX_REVIEWS: usize = 64;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the body of a request may take: the webhook's `timeoutSeconds`, after which nobody waits for the answer.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long requests under way may take once shutdown began.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the webhook needs to answer.
#[derive(Clone)]
pub struct Webhook {
    /// What all sidecars have in common; replaced when the trust bundle changes.
    pub mesh: Arc<RwLock<Arc<Mesh>>>,
    /// Where namespaces are looked up.
    pub namespaces: Namespaces,
    /// `injection_total`.
    pub injections: Family<Injection, Counter>,
    reviews: Arc<Semaphore>,
}

/// Labels of `injection_total`. Both come from fixed sets, so there are a dozen series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Injection {
    /// `injected`, `skipped`, `refused` or `bad-request`.
    pub result: &'static str,
    /// Stable code of the reason; empty when injected.
    pub reason: &'static str,
}

/// A webhook that has its port and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens; with the real port when 0 was asked for.
    pub addr: SocketAddr,
    listener: TcpListener,
}

impl Webhook {
    /// A webhook that has answered nothing yet.
    pub fn new(mesh: Mesh, namespaces: Namespaces) -> Self {
        Self {
            mesh: Arc::new(RwLock::new(Arc::new(mesh))),
            namespaces,
            injections: Family::default(),
            reviews: Arc::new(Semaphore::new(MAX_REVIEWS)),
        }
    }

    fn router(self) -> Router {
        Router::new().route("/inject", post(inject)).with_state(self)
    }

    fn count(&self, result: &'static str, reason: &'static str) {
        self.injections.get_or_create(&Injection { result, reason }).inc();
    }
}

impl Bound {
    /// Takes the port.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await.map_err(|error| {
            io::Error::new(error.kind(), format!("failed to listen on {addr} for the webhook: {error}"))
        })?;
        Ok(Self { addr: listener.local_addr()?, listener })
    }

    /// Serves until `shutdown` resolves, then lets requests under way finish for at most 5 seconds.
    pub async fn run(self, webhook: Webhook, certificate: Certificate, shutdown: impl Future<Output = ()>) {
        let Self { listener, .. } = self;
        let tasks = Tasks::new();
        // Ends the connections also when this future is dropped.
        let _ends_with_us = tasks.token().drop_guard();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let acceptor = acceptor(certificate);
        let server = server(tasks.executor("webhook stream"));
        let router = webhook.router();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a webhook connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                tracing::debug!(%peer, "webhook connection closed: {MAX_CONNECTIONS} are open");
                continue;
            };
            let connection = Connection {
                stream,
                peer,
                acceptor: acceptor.clone(),
                router: router.clone(),
                ending: tasks.token(),
                _slot: slot,
            };
            tasks.spawn("webhook connection", connection.serve(server.clone()));
        }
        drop(listener);
        let stopped = tasks.shutdown(GRACE + Duration::from_secs(1)).await;
        if !stopped.is_clean() {
            tracing::warn!(%stopped, "webhook connections did not end");
        }
    }
}

fn acceptor(certificate: Certificate) -> TlsAcceptor {
    let config = rustls::ServerConfig::builder_with_provider(tls::provider()).with_protocol_versions(tls::TLS13);
    let config = config.expect("invariant: the provider has suites for TLS 1.3");
    let mut config = config.with_no_client_auth().with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn server(executor: TaskExecutor) -> auto::Builder<TaskExecutor> {
    let mut server = auto::Builder::new(executor);
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(64 * 1024);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(HEAD_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(16 * 1024);
    server
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    ending: CancellationToken,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, server: auto::Builder<TaskExecutor>) {
        let Self { stream, peer, acceptor, router, ending, _slot } = self;
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "webhook handshake failed"),
            Err(_elapsed) => return tracing::debug!(%peer, "webhook handshake took more than {HANDSHAKE_TIMEOUT:?}"),
        };
        let service = service_fn(|request: Request<Incoming>| {
            let router = router.clone();
            async move { Ok::<_, Infallible>(router.oneshot(request.map(Body::new)).await.into_response()) }
        });
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
        let result = tokio::select! {
            result = &mut connection => result,
            () = ending.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, error, "webhook connection failed");
        }
    }
}

async fn inject(State(webhook): State<Webhook>, headers: HeaderMap, body: Body) -> Response {
    match answer(&webhook, &headers, body).await {
        Ok(response) => response,
        Err((status, reason)) => {
            webhook.count("bad-request", "");
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
    let _slot = webhook.reviews.acquire().await;
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let body = body
        .map_err(|_elapsed| (StatusCode::REQUEST_TIMEOUT, format!("the body took more than {BODY_TIMEOUT:?}")))?
        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {MAX_BODY} bytes")),
            None => (StatusCode::BAD_REQUEST, format!("read the body: {error}")),
        })?
        .to_bytes();
    let review = Review::parse(&body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    drop(body);
    let meta = webhook.namespaces.meta(&review.namespace).await;
    let mesh = Arc::clone(&webhook.mesh.read());
    // A panic would be a bug of ours; it must cost one answer, not the connection with all its other requests.
    let answer = panic::catch_unwind(AssertUnwindSafe(|| review::answer(&review, meta, &mesh))).map_err(|_panic| {
        (StatusCode::INTERNAL_SERVER_ERROR, "a bug of the injector; its log says where".to_owned())
    })?;
    webhook.count(answer.result, answer.reason);
    tracing::info!(namespace = review.namespace, result = answer.result, reason = answer.reason, "pod reviewed");
    Ok(axum::Json(answer.body).into_response())
}
