//! Listens for the admin server: HTTP/1.1 and HTTP/2 in clear text, with its limits.
//!
//! Own accept loop instead of `axum::serve`, which has no timeouts and no cap. It does not know the routes.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::tasks::{TaskExecutor, Tasks};

/// Most connections at once; more are closed as they come.
pub const MAX_CONNECTIONS: usize = 1024;

/// How long a connection may take for its first request, and for the head of each HTTP/1.1 request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a silent HTTP/2 peer is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Most streams at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// Longest an open connection is kept once shutdown began: a tap that streams does not end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An admin server that has its port and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens; with the real port when 0 was asked for.
    pub addr: SocketAddr,
    listener: TcpListener,
    max_connections: usize,
}

impl Bound {
    /// Takes the port.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("failed to listen on {addr} for admin: {error}")))?;
        let addr = listener.local_addr()?;
        Ok(Self { addr, listener, max_connections: MAX_CONNECTIONS })
    }

    /// Another cap than [`MAX_CONNECTIONS`].
    #[must_use]
    pub fn max_connections(self, max_connections: usize) -> Self {
        Self { max_connections, ..self }
    }

    /// Serves until `shutdown` resolves, then lets requests under way finish for at most 5 seconds.
    pub async fn run(self, router: Router, shutdown: impl Future<Output = ()>) {
        let Self { addr: _, listener, max_connections } = self;
        let tasks = Tasks::new();
        // Ends the connections also when this future is dropped.
        let _ends_with_us = tasks.token().drop_guard();
        let slots = Arc::new(Semaphore::new(max_connections));
        let server = server(tasks.executor("admin stream"));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept an admin connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                tracing::debug!(%peer, "admin connection closed: {max_connections} are open");
                continue;
            };
            let connection = Connection { stream, peer, router: router.clone(), ending: tasks.token(), _slot: slot };
            tasks.spawn("admin connection", connection.serve(server.clone()));
        }
        drop(listener);
        // Connections end themselves within the grace time; the second is for those that are just being dropped.
        let stopped = tasks.shutdown(GRACE + Duration::from_secs(1)).await;
        if !stopped.is_clean() {
            tracing::warn!(%stopped, "admin connections did not end");
        }
    }
}

fn server(executor: TaskExecutor) -> auto::Builder<TaskExecutor> {
    let mut server = auto::Builder::new(executor);
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(64 * 1024);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(HEAD_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(16 * 1024);
    server
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    ending: CancellationToken,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, server: auto::Builder<TaskExecutor>) {
        let Self { stream, peer, router, ending, _slot } = self;
        let asked = AtomicBool::new(false);
        let service = service_fn(|request| {
            asked.store(true, Ordering::Relaxed);
            answer(router.clone(), peer, request)
        });
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
        // hyper's own timeouts begin with the first byte of a known protocol; this one covers silence before that.
        let mut silence = std::pin::pin!(tokio::time::sleep(HEAD_TIMEOUT));
        let mut waiting = true;
        let result = loop {
            tokio::select! {
                result = &mut connection => break result,
                () = &mut silence, if waiting => {
                    if !asked.load(Ordering::Relaxed) {
                        tracing::debug!(%peer, "admin connection closed: no request within {HEAD_TIMEOUT:?}");
                        return;
                    }
                    waiting = false;
                }
                () = ending.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    match tokio::time::timeout(GRACE, connection).await {
                        Ok(result) => break result,
                        Err(_elapsed) => return,
                    }
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, error, "admin connection failed");
        }
    }
}

async fn answer(
    router: Router,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request.map(Body::new)).await
}
