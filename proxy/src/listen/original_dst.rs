//! Where a redirected connection was going before the redirect, as the kernel's connection tracking remembers it.
//!
//! An error is an error: a guess could send a request somewhere else.

use std::{io, net::SocketAddr};

use socket2::SockRef;
use tokio::net::TcpStream;

use super::canonical;
use crate::config::{DataConfig, OriginalDst};

/// The original destination. The connection's own local address is what a connection has that was never redirected; the
/// caller tells that by its port.
pub(crate) fn original_dst(config: &DataConfig, socket: &TcpStream) -> io::Result<SocketAddr> {
    match config.original_dst {
        OriginalDst::Fixed(address) => Ok(address),
        OriginalDst::Kernel => from_kernel(socket),
    }
}

fn from_kernel(socket: &TcpStream) -> io::Result<SocketAddr> {
    let local = socket.local_addr()?;
    // A v4-mapped connection on the dual-stack listener is tracked as IPv4.
    let answer = if canonical(local).is_ipv4() {
        SockRef::from(socket).original_dst_v4()
    } else {
        SockRef::from(socket).original_dst_v6()
    };
    match answer {
        Ok(address) => address
            .as_socket()
            .map(canonical)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the original destination is no IP address")),
        // Not tracked, so not redirected: somebody dialled the listener itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(canonical(local)),
        Err(error) => Err(error),
    }
}
