//! A client that speaks after the server: its first bytes are held back until they are known to be no ClientHello of ours.
//!
//! Inbound wraps the client's socket in it where the application spoke first, since by then nobody is reading the client's first
//! bytes any more (contracts §1: a hello that offers one of our ALPNs never reaches the application). Writes pass at once. It
//! knows nothing of policy: what is not ours flows on unread.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use mesh_proto::outcome::Outcome;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

use super::{Detected, Detector, MAX_BYTES};
use crate::error::ProxyError;

/// A client's socket, its first bytes unread.
pub(crate) struct Guarded {
    pub(crate) socket: TcpStream,
    /// Read, and not given on yet.
    held: BytesMut,
    state: State,
}

enum State {
    Listening(Box<Detector>),
    /// Not ours: `held` first, then the socket.
    Open,
}

impl Guarded {
    /// Nothing was read of `socket` before.
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket, held: BytesMut::new(), state: State::Listening(Box::new(Detector::only_tls())) }
    }

    /// Reads on until it is known whether the client is ours. An end in the middle of a hello is an error, too.
    fn poll_listen(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let State::Listening(detector) = &mut self.state {
            match detector.look(&self.held) {
                Some(Detected::Tls { mesh: true }) => return Poll::Ready(Err(refused("a ClientHello of the mesh"))),
                Some(_) => self.state = State::Open,
                None => {
                    let before = self.held.len();
                    ready!(poll_more(&mut self.socket, cx, &mut self.held))?;
                    if self.held.len() == before {
                        if before > 0 {
                            return Poll::Ready(Err(refused("half a ClientHello")));
                        }
                        self.state = State::Open;
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_listen(cx))?;
        if self.held.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let n = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..n]);
        self.held.advance(n);
        if self.held.is_empty() {
            // Gives the memory back: the connection may live for days.
            self.held = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads once; nothing is added at the end of the stream. `held` stays within [`MAX_BYTES`], where the detector decides.
fn poll_more(socket: &mut TcpStream, cx: &mut Context<'_>, held: &mut BytesMut) -> Poll<io::Result<()>> {
    let mut bytes = [0; 2 * 1024];
    let room = (MAX_BYTES - held.len()).min(bytes.len());
    let mut read = ReadBuf::new(&mut bytes[..room]);
    ready!(Pin::new(socket).poll_read(cx, &mut read))?;
    held.extend_from_slice(read.filled());
    Poll::Ready(Ok(()))
}

fn refused(what: &str) -> io::Error {
    let detail = format!("{what} after the application had begun to speak");
    io::Error::new(io::ErrorKind::PermissionDenied, ProxyError::new(Outcome::ClientCertificateInvalid, detail))
}
