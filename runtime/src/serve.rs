//! The accept loop of every HTTP port of ours: a cap on connections, time limits, an end in order.
//!
//! [`crate::admin`] serves in clear text with it, the injector's webhook over TLS. Ports whose connections somebody else
//! serves (the controller's gRPC, the proxy's listeners) take them with [`accept`] alone. Own loop instead of
//! `axum::serve`, which has no timeouts and no cap. It does not know the routes.

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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::tasks::{TaskExecutor, Tasks};

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take for its first request, and for the head of each HTTP/1.1 request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a silent HTTP/2 peer is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Longest an open connection is kept once shutdown began: a tap that streams does not end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of bodies that one HTTP/2 connection may send before somebody reads them; also what one stream may.
const WINDOW: u32 = 256 * 1024;
/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What bounds a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Name of its tasks, and what it is in logs, e.g. `admin connection`.
    pub name: &'static str,
    /// Most connections at once; more are closed as they come.
    pub connections: usize,
    /// Most streams at once on one HTTP/2 connection.
    pub streams: u32,
}

/// Takes a port; `purpose` is what for, in the error: `admin`.
pub async fn listen(addr: SocketAddr, purpose: &str) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| {
        let text = format!("cannot listen on {addr} for {purpose}: {}", why(&error, addr.port()));
        io::Error::new(error.kind(), text)
    })
}

/// What stands in the way of listening, and what to do about it.
fn why(error: &io::Error, port: u16) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "another program has this port; `ss -ltnp 'sport = :{port}'` shows which: end it, or take another port"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!("{error}; ports below 1024 need CAP_NET_BIND_SERVICE: take another port")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{error}; this machine has no such address (`ip address` lists them)")
        }
        _ => error.to_string(),
    }
}

/// Given to each request as an extension: resolves when the server is to end, for answers that are held back.
#[derive(Clone, Debug)]
pub(crate) struct Ending(CancellationToken);

impl Ending {
    pub(crate) async fn begun(&self) {
        self.0.cancelled().await;
    }
}

/// A server that has its port and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens; with the real port when 0 was asked for.
    pub addr: SocketAddr,
    listener: TcpListener,
}

impl Bound {
    /// Takes the port; `purpose` is what for, in the error: `admin`.
    pub async fn bind(addr: SocketAddr, purpose: &str) -> io::Result<Self> {
        let listener = listen(addr, purpose).await?;
        Ok(Self { addr: listener.local_addr()?, listener })
    }

    /// Serves HTTP/1.1 and HTTP/2, over TLS where there is an acceptor, until `shutdown` resolves; then lets requests
    /// under way finish for at most 5 seconds.
    pub async fn run(
        self,
        limits: Limits,
        tls: Option<TlsAcceptor>,
        router: Router,
        shutdown: impl Future<Output = ()>,
    ) {
        let Limits { name, connections, .. } = limits;
        let tasks = Tasks::new();
        // Ends the connections also when this future is dropped.
        let _ends_with_us = tasks.token().drop_guard();
        let slots = Arc::new(Semaphore::new(connections));
        let server = server(tasks.executor(name), limits);
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let (stream, peer) = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept(&self.listener) => accepted,
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                tracing::debug!(%peer, "{name} closed: {connections} are open");
                continue;
            };
            let connection = Connection { name, peer, router: router.clone(), ending: tasks.token(), _slot: slot };
            tasks.spawn(name, connection.serve(stream, tls.clone(), server.clone()));
        }
        drop(self.listener);
        // Connections end themselves within the grace time; the second is for those that are just being dropped.
        let stopped = tasks.shutdown(GRACE + Duration::from_secs(1)).await;
        if !stopped.is_clean() {
            tracing::warn!(%stopped, "connections did not end");
        }
    }
}

/// Accepts one connection. Failures are survived here; where trying again at once would spin, after a pause.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again in {ACCEPT_PAUSE:?}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors of a connection that died before it was accepted (accept(2) passes them on); the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | ConnectionRefused)
}

fn server(executor: TaskExecutor, limits: Limits) -> auto::Builder<TaskExecutor> {
    let mut server = auto::Builder::new(executor);
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(64 * 1024);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(HEAD_TIMEOUT)
        .max_concurrent_streams(limits.streams)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .max_header_list_size(16 * 1024);
    server
}

struct Connection {
    name: &'static str,
    peer: SocketAddr,
    router: Router,
    ending: CancellationToken,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>, server: auto::Builder<TaskExecutor>) {
        let Self { name, peer, .. } = self;
        let Some(tls) = tls else { return self.serve_http(stream, server).await };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http(stream, server).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "{name}: handshake failed"),
            Err(_elapsed) => tracing::debug!(%peer, "{name}: handshake took more than {HANDSHAKE_TIMEOUT:?}"),
        }
    }

    async fn serve_http(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        server: auto::Builder<TaskExecutor>,
    ) {
        let Self { name, peer, router, ending, _slot } = self;
        let asked = AtomicBool::new(false);
        let service = service_fn(|request| {
            asked.store(true, Ordering::Relaxed);
            answer(router.clone(), peer, Ending(ending.clone()), request)
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
                        tracing::debug!(%peer, "{name} closed: no request within {HEAD_TIMEOUT:?}");
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
            tracing::debug!(%peer, error, "{name} failed");
        }
    }
}

async fn answer(
    router: Router,
    peer: SocketAddr,
    ending: Ending,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(ConnectInfo(peer));
    request.extensions_mut().insert(ending);
    router.oneshot(request.map(Body::new)).await
}
