//! The listeners: binding, accepting, and asking the kernel where a connection was going.
//!
//! Called by `worker`. Knows nothing of what is done with a connection.

mod original_dst;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use mesh_runtime::serve;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

pub(crate) use original_dst::original_dst;

use crate::config::DataConfig;

/// Connections the kernel holds for us while a worker is busy. The kernel caps it at `net.core.somaxconn` (4096).
const BACKLOG: i32 = 4096;

/// When a peer that is gone without a word is noticed (features.md: same as linkerd2-proxy).
const USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Between probes: ten must be lost, not two, before a connection counts as dead.
const PROBE: Duration = Duration::from_secs(2);

/// Bound listeners of one worker; several workers bind the same ports with `SO_REUSEPORT`.
pub struct Listeners {
    pub(crate) outbound: Vec<std::net::TcpListener>,
    pub(crate) inbound: std::net::TcpListener,
}

impl Listeners {
    /// Binds outbound on the loopback addresses and inbound on all addresses. IPv6 is left out only where the kernel has
    /// none. Port 0 takes any port, the same for both families.
    pub fn bind(config: &DataConfig) -> io::Result<Self> {
        let first = bind_one(SocketAddr::from((Ipv4Addr::LOCALHOST, config.outbound_port)))?;
        let port = first.local_addr()?.port();
        let mut outbound = vec![first];
        if let Some(second) = where_supported(bind_one(SocketAddr::from((Ipv6Addr::LOCALHOST, port))))? {
            outbound.push(second);
        }
        let any = |address: IpAddr| bind_one(SocketAddr::from((address, config.inbound_port)));
        let inbound = match where_supported(any(Ipv6Addr::UNSPECIFIED.into()))? {
            Some(both) => both,
            None => any(Ipv4Addr::UNSPECIFIED.into())?,
        };
        Ok(Self { outbound, inbound })
    }

    /// Where it takes over the pod's own connections.
    pub fn outbound_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.outbound.iter().map(std::net::TcpListener::local_addr).collect()
    }

    /// Where it takes over connections to the pod.
    pub fn inbound_addr(&self) -> io::Result<SocketAddr> {
        self.inbound.local_addr()
    }
}

fn bind_one(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // Unspecified: dual stack. Loopback: IPv4 has a listener of its own.
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error: io::Error| io::Error::new(error.kind(), BindFailed { address, error }))
}

/// Keeps the operating system's error reachable: [`where_supported`] looks at its number.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}; another process may use the port")]
struct BindFailed {
    address: SocketAddr,
    #[source]
    error: io::Error,
}

/// None where the machine has no IPv6 (no such family, or no such address because it is switched off).
fn where_supported<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(bound) => Ok(Some(bound)),
        Err(error) => {
            let number =
                error.get_ref().and_then(|e| e.downcast_ref::<BindFailed>()).and_then(|e| e.error.raw_os_error());
            match number.map(nix::errno::Errno::from_raw) {
                Some(nix::errno::Errno::EAFNOSUPPORT | nix::errno::Errno::EADDRNOTAVAIL) => Ok(None),
                _ => Err(error),
            }
        }
    }
}

/// Accepts one connection; failures are survived.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (socket, peer) = serve::accept(listener).await;
    tune(&socket);
    (socket, canonical(peer))
}

/// Options of every connection, accepted or dialled: no delay (a proxy writes whole messages), and a peer that vanished
/// is noticed. A socket that refuses an option still works.
pub(crate) fn tune(socket: &TcpStream) {
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(PROBE));
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

/// IPv4 as IPv4: a dual-stack listener shows it mapped into IPv6.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_become_ipv4() {
        assert_eq!(canonical("[::ffff:10.0.0.1]:80".parse().unwrap()), "10.0.0.1:80".parse().unwrap());
        assert_eq!(canonical("[fd00::1]:80".parse().unwrap()), "[fd00::1]:80".parse().unwrap());
    }

    #[tokio::test]
    async fn a_peer_that_vanished_is_given_30_s() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), accept(&listener));
        let dialled = dialled.unwrap();
        tune(&dialled);
        for socket in [&dialled, &accepted.0] {
            let socket = SockRef::from(socket);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(10));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(2));
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind_one(address).unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")), "{error}");
    }
}
