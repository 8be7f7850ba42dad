//! The pod's own connections: where they go, what they speak, and on their way.
//!
//! `worker` calls [`serve`] for every connection the redirect delivers. One async function per stage; the rows of contracts
//! §3 are decided here, requests in [`request`], bytes in [`tcp`].

mod desk;
mod plan;
mod request;
pub(crate) mod target;
mod tcp;

pub(crate) use tcp::carry;

use std::{net::SocketAddr, rc::Rc, time::Duration};

use bytes::BytesMut;
use mesh_proto::{outcome::Outcome, workload::Protocol};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use self::target::{Compiled, Member, Target};
use crate::{
    config::Unresolved,
    connections::{Cause, How},
    detect::{
        Detected,
        sniff::{Heard, Sniffer, within},
    },
    error::{ProxyError, Result},
    http::Version,
    listen,
    record::{Side, report},
    stream::{Io, Prefixed, Stream, reset},
    worker::Worker,
};

/// A client that speaks first does so at once (the request follows the last step of the TCP handshake). One that has not
/// spoken after this long may be waiting for the server, so the way there is opened: together with a handshake of a few
/// milliseconds well within the 100 ms of contracts §2.
const FIRST_WORD: Duration = Duration::from_millis(10);

/// Read at once from a server that speaks first; banners are short.
const BANNER: usize = 2 * 1024;

/// How long a client that is refused before it has spoken has to show that it speaks HTTP and wants an answer.
const REFUSAL_WAIT: Duration = Duration::from_millis(250);
/// How long a client that there is no place for may take to hear that.
const REFUSAL_STAY: Duration = Duration::from_secs(1);

/// Serves one connection of the pod.
pub(crate) async fn serve(worker: Rc<Worker>, socket: TcpStream, source: SocketAddr) {
    let destination = match listen::original_dst(worker.config(), &socket) {
        Ok(destination) => destination,
        Err(error) => {
            tracing::debug!(%source, %error, "a connection without original destination is refused");
            reset(&socket);
            return;
        }
    };
    let side = Side::outbound(&worker, source, destination);
    if worker.is_own_listener(destination) {
        report(&worker, &side, &ProxyError::new(Outcome::Loop, "the proxy's own listener"));
        reset(&socket);
        return;
    }
    let target = match worker.target(destination).await {
        Ok(target) => target,
        Err(error) => {
            return match worker.config().unresolved {
                Unresolved::PassThrough => Box::pin(tcp::pass_through(&worker, socket, side)).await,
                Unresolved::Refuse => Box::pin(refuse(&worker, socket, &side, error)).await,
            };
        }
    };
    let side = side.with_service(target.current(&worker).service());
    let connection = Rc::new(Connection { worker, side: Rc::new(side), target, early: std::cell::RefCell::default() });
    connection.serve(socket).await;
}

/// One connection of the application.
struct Connection {
    worker: Rc<Worker>,
    side: Rc<Side>,
    target: Rc<Target>,
    /// The way that was opened before the client had spoken, until it is used.
    early: std::cell::RefCell<Option<(Rc<Member>, Stream)>>,
}

/// How a connection goes on.
enum Way {
    Requests(Version, Prefixed<TcpStream>),
    /// Opaque. `banner`: read from the server already.
    Bytes {
        client: Prefixed<TcpStream>,
        banner: BytesMut,
    },
}

impl Connection {
    async fn serve(self: Rc<Self>, socket: TcpStream) {
        let compiled = self.target.current(&self.worker);
        let way = match compiled.protocol() {
            _ if compiled.is_external() => Ok(Way::opaque(socket)),
            Protocol::Opaque | Protocol::Tls => Ok(Way::opaque(socket)),
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => self.declared(socket).await,
            Protocol::Detect if compiled.has_routes() => self.routed(socket).await,
            Protocol::Detect => self.detect(socket, &compiled).await,
        };
        match way {
            Ok(Way::Requests(version, client)) => request::serve(self, version, client.into()).await,
            Ok(Way::Bytes { client, banner }) => {
                let early = self.early.take();
                Box::pin(tcp::serve(&self, &compiled, client.into(), banner, early)).await;
            }
            Err(Failed::Gone(cause)) => self.side.live.ends(cause),
            Err(Failed::Unheard(error, socket)) => Box::pin(refuse(&self.worker, socket, &self.side, error)).await,
            Err(Failed::Refused(error, socket)) => {
                report(&self.worker, &self.side, &error);
                reset(&socket);
            }
        }
    }

    /// Declared to carry requests: only which HTTP is left to tell. Whatever else comes is for hyper to refuse.
    async fn declared(&self, mut socket: TcpStream) -> Result<Way, Failed> {
        let mut sniffer = Sniffer::default();
        match sniffer.must_say(&mut socket, self.worker.config().head_timeout).await {
            // It asked for nothing: no answer is due.
            Ok(heard @ (Heard::End | Heard::Unfinished)) if sniffer.is_empty() => Err(Failed::silent(heard)),
            Ok(Heard::Unfinished) => Ok(Way::late(sniffer, socket)),
            Ok(Heard::Protocol(Detected::Tls { .. })) => Err(refused(socket, "TLS on a port declared as HTTP")),
            Ok(Heard::Protocol(Detected::Http2)) => Ok(Way::requests(Version::Http2, sniffer, socket)),
            Ok(_) => Ok(Way::requests(Version::Http1, sniffer, socket)),
            Err(error) => Err(Failed::gone(&error)),
        }
    }

    /// Not declared, but there are routes: nothing may get past them as bytes.
    async fn routed(&self, mut socket: TcpStream) -> Result<Way, Failed> {
        let mut sniffer = Sniffer::default();
        match sniffer.must_say(&mut socket, self.worker.config().head_timeout).await {
            Ok(heard @ (Heard::End | Heard::Unfinished)) if sniffer.is_empty() => Err(Failed::silent(heard)),
            Ok(Heard::Protocol(Detected::Http1)) => Ok(Way::requests(Version::Http1, sniffer, socket)),
            Ok(Heard::Protocol(Detected::Http2)) => Ok(Way::requests(Version::Http2, sniffer, socket)),
            Ok(_) => Err(refused(socket, "the Service has HTTP routes, and the client does not speak HTTP")),
            Err(error) => Err(Failed::gone(&error)),
        }
    }

    /// Not declared: who speaks first, and how.
    async fn detect(&self, mut socket: TcpStream, compiled: &Compiled) -> Result<Way, Failed> {
        let limit = self.worker.config().detect_timeout;
        let mut sniffer = Sniffer::default();
        match within(FIRST_WORD, sniffer.first_bytes(&mut socket)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(Failed::gone(&error)),
            None => {
                // Both may be waiting for the other: open the way, unless the client speaks meanwhile.
                let opened = tokio::select! {
                    biased;
                    opened = Box::pin(tcp::open_early(&self.worker, compiled)) => Some(opened),
                    _ = sniffer.first_bytes(&mut socket) => None,
                };
                if let Some(opened) = opened {
                    let (member, mut server) = match opened {
                        Ok(opened) => opened,
                        // A busy client may be about to speak HTTP, and would understand an answer.
                        Err(error) => return Err(Failed::Unheard(error, socket)),
                    };
                    let mut banner = BytesMut::with_capacity(BANNER);
                    let server_first = tokio::select! {
                        // The server's end, or an error, is also something that only bytes can tell the client.
                        _ = server.read_buf(&mut banner) => true,
                        _ = sniffer.first_bytes(&mut socket) => false,
                    };
                    *self.early.borrow_mut() = Some((member, server));
                    if server_first {
                        let client = Prefixed::new(sniffer.read.freeze(), socket);
                        return Ok(Way::Bytes { client, banner });
                    }
                }
            }
        }
        let heard = sniffer.listen_for(&mut socket, limit).await;
        match heard {
            Ok(Heard::Protocol(Detected::Http1)) => Ok(Way::requests(Version::Http1, sniffer, socket)),
            Ok(Heard::Protocol(Detected::Http2)) => Ok(Way::requests(Version::Http2, sniffer, socket)),
            Ok(Heard::Protocol(_) | Heard::Unfinished | Heard::End) => {
                let client = Prefixed::new(sniffer.read.freeze(), socket);
                Ok(Way::Bytes { client, banner: BytesMut::new() })
            }
            Err(error) => Err(Failed::gone(&error)),
        }
    }
}

impl Way {
    fn opaque(socket: TcpStream) -> Self {
        Self::Bytes { client: socket.into(), banner: BytesMut::new() }
    }

    /// A head that began and was not whole in time: to be answered so.
    fn late(sniffer: Sniffer, socket: TcpStream) -> Self {
        Self::Requests(Version::Http1, Prefixed::new(sniffer.read.freeze(), socket).late())
    }

    fn requests(version: Version, sniffer: Sniffer, socket: TcpStream) -> Self {
        Self::Requests(version, Prefixed::new(sniffer.read.freeze(), socket))
    }
}

/// Why a connection does not go on.
enum Failed {
    /// The client left before it said anything, or said nothing in its time. Nobody is to be told.
    Gone(Cause),
    /// Reset, and reported.
    Refused(ProxyError, TcpStream),
    /// Refused before the client has said anything: answered if it speaks HTTP in a moment, else as above.
    Unheard(ProxyError, TcpStream),
}

impl Failed {
    fn gone(error: &std::io::Error) -> Self {
        Self::Gone(Cause::Client(How::of(error)))
    }

    fn silent(heard: Heard) -> Self {
        Self::Gone(Cause::of_silence(heard))
    }
}

fn refused(socket: TcpStream, detail: &'static str) -> Failed {
    Failed::Refused(ProxyError::new(Outcome::ProtocolRefused, detail), socket)
}

/// Refuses a connection that there is no place for.
pub(crate) async fn overloaded(worker: &Rc<Worker>, socket: TcpStream, source: SocketAddr, error: ProxyError) {
    let Ok(destination) = listen::original_dst(worker.config(), &socket) else { return reset(&socket) };
    let side = Side::outbound(worker, source, destination);
    // A client of HTTP/2 may stay where it was refused.
    let _ = within(REFUSAL_STAY, refuse(worker, socket, &side, error)).await;
}

/// Refuses a connection: an answer where the client speaks HTTP first, else a reset.
async fn refuse(worker: &Rc<Worker>, mut socket: TcpStream, side: &Side, error: ProxyError) {
    report(worker, side, &error);
    let mut sniffer = Sniffer::default();
    let heard = within(REFUSAL_WAIT, sniffer.listen(&mut socket)).await;
    let version = match heard {
        Some(Ok(Heard::Protocol(Detected::Http1))) => Version::Http1,
        Some(Ok(Heard::Protocol(Detected::Http2))) => Version::Http2,
        _ => return reset(&socket),
    };
    let client: Stream = Prefixed::new(sniffer.read.freeze(), Io::Tcp(socket));
    request::refuse_all(worker, &side.live, client, version, error).await;
}
