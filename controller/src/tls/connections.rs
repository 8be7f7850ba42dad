//! Connections after their handshake: each with its peer, its place in the budget, and a way to cut it from outside.

use std::{
    collections::HashMap,
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use mesh_proto::server::Peer;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::budget::Place;

/// How long a connection without a client certificate lives: one call that is answered within half of this.
const STRANGER: Duration = Duration::from_mins(1);

/// Open connections, by the peer's address, so that one can be cut from outside.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<HashMap<SocketAddr, CancellationToken>>>);

impl Connections {
    /// Ends the connection of a peer, whatever is on its way.
    pub fn cut(&self, peer: SocketAddr) {
        if let Some(token) = self.0.lock().get(&peer) {
            token.cancel();
        }
    }

    pub(super) fn add(&self, tls: TlsStream<TcpStream>, peer: Peer, place: Place) -> Connection {
        let token = CancellationToken::new();
        self.0.lock().insert(peer.address, token.clone());
        let cut = Box::pin(token.cancelled_owned());
        let end = peer.identity.is_none().then(|| Box::pin(tokio::time::sleep(STRANGER)));
        Connection { tls, cut, end, peer, connections: self.clone(), _place: place }
    }
}

/// One connection after its handshake.
pub struct Connection {
    tls: TlsStream<TcpStream>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When a stranger has had its time.
    end: Option<Pin<Box<Sleep>>>,
    peer: Peer,
    connections: Connections,
    _place: Place,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.0.lock().remove(&self.peer.address);
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The one place to look: whoever serves the connection always waits to read.
        let over = self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if over || self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
