//! One upstream (an endpoint, or the application of the own pod) of one worker: its load and its open connections.
//!
//! HTTP/1: channels of shared connections ([`shared`]), and idle connections, last in first out, so that surplus ones age and close.
//! HTTP/2: shared connections with a cap on streams. Everything is bounded; [`Upstream::sweep`] runs on the worker's coarse timer.

mod shared;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{LocalBoxFuture, Shared},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_proto::{admin, endpoint::Endpoint, identity::Identity, outcome::Outcome};
use tokio::{net::TcpStream, sync::oneshot, time::Instant};

use self::shared::SharedConnections;
pub(crate) use self::shared::open_channel;
use crate::{
    balance::{ewma::Load, silence::Silence},
    connect,
    error::{ProxyError, Result},
    http::{CONNECTION_WINDOW, MAX_HEAD, MAX_STREAMS, STREAM_WINDOW, body::RequestBody, control_frames::Bounded},
    inbound,
    stream::{Heard, Io, Noted, Stream},
    tls::Alpn,
    worker::Worker,
};

type H2Sender = hyper::client::conn::http2::SendRequest<RequestBody>;

/// Idle HTTP/1 connections kept per upstream and worker: what a burst of that many concurrent requests leaves behind.
const MAX_IDLE: usize = 128;
/// Between proxies. The inbound side never closes an idle connection by itself (but for a drain), so that no request meets a
/// connection that is just being closed.
const IDLE_MESH: Duration = Duration::from_secs(10);
/// To applications: shorter than the keep-alive of common servers (Node 5 s, Puma and Apache 5 s; gunicorn 2 s notices first).
const IDLE_PLAIN: Duration = Duration::from_secs(3);
/// HTTP/2 connections per upstream and worker; with [`MAX_STREAMS`] each, 1600 streams before any waits.
const MAX_HTTP2: usize = 8;
/// Connections opened ahead for a client that then said nothing; see [`Upstream::put_spare`].
const MAX_SPARE: usize = 8;

/// HTTP/2 keep-alive of connections with open streams (reliability.md §1.3).
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// How an upstream is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// By mutual TLS, and nothing else.
    Mesh(Identity),
    /// In plain TCP: not meshed.
    Plain,
    /// In plain TCP and with patience: outside the mesh, nothing is known about it.
    External,
    /// The application of this pod, from the inbound side.
    App,
    /// This pod, from the outbound side: handed over in process, never dialled (contracts §3).
    Own,
}

/// An attempt to open an HTTP/2 connection, for everybody who waits for it.
type Dialling = Shared<LocalBoxFuture<'static, Result<Rc<H2Connection>>>>;

/// One upstream.
pub(crate) struct Upstream {
    /// Who and where.
    pub(crate) endpoint: Endpoint,
    /// How.
    pub(crate) reach: Reach,
    /// How busy and how quick.
    pub(crate) load: Load,
    /// Whether it answers at all.
    pub(crate) silence: Silence,
    idle: RefCell<Vec<(Stream, Instant)>>,
    shared: SharedConnections,
    http2: RefCell<Vec<Rc<H2Connection>>>,
    dialling: RefCell<Option<Dialling>>,
    spare: RefCell<Vec<(TcpStream, Instant)>>,
}

/// One HTTP/1 connection, in hyper's hands for one request.
pub(crate) struct H1Connection {
    /// Sends it. When it is dropped, the connection is over, or idle.
    pub(crate) sender: hyper::client::conn::http1::SendRequest<RequestBody>,
    /// Whether the upstream has said anything.
    pub(crate) heard: Heard,
    /// What is to become of it; dropped: nothing more.
    pub(crate) fate: oneshot::Sender<Fate>,
}

/// What becomes of an HTTP/1 connection that hyper had.
pub(crate) enum Fate {
    /// It can carry the next request.
    Stays,
    /// It is HTTP no more, and for somebody else.
    Leaves(oneshot::Sender<Stream>),
}

/// One HTTP/2 connection.
pub(crate) struct H2Connection {
    /// Cloned per request.
    pub(crate) sender: H2Sender,
    /// Open streams.
    pub(crate) streams: Cell<u32>,
    /// Whether a request was answered on it.
    pub(crate) answered: Cell<bool>,
    used: Cell<Instant>,
}

impl Upstream {
    /// With no connection yet.
    pub(crate) fn new(endpoint: Endpoint, reach: Reach) -> Self {
        Self {
            endpoint,
            reach,
            load: Load::new(),
            silence: Silence::default(),
            idle: RefCell::default(),
            shared: SharedConnections::default(),
            http2: RefCell::default(),
            dialling: RefCell::default(),
            spare: RefCell::default(),
        }
    }

    /// Where.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Whether what it sends was sent by a proxy of ours (or by this one).
    pub(crate) fn is_mesh(&self) -> bool {
        matches!(self.reach, Reach::Mesh(_) | Reach::Own)
    }

    /// It failed before it did anything: as unattractive as the slowest success could be, and that decays like one.
    pub(crate) fn failed(&self, slowest: Duration) {
        self.load.observe(slowest, Instant::now());
    }

    /// An idle HTTP/1 connection, the one used last, of which the other end has not let go.
    pub(crate) fn take_idle(&self) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let (mut stream, _) = idle.pop()?;
            if stream.is_quiet() {
                return Some(stream);
            }
        }
    }

    /// Waits until the one used last has something to read.
    #[cfg(test)]
    pub(crate) async fn idle_is_readable(&self) {
        std::future::poll_fn(|cx| {
            let mut idle = self.idle.borrow_mut();
            idle.last_mut().map_or(std::task::Poll::Ready(()), |(stream, _)| stream.poll_readable(cx).map(drop))
        })
        .await;
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put_idle(&self, mut stream: Stream) {
        stream = match stream.into_channel() {
            Ok(channel) => return self.put_channel(channel),
            Err(stream) => stream,
        };
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            idle.push((stream, Instant::now()));
        } else {
            stream.say_end();
        }
    }

    /// Keeps a connection to the application that was opened ahead and not needed, so that the application does not see
    /// it aborted (contracts §2).
    pub(crate) fn put_spare(&self, socket: TcpStream) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            spare.push((socket, Instant::now()));
        }
    }

    fn take_spare(&self) -> Option<TcpStream> {
        let mut spare = self.spare.borrow_mut();
        loop {
            let (socket, _) = spare.pop()?;
            // Readable without an answer due: it has ended, or speaks first; either way it is not as good as new.
            if is_silent(&socket) {
                return Some(socket);
            }
        }
    }

    fn usable_http2(&self) -> Option<Rc<H2Connection>> {
        let mut connections = self.http2.borrow_mut();
        connections.retain(|connection| !connection.sender.is_closed());
        let full = connections.len() >= MAX_HTTP2;
        let best = connections.iter().min_by_key(|connection| connection.streams.get())?;
        (full || best.streams.get() < MAX_STREAMS).then(|| {
            best.used.set(Instant::now());
            Rc::clone(best)
        })
    }

    /// For the admin page.
    pub(crate) fn show(&self, now: Instant) -> admin::Load {
        admin::Load {
            latency_ms: self.load.latency(now).as_secs_f64() * 1000.0,
            in_flight: self.load.pending().into(),
            connections: (self.idle.borrow().len() + self.shared.len() + self.http2.borrow().len()) as u64,
        }
    }

    /// Closes every connection that carries nothing.
    pub(crate) fn close_idle(&self) {
        self.idle.borrow_mut().drain(..).for_each(|(mut stream, _)| stream.say_end());
        self.http2.borrow_mut().clear();
        self.shared.close();
        self.spare.borrow_mut().clear();
    }

    /// Closes what has been idle for too long. Whether anything is left.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let limit = match self.reach {
            Reach::Mesh(_) | Reach::Own => IDLE_MESH,
            Reach::Plain | Reach::External | Reach::App => IDLE_PLAIN,
        };
        let fresh = |since: Instant| now.saturating_duration_since(since) < limit;
        self.idle.borrow_mut().retain_mut(|(stream, since)| {
            let stays = fresh(*since) && stream.is_quiet();
            if !stays {
                stream.say_end();
            }
            stays
        });
        self.spare.borrow_mut().retain(|(_, since)| fresh(*since));
        // An attempt that everybody who waited for it has given up holds this upstream in memory.
        let mut dialling = self.dialling.borrow_mut();
        if dialling.as_ref().is_some_and(|attempt| attempt.strong_count() == Some(1)) {
            dialling.take();
        }
        drop(dialling);
        self.http2.borrow_mut().retain(|connection| {
            !connection.sender.is_closed() && (connection.streams.get() > 0 || fresh(connection.used.get()))
        });
        let shares = self.shared.sweep(fresh);
        let own = [self.idle.borrow().len(), self.spare.borrow().len(), self.http2.borrow().len()];
        shares || own.iter().any(|len| *len > 0)
    }
}

fn is_silent(socket: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let peeked = socket2::SockRef::from(socket).peek(&mut byte);
    matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Opens a new connection to the upstream, carrying `alpn` where it is a link of the mesh.
pub(crate) async fn open(worker: &Rc<Worker>, upstream: &Upstream, alpn: Alpn) -> Result<Stream> {
    let address = upstream.address();
    // To try the application costs next to nothing, and its queue may have room again at any moment.
    if upstream.reach != Reach::App && !upstream.silence.may_try(Instant::now()) {
        let detail = format!("{address}: has not answered lately, and is tried again once a second");
        return Err(ProxyError::new(Outcome::ConnectTimeout, detail));
    }
    let opened = match &upstream.reach {
        Reach::Plain => connect::dial(worker.config(), address).await.map(|socket| Io::Tcp(socket).into()),
        Reach::External => {
            connect::dial_for(worker.config(), address, connect::PATIENT).await.map(|socket| Io::Tcp(socket).into())
        }
        Reach::App => {
            if let Some(socket) = upstream.take_spare() {
                Ok(Io::Tcp(socket).into())
            } else {
                let limit = worker.config().app_connect_timeout;
                let dialled = connect::dial_for(worker.config(), address, limit).await;
                dialled.map(|socket| Io::Tcp(socket).into()).map_err(app_refused)
            }
        }
        Reach::Mesh(identity) => {
            connect::mesh(worker.config(), &worker.shared.credentials, address, identity, alpn).await
        }
        Reach::Own => Ok(inbound::hand_over(worker, address, alpn)),
    };
    let opened = match opened {
        Ok(mut stream) if upstream.is_mesh() && matches!(alpn, Alpn::Tcp | Alpn::Detect) => {
            connect::wait_until_carried(&mut stream, address).await.map(|()| stream)
        }
        Ok(stream) if matches!(stream.alpn(), Some(Alpn::H2 | Alpn::Mux)) => {
            connect::wait_until_heard(stream, address).await
        }
        other => other,
    };
    match &opened {
        Err(error) if error.outcome == Outcome::ConnectTimeout => upstream.silence.unanswered(Instant::now()),
        _ => upstream.silence.broken(),
    }
    if opened.is_err() {
        upstream.failed(worker.config().connect_timeout);
    }
    opened
}

fn app_refused(error: ProxyError) -> ProxyError {
    match error.outcome {
        Outcome::ConnectFailed => ProxyError { outcome: Outcome::AppRefused, ..error },
        _ => error,
    }
}

/// Speaks HTTP/1 on an open connection, for one request.
pub(crate) async fn handshake_http1(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    stream: Stream,
) -> Result<H1Connection> {
    let heard = Heard::default();
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        // Of trailers, too. Exact, where the buffer's size is not: what comes at once may be longer.
        .max_header_size(MAX_HEAD)
        .preserve_header_case(true)
        .handshake(TokioIo::new(Noted::new(stream, heard.clone())))
        .await
        .map_err(|error| ProxyError::new(Outcome::UpstreamReset, error.to_string()))?;
    let (fate, decided) = oneshot::channel();
    let upstream = Rc::clone(upstream);
    worker.tasks.spawn_local("http1 upstream", async move {
        match connection.without_shutdown().await {
            Ok(parts) => {
                let (mut stream, read) = (parts.io.into_inner().into_inner(), parts.read_buf);
                match decided.await {
                    Ok(Fate::Stays) if read.is_empty() => upstream.put_idle(stream),
                    // Who asked for it may have gone meanwhile.
                    Ok(Fate::Leaves(to)) => drop(to.send(stream.unread(read))),
                    Ok(Fate::Stays) | Err(_) => stream.say_end(),
                }
            }
            // The request that suffers from it reports it.
            Err(error) => tracing::debug!(%error, "an HTTP/1 connection to an upstream ended"),
        }
    });
    Ok(H1Connection { sender, heard, fate })
}

/// A shared HTTP/2 connection, opened if there is none with room. Requests that need one at the same time wait for the same
/// attempt.
pub(crate) async fn http2(worker: &Rc<Worker>, upstream: &Rc<Upstream>) -> Result<Rc<H2Connection>> {
    if let Some(connection) = upstream.usable_http2() {
        return Ok(connection);
    }
    let attempt = upstream.dialling.borrow().clone();
    let attempt = attempt.unwrap_or_else(|| {
        let (worker, upstream_) = (Rc::clone(worker), Rc::clone(upstream));
        let attempt = async move {
            let opened = open(&worker, &upstream_, Alpn::H2).await;
            let connection = match opened {
                Ok(stream) => handshake_http2(&worker, &upstream_, stream).await,
                Err(error) => Err(error),
            };
            upstream_.dialling.borrow_mut().take();
            connection
        };
        let attempt = attempt.boxed_local().shared();
        *upstream.dialling.borrow_mut() = Some(attempt.clone());
        attempt
    });
    attempt.await
}

/// Speaks HTTP/2 on an open connection, and shares it.
pub(crate) async fn handshake_http2(
    worker: &Rc<Worker>,
    upstream: &Upstream,
    stream: Stream,
) -> Result<Rc<H2Connection>> {
    let (sender, connection) = hyper::client::conn::http2::Builder::new(worker.tasks.local_executor("http2 stream"))
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .adaptive_window(false)
        .max_header_list_size(u32::try_from(MAX_HEAD).expect("invariant: 64 KiB fits"))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(Bounded::server(stream)))
        .await
        .map_err(|error| ProxyError::new(Outcome::UpstreamReset, error.to_string()))?;
    worker.tasks.spawn_local("http2 upstream", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP/2 connection to an upstream ended");
        }
    });
    let connection = Rc::new(H2Connection {
        sender,
        streams: Cell::new(0),
        answered: Cell::new(false),
        used: Cell::new(Instant::now()),
    });
    upstream.http2.borrow_mut().push(Rc::clone(&connection));
    Ok(connection)
}
