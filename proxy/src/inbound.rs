//! Connections to the pod: who the client is, whether it may, and on to the application.
//!
//! `worker` calls [`serve`] for every connection the redirect delivers; the outbound side calls [`hand_over`] for what the pod
//! sends to itself. Requests are in [`request`], bytes in [`link`]. Fails closed: without a policy nobody gets in.

mod authorize;
mod desk;
mod link;
mod request;

use std::{future::Future, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use mesh_proto::{identity::Identity, outcome::Outcome, workload::Protocol};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, TlsStream};

use self::link::{Link, Opening};
use crate::{
    connections::{Cause, How},
    detect::{
        Detected,
        guard::Guarded,
        sniff::{Heard, Sniffer, within},
    },
    error::{ProxyError, Result},
    http::Version,
    listen,
    record::{Side, report},
    stream::{Io, Prefixed, Stream, reset},
    tls::{Alpn, peer_identity},
    worker::Worker,
};

/// A proxy of the mesh sends its ClientHello with the last step of the TCP handshake. Whoever has said nothing after this
/// long may be waiting for a server that speaks first.
const FIRST_WORD: Duration = Duration::from_millis(10);

/// What an application says first is kept from the client for so long after it connected: the client may be a proxy of the mesh
/// that got no processor for a moment, to which plaintext is an error. Well within the 100 ms of contracts §2.
const LATE_HELLO: Duration = Duration::from_millis(50);

/// A proxy that has just started again is dialled by others before it has its certificate and policy; they wait for it so long.
/// Less than the 3 s that they give a handshake.
const STARTING: Duration = Duration::from_secs(2);

/// Buffer of the way from the own outbound side, per direction: like a socket's.
const HAND_OVER: usize = 64 * 1024;

/// Serves one connection to the pod.
pub(crate) async fn serve(worker: Rc<Worker>, socket: TcpStream, source: SocketAddr) {
    let destination = match listen::original_dst(worker.config(), &socket) {
        Ok(destination) => destination,
        Err(error) => {
            tracing::debug!(%source, %error, "a connection without original destination is refused");
            reset(&socket);
            return;
        }
    };
    let side = Side::inbound(&worker, source, destination);
    let is_loop = worker.is_own_listener(destination) || !worker.is_own_pod(destination);
    if is_loop {
        let error = ProxyError::new(Outcome::Loop, format!("{destination} is not a port of the application"));
        report(&worker, &side, &error);
        reset(&socket);
        return;
    }
    worker.is_told(STARTING).await;
    first_bytes(&worker, socket, side).await;
}

/// The way from the own outbound side: a connection of the own identity, without a socket.
pub(crate) fn hand_over(worker: &Rc<Worker>, destination: SocketAddr, alpn: Alpn) -> Stream {
    let (near, far) = tokio::io::duplex(HAND_OVER);
    let own = worker.shared.credentials.identity().clone();
    let side = Side::inbound(worker, SocketAddr::new(destination.ip(), 0), destination).of_client(own);
    let link = Link::new(worker, side, false);
    worker.tasks.spawn_local("own pod", async move { link.serve(Io::Local(far).into(), alpn).await });
    Io::Local(near).into()
}

/// Tells a proxy of the mesh from everybody else. What follows is boxed: whoever has said nothing yet does not hold the place
/// for it.
async fn first_bytes(worker: &Rc<Worker>, mut socket: TcpStream, side: Side) {
    let link = Link::new(worker, side, false);
    let mut sniffer = match link.protocol() {
        Protocol::Opaque | Protocol::Tls => Sniffer::only_tls(),
        _ => Sniffer::default(),
    };
    let mut opening = Opening::default();
    let late = Instant::now() + LATE_HELLO;
    if within(FIRST_WORD, sniffer.first_bytes(&mut socket)).await.is_none() && link.may_open_ahead() {
        // The server may be the one to speak first.
        opening = Box::pin(link.open_ahead()).await;
        let server_first = match &mut opening {
            Opening::Open(app) => tokio::select! {
                _ = app.readable() => true,
                _ = sniffer.first_bytes(&mut socket) => false,
            },
            Opening::Failed(_) | Opening::None => false,
        };
        if server_first && timeout_at(late, sniffer.first_bytes(&mut socket)).await.is_err() {
            // The client is heard only now: it may still be a proxy of the mesh.
            let client = Io::Guarded(Box::new(Guarded::new(socket)));
            return Box::pin(link.carry(client.into(), opening)).await;
        }
    }
    let limit = match link.protocol() {
        Protocol::Detect => worker.config().detect_timeout,
        _ => worker.config().head_timeout,
    };
    let of_hello = worker.config().limits.handshake_timeout;
    let begun;
    let heard = if link.may_open_ahead() {
        let spoke = sniffer.first_bytes(&mut socket).await;
        begun = Instant::now();
        match spoke {
            Ok(true) => hear(&mut sniffer, &mut socket, limit, of_hello).await,
            Ok(false) => Ok(Heard::End),
            Err(error) => Err(error),
        }
    } else {
        // Whoever is not let in, or has to speak first, gets a limited time for it.
        begun = Instant::now();
        hear(&mut sniffer, &mut socket, worker.config().head_timeout, of_hello).await
    };
    let heard = match heard {
        Ok(heard) => heard,
        Err(error) => {
            link.side().live.ends(Cause::Client(How::of(&error)));
            return link.keep(opening);
        }
    };
    // It asked for nothing: no answer is due.
    if matches!(heard, Heard::End | Heard::Unfinished)
        && sniffer.is_empty()
        && !matches!(opening, Opening::Open(_))
        && link.protocol().is_http()
    {
        return link.side().live.ends(Cause::of_silence(heard));
    }
    // A hello that does not come to its end may offer an ALPN of ours, so it is not for the application.
    let half_a_hello = matches!(heard, Heard::End | Heard::Unfinished) && sniffer.looks_like_tls();
    let client = Prefixed::new(sniffer.read.freeze(), socket);
    let on: Pin<Box<dyn Future<Output = ()> + '_>> = match heard {
        // Its rest has what is left of the time for a handshake, not all of it once more.
        _ if half_a_hello => {
            Box::pin(accept_mesh(worker, client, link, opening, of_hello.saturating_sub(begun.elapsed())))
        }
        Heard::Protocol(Detected::Tls { mesh: true }) => Box::pin(accept_mesh(worker, client, link, opening, of_hello)),
        Heard::Protocol(Detected::Http2) => Box::pin(link.requests(client.into(), Version::Http2, opening)),
        Heard::Protocol(Detected::Http1) => Box::pin(link.requests(client.into(), Version::Http1, opening)),
        Heard::Unfinished if link.protocol().is_http() => {
            Box::pin(link.requests(client.late().into(), Version::Http1, opening))
        }
        // Not HTTP on a port declared so: hyper's answer is a 400, or none.
        Heard::Protocol(_) | Heard::End if link.protocol().is_http() => {
            Box::pin(link.requests(client.into(), Version::Http1, opening))
        }
        Heard::Protocol(_) | Heard::End | Heard::Unfinished => Box::pin(link.carry(client.into(), opening)),
    };
    on.await;
}

/// Waits at most `limit` for what it takes to tell the protocol; what looks like a ClientHello has no longer than `of_hello`.
async fn hear(
    sniffer: &mut Sniffer,
    socket: &mut TcpStream,
    limit: Duration,
    of_hello: Duration,
) -> std::io::Result<Heard> {
    let first = limit.min(of_hello);
    match sniffer.must_say(socket, first).await? {
        Heard::Unfinished if first < limit && !sniffer.looks_like_tls() => {
            sniffer.must_say(socket, limit.saturating_sub(first)).await
        }
        heard => Ok(heard),
    }
}

/// Ends the mesh's TLS. Whatever goes wrong here, the application never sees a byte of it (contracts §1).
async fn accept_mesh(worker: &Rc<Worker>, client: Prefixed<TcpStream>, link: Link, opening: Opening, limit: Duration) {
    match Box::pin(handshake(worker, client, limit)).await {
        Ok((stream, identity, alpn)) => {
            let mut link = link.proved(identity);
            link.opened_ahead(opening);
            link.serve(stream, alpn).await;
        }
        Err(error) => {
            link.keep(opening);
            report(worker, link.side(), &error);
        }
    }
}

async fn handshake(worker: &Worker, client: Prefixed<TcpStream>, limit: Duration) -> Result<(Stream, Identity, Alpn)> {
    let invalid = |detail: String| ProxyError::new(Outcome::ClientCertificateInvalid, detail);
    let config = worker
        .shared
        .credentials
        .server()
        .map_err(|error| ProxyError::new(Outcome::IdentityUnavailable, error.to_string()))?;
    let accepted = within(limit, TlsAcceptor::from(config).accept(client)).await;
    let stream = accepted
        .ok_or_else(|| invalid(format!("no handshake within {:?}", worker.config().limits.handshake_timeout)))?
        .map_err(|error| invalid(error.to_string()))?;
    let session = stream.get_ref().1;
    let identity = peer_identity(session.peer_certificates()).map_err(|error| invalid(error.to_string()))?;
    let alpn = session
        .alpn_protocol()
        .and_then(Alpn::from_bytes)
        .ok_or_else(|| invalid("the client offers no protocol of the mesh".to_owned()))?;
    Ok((Io::Tls(Box::new(TlsStream::Server(stream))).into(), identity, alpn))
}
