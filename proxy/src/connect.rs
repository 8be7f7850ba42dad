//! Opens connections: dials, and to a meshed endpoint never speaks anything but mutual TLS with exactly the peer it expects
//! (contracts §1, no downgrade).
//!
//! Called by the pools and the TCP paths. Knows nothing of requests.

use std::{io, net::SocketAddr, time::Duration};

use bytes::BytesMut;
use mesh_proto::{identity::Identity, outcome::Outcome};
use rustls_pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::{
    config::DataConfig,
    error::{ProxyError, Result, rustls_cause},
    link, listen,
    stream::{Io, Stream},
    tls::{Alpn, Credentials, peer_identity},
};

/// A handshake is some 0.5 ms of work at either end; a peer that needs this long is not going to be useful.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for the peer's word that its application took the connection: its own connect timeout and some air.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Room for a server's first frames: of HTTP/2, SETTINGS of some 30 bytes, WINDOW_UPDATE.
const FIRST_FRAMES: usize = 256;

/// For a destination outside the mesh: there is no other endpoint to try, and it may be far away. The application waits as long
/// as it would without us, or until it gives up itself.
pub(crate) const PATIENT: Duration = Duration::from_mins(1);

/// Dials `address` in plain TCP, for the time that an endpoint of the mesh gets.
pub(crate) async fn dial(config: &DataConfig, address: SocketAddr) -> Result<TcpStream> {
    dial_for(config, address, config.connect_timeout).await
}

/// Dials `address` in plain TCP, for at most `limit`.
pub(crate) async fn dial_for(config: &DataConfig, address: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let connect = async {
        let socket = new_socket(config, address)?;
        socket.connect(address).await
    };
    let socket = match tokio::time::timeout(limit, connect).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => {
            // What the kernel gave up on by itself, as after TCP_USER_TIMEOUT.
            let outcome = match error.kind() {
                io::ErrorKind::TimedOut => Outcome::ConnectTimeout,
                _ => Outcome::ConnectFailed,
            };
            return Err(ProxyError::new(outcome, format!("{address}: {error}")));
        }
        Err(_elapsed) => {
            return Err(ProxyError::new(Outcome::ConnectTimeout, format!("{address}: no answer within {limit:?}")));
        }
    };
    listen::tune(&socket);
    Ok(socket)
}

fn new_socket(config: &DataConfig, address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(mark) = config.socket_mark {
        socket.set_mark(mark)?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// Opens a link to the proxy in front of `address`, which must prove to be `expected`.
pub(crate) async fn mesh(
    config: &DataConfig,
    credentials: &Credentials,
    address: SocketAddr,
    expected: &Identity,
    alpn: Alpn,
) -> Result<Stream> {
    let tls =
        credentials.client(alpn).map_err(|error| ProxyError::new(Outcome::IdentityUnavailable, error.to_string()))?;
    let socket = dial(config, address).await?;
    // Not looked at by anybody (SNI is off, the certificate's name is its SPIFFE id), but the interface wants one.
    let name = ServerName::IpAddress(address.ip().into());
    let handshake = TlsConnector::from(tls).connect(name, socket.into());
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(ProxyError::new(handshake_outcome(&error), format!("{address}: {error}"))),
        Err(_elapsed) => {
            let detail = format!("{address}: no TLS answer within {HANDSHAKE_TIMEOUT:?}");
            return Err(ProxyError::new(Outcome::TlsFailed, detail));
        }
    };
    let session = stream.get_ref().1;
    let selected = session.alpn_protocol().and_then(Alpn::from_bytes);
    if !selected.is_some_and(|selected| alpn.offers().contains(&selected)) {
        return Err(ProxyError::new(
            Outcome::PeerNotMeshed,
            format!("{address}: the peer selected no ALPN of the mesh"),
        ));
    }
    match peer_identity(session.peer_certificates()) {
        Ok(identity) if identity == *expected => {}
        Ok(identity) => {
            let detail = format!("{address}: expected {expected}, the peer is {identity}");
            return Err(ProxyError::new(Outcome::PeerIdentityMismatch, detail));
        }
        Err(error) => return Err(ProxyError::new(Outcome::PeerIdentityMismatch, format!("{address}: {error}"))),
    }
    Ok(Io::Tls(Box::new(TlsStream::Client(stream))).into())
}

/// Waits for the first bytes of a connection that requests share: its server greets at once (HTTP/2: its SETTINGS). Only then is it certain that the peer took
/// our certificate (see [`wait_until_carried`]), and a refusal can be told from what happens to requests later. Costs a round
/// trip, once for a connection that many requests share.
pub(crate) async fn wait_until_heard(mut stream: Stream, address: SocketAddr) -> Result<Stream> {
    let mut heard = BytesMut::with_capacity(FIRST_FRAMES);
    let detail = match tokio::time::timeout(ANSWER_TIMEOUT, stream.read_buf(&mut heard)).await {
        Ok(Ok(1..)) => return Ok(stream.unread(heard.freeze())),
        Ok(Ok(0)) => format!("{address}: the peer closed right after the handshake"),
        Ok(Err(error)) => format!("{address}: {error}"),
        Err(_elapsed) => format!("{address}: no greeting within {ANSWER_TIMEOUT:?}"),
    };
    Err(ProxyError::new(Outcome::TlsFailed, detail))
}

/// What a failed handshake means: something that is not TLS, or does not know our ALPN, is no proxy of ours; the rest is a
/// disagreement between two that speak TLS.
fn handshake_outcome(error: &io::Error) -> Outcome {
    match rustls_cause(error) {
        Some(
            rustls::Error::InvalidMessage(_)
            | rustls::Error::NoApplicationProtocol
            | rustls::Error::AlertReceived(
                rustls::AlertDescription::NoApplicationProtocol | rustls::AlertDescription::ProtocolVersion,
            )
            | rustls::Error::PeerIncompatible(_),
        )
        | None => Outcome::PeerNotMeshed,
        Some(_) => Outcome::TlsFailed,
    }
}

/// Reads the inbound side's word on a byte-carrying link: see [`link`].
pub(crate) async fn wait_until_carried(stream: &mut Stream, address: SocketAddr) -> Result<()> {
    let byte = match tokio::time::timeout(ANSWER_TIMEOUT, stream.read_u8()).await {
        Ok(Ok(byte)) => byte,
        // The peer refused our certificate: with TLS 1.3 that arrives after the handshake.
        Ok(Err(error)) => return Err(ProxyError::new(Outcome::TlsFailed, format!("{address}: {error}"))),
        Err(_elapsed) => {
            let detail = format!("{address}: the peer did not say within {ANSWER_TIMEOUT:?} whether it carries");
            return Err(ProxyError::new(Outcome::ConnectTimeout, detail));
        }
    };
    match link::refusal(byte) {
        None => Ok(()),
        Some(outcome) => Err(ProxyError::new(outcome, format!("{address}: refused by the peer's proxy"))),
    }
}
