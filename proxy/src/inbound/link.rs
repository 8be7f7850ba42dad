//! One connection to one port of the application, once it is known who the client is: the answer to the link's opening, the
//! application's side, and bytes both ways.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use mesh_proto::{identity::Identity, outcome::Outcome, workload::Protocol};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{authorize::Authorization, request};
use crate::{
    connections::{Cause, How},
    detect::{
        Detected,
        sniff::{Heard, Sniffer},
    },
    error::{ProxyError, Result},
    http::Version,
    link as opening_byte,
    metrics::{Edge, EdgeLabels},
    outbound::carry,
    pool::{self, Upstream},
    record::{Record, Side, report},
    stream::{Io, Stream},
    tls::Alpn,
    worker::Worker,
};

/// A connection to the application, opened before it was known what for.
#[derive(Default)]
pub(super) enum Opening {
    /// Not tried.
    #[default]
    None,
    /// There.
    Open(TcpStream),
    /// Tried in vain.
    Failed(ProxyError),
}

/// One connection to one port.
pub(crate) struct Link {
    pub(super) worker: Rc<Worker>,
    side: Rc<Side>,
    authorization: Authorization,
    tls: bool,
    ahead: RefCell<Opening>,
}

impl Link {
    /// Of the client that `side` names.
    pub(super) fn new(worker: &Rc<Worker>, side: Side, tls: bool) -> Self {
        Self {
            worker: Rc::clone(worker),
            authorization: Authorization::new(side.destination.port(), side.source_identity.clone()),
            side: Rc::new(side),
            tls,
            ahead: RefCell::default(),
        }
    }

    /// The client has proved to be `identity`.
    pub(super) fn proved(self, identity: Identity) -> Self {
        self.side.live.speaks_tls(true);
        Self::new(&self.worker, self.side.of_client(identity), true)
    }

    /// Who and where.
    pub(super) fn side(&self) -> &Rc<Side> {
        &self.side
    }

    /// What the port was declared to speak.
    pub(super) fn protocol(&self) -> Protocol {
        let policy = self.worker.inbound_policy();
        policy.map(|policy| policy.port(self.side.destination.port()).protocol).unwrap_or_default()
    }

    /// Whether the client may, now.
    pub(super) fn authorize(&self) -> Result<()> {
        self.authorization.check(&self.worker)
    }

    /// Waits until the policy no longer lets the client in: bytes that flow do not outlive that.
    pub(super) async fn refused(&self) -> ProxyError {
        let mut changes = self.worker.inbound_policy_changes();
        loop {
            if let Err(error) = self.authorize() {
                return error;
            }
            if changes.changed().await.is_err() {
                // The process ends; the drain has the last word.
                return std::future::pending().await;
            }
        }
    }

    /// Whether the application may be dialled before the client has spoken (contracts §2): only for somebody who is let in, and
    /// never where requests are declared.
    pub(super) fn may_open_ahead(&self) -> bool {
        !self.protocol().is_http() && self.authorize().is_ok()
    }

    /// Dials the application ahead.
    pub(super) async fn open_ahead(&self) -> Opening {
        match pool::open(&self.worker, &self.app(), Alpn::Tcp).await.map(Stream::into_parts) {
            Ok((_, Io::Tcp(socket))) => Opening::Open(socket),
            Ok(_) => Opening::None,
            Err(error) => Opening::Failed(error),
        }
    }

    /// Takes over what was opened ahead.
    pub(super) fn opened_ahead(&mut self, opening: Opening) {
        self.ahead = RefCell::new(opening);
    }

    /// Keeps a connection that was opened ahead for a later client, so that the application does not see it aborted.
    pub(super) fn keep(&self, opening: Opening) {
        if let Opening::Open(socket) = opening {
            self.app().put_spare(socket);
        }
    }

    /// The application on this port.
    pub(super) fn app(&self) -> Rc<Upstream> {
        self.worker.app(self.side.destination)
    }

    /// Counters; per connection.
    pub(super) fn edge(&self) -> Arc<Edge> {
        let identity = self.side.source_identity.as_ref();
        self.worker.shared.metrics.edge(EdgeLabels {
            direction: self.side.direction.as_str(),
            dst_namespace: self.worker.shared.credentials.identity().namespace().to_owned(),
            dst_service: String::new(),
            dst_port: self.side.destination.port(),
            dst_workload: String::new(),
            client_id: identity.map(|identity| identity.as_str().to_owned()).unwrap_or_default(),
            tls: self.tls,
        })
    }

    /// Serves a link of the mesh: what it carries was said by its ALPN.
    pub(super) async fn serve(self, stream: Stream, alpn: Alpn) {
        let opening = self.ahead.take();
        match alpn {
            Alpn::Mux => self.channels(stream, opening).await,
            Alpn::Http1 => self.requests(stream, Version::Http1, opening).await,
            Alpn::H2 => self.requests(stream, Version::Http2, opening).await,
            Alpn::Tcp => Box::pin(self.serve_bytes(stream, opening)).await,
            Alpn::Detect => Box::pin(self.serve_detect(stream, opening)).await,
        }
    }

    /// Serves requests, each authorized on its own.
    pub(super) async fn requests(self, stream: Stream, version: Version, opening: Opening) {
        // The first request takes it.
        self.keep(opening);
        request::serve(Rc::new(self), stream, version).await;
    }

    /// The same on each channel of a connection that requests share.
    async fn channels(self, stream: Stream, opening: Opening) {
        self.keep(opening);
        request::serve_channels(Rc::new(self), stream).await;
    }

    /// Bytes of a client that is no proxy of the mesh, or whose link was answered already.
    pub(super) async fn carry(self, client: Stream, opening: Opening) {
        let mut record = Record::connection(&self.worker, &self.side, &self.edge());
        match self.app_for_bytes(opening).await {
            Ok(app) => self.copy(client, app, record).await,
            Err(error) => {
                record.opened();
                record.failed(&error);
                client.abort();
            }
        }
    }

    /// `mesh/1/tcp`: the client is told whether the application took the connection before it sends anything.
    async fn serve_bytes(self, mut stream: Stream, opening: Opening) {
        let mut record = Record::connection(&self.worker, &self.side, &self.edge());
        let app = self.app_for_bytes(opening).await;
        let told = tell(&mut stream, app.as_ref().map(|_| ())).await;
        match (app, told) {
            (Ok(app), Ok(())) => self.copy(stream, app, record).await,
            (Ok(app), Err(gone)) => self.unused(&gone, Opening::Open(app)),
            (Err(error), _) => record.failed(&error),
        }
    }

    /// `mesh/1/detect`: both ends detect.
    async fn serve_detect(self, mut stream: Stream, opening: Opening) {
        let opening = match self.authorize() {
            Ok(()) if self.may_open_ahead() => match opening {
                Opening::None => self.open_ahead().await,
                opened => opened,
            },
            Ok(()) => Opening::None,
            Err(error) => Opening::Failed(error),
        };
        if let Opening::Failed(error) = &opening {
            let _ = tell(&mut stream, Err(error)).await;
            report(&self.worker, &self.side, error);
            return;
        }
        if let Err(gone) = tell(&mut stream, Ok(())).await {
            return self.unused(&gone, opening);
        }
        let mut sniffer = match self.protocol() {
            Protocol::Opaque | Protocol::Tls => Sniffer::only_tls(),
            _ => Sniffer::default(),
        };
        if let Opening::Open(app) = &opening {
            tokio::select! {
                _ = app.readable() => {
                    let client = stream.unread(sniffer.read.freeze());
                    return self.carry(client, opening).await;
                }
                _ = sniffer.first_bytes(&mut stream) => {}
            }
        }
        let heard = if self.protocol().is_http() {
            sniffer.must_say(&mut stream, self.worker.config().head_timeout).await
        } else {
            sniffer.listen_for(&mut stream, self.worker.config().detect_timeout).await
        };
        let client = stream.unread(sniffer.read.freeze());
        match heard {
            Ok(Heard::Protocol(Detected::Http1)) => self.requests(client, Version::Http1, opening).await,
            Ok(Heard::Protocol(Detected::Http2)) => self.requests(client, Version::Http2, opening).await,
            // Dropped without close_notify: closed unused, the request went by another way. (A client that only ends its
            // own side says so, and is an opaque one.)
            Err(gone) => self.unused(&gone, opening),
            Ok(Heard::Unfinished) if self.protocol().is_http() => {
                self.requests(client.late(), Version::Http1, opening).await;
            }
            Ok(_) if self.protocol().is_http() => self.requests(client, Version::Http1, opening).await,
            Ok(_) => self.carry(client, opening).await,
        }
    }

    /// The client left before it used the connection.
    fn unused(&self, gone: &std::io::Error, opening: Opening) {
        self.side.live.ends(Cause::Client(How::of(gone)));
        self.keep(opening);
    }

    async fn app_for_bytes(&self, opening: Opening) -> Result<TcpStream> {
        if let Err(error) = self.authorize() {
            self.keep(opening);
            return Err(error);
        }
        let opening = match opening {
            Opening::None => self.open_ahead().await,
            opened => opened,
        };
        match opening {
            Opening::Open(socket) => Ok(socket),
            Opening::Failed(error) => Err(error),
            Opening::None => Err(ProxyError::new(Outcome::AppRefused, "no connection")),
        }
    }

    async fn copy(&self, client: Stream, app: TcpStream, mut record: Record) {
        record.opened();
        carry(&self.worker, client, Io::Tcp(app).into(), record, self.refused()).await;
    }
}

/// Says on a byte-carrying link whether it carries.
async fn tell(stream: &mut Stream, result: std::result::Result<(), &ProxyError>) -> std::io::Result<()> {
    let byte = result.map_or_else(|error| opening_byte::byte(error.outcome), |()| opening_byte::CARRIES);
    stream.write_all(&[byte]).await?;
    stream.flush().await?;
    if result.is_err() {
        stream.shutdown().await?;
    }
    Ok(())
}
