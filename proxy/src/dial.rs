//! TCP to a host by its name, outside the data path: the controller, the collector of traces.
//!
//! Sockets carry the proxy's mark, so that the redirect lets them pass. A name only leads there, it proves nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::Duration,
};

use crate::config::HostPort;

/// Longest one address may take, so that the next gets its turn.
const CONNECT_ONE: Duration = Duration::from_secs(2);
/// TCP keep-alive: a probe after so long, and so often.
const IDLE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_secs(3);

/// The addresses of a host. An address needs no resolver, whose thread costs memory.
pub(crate) async fn resolve(to: &HostPort) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = to.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, to.port)]);
    }
    Ok(lookup_host((to.host.as_str(), to.port)).await?.collect())
}

/// The first that answers.
pub(crate) async fn first(addresses: Vec<SocketAddr>, mark: Option<u32>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in addresses {
        match tokio::time::timeout(CONNECT_ONE, open(address, mark)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {CONNECT_ONE:?}")),
        }
    }
    Err(last)
}

async fn open(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(mark) = mark {
        // Before the first packet, so that the redirect lets it pass.
        SockRef::from(&socket).set_mark(mark)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL))?;
    Ok(stream)
}
