//! Networks of pods with the redirect in them, and connections that tell where they ended.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use libtest_mimic::Failed;
use mesh_netlab::{Addresses, Lab, Namespace, Pod};
use mesh_proto::names;
use mesh_proxy::nft;
use mesh_proxy::redirect::{Exempt, Settings, rules};
use socket2::{Domain, SockRef, Socket, Type};

/// Far more than any step takes, on a machine that does ten other things too; only a failing test waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Settings of pods in tests: one user id is all there is, so the proxy is known by its mark.
pub(crate) fn marked() -> Settings {
    Settings { exempt: Exempt::Mark(names::PROXY_MARK), ..Settings::default() }
}

pub(crate) fn addresses(host: u8) -> Addresses {
    Addresses { v4: Ipv4Addr::new(10, 0, 0, host), v6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into())) }
}

pub(crate) fn lab() -> Result<Lab, Failed> {
    Ok(Lab::new(addresses(254))?)
}

/// The pod under test, its redirect set up with `settings`, and another pod without one.
pub(crate) struct Pair {
    pub(crate) _lab: Lab,
    pub(crate) meshed: Pod,
    pub(crate) other: Pod,
}

impl Pair {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Failed> {
        let lab = lab()?;
        let (meshed, other) = (lab.pod("meshed", addresses(1))?, lab.pod("other", addresses(2))?);
        meshed.run(|| nft::apply(&rules(settings)))??;
        Ok(Self { _lab: lab, meshed, other })
    }

    /// Addresses of both pods of the same family, for each family: (meshed, other).
    pub(crate) fn families(&self) -> Vec<(IpAddr, IpAddr)> {
        self.meshed.addresses().iter().zip(self.other.addresses().iter()).collect()
    }
}

/// A listener in `namespace` on all addresses of the family of `like`.
pub(crate) fn listen(namespace: &Namespace, like: IpAddr, port: u16) -> Result<TcpListener, Failed> {
    let all: IpAddr = if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    listen_at(namespace, SocketAddr::new(all, port))
}

pub(crate) fn listen_at(namespace: &Namespace, address: SocketAddr) -> Result<TcpListener, Failed> {
    Ok(namespace.run(|| TcpListener::bind(address))??)
}

/// Loopback of the family of `like`.
pub(crate) fn loopback(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

pub(crate) fn connect(namespace: &Namespace, to: SocketAddr) -> Result<TcpStream, Failed> {
    Ok(namespace.run(|| TcpStream::connect_timeout(&to, DEADLINE))??)
}

/// As the proxy connects: marked.
pub(crate) fn connect_marked(namespace: &Namespace, to: SocketAddr, mark: u32) -> Result<TcpStream, Failed> {
    let connected = namespace.run(|| -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_mark(mark)?;
        socket.connect_timeout(&to.into(), DEADLINE)?;
        Ok(socket.into())
    });
    Ok(connected??)
}

/// Takes the connection that `client` made and proves that it is the same one, both ways.
pub(crate) fn accept(listener: &TcpListener, client: &TcpStream) -> Result<TcpStream, Failed> {
    SockRef::from(listener).set_read_timeout(Some(DEADLINE))?;
    let (server, _) = listener.accept().map_err(|error| format!("the connection did not come here: {error}"))?;
    exchange(client, &server)?;
    exchange(&server, client)?;
    Ok(server)
}

/// What the kernel says the connection was for.
pub(crate) fn original_destination(server: &TcpStream) -> Result<SocketAddr, Failed> {
    let socket = SockRef::from(server);
    let original = if server.local_addr()?.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    Ok(original?.as_socket().ok_or("no socket address")?)
}

/// Sends a few bytes one way.
pub(crate) fn exchange(mut from: &TcpStream, mut to: &TcpStream) -> Result<(), Failed> {
    from.write_all(b"ping")?;
    to.set_read_timeout(Some(DEADLINE))?;
    let mut text = [0; 4];
    to.read_exact(&mut text)?;
    assert_eq!(&text, b"ping");
    Ok(())
}

/// Sends a datagram to a fresh socket in `server` and expects it there.
pub(crate) fn datagram(client: &Namespace, server: &Namespace, to: IpAddr) -> Result<(), Failed> {
    let receiver = server.run(|| UdpSocket::bind((to, 0)))??;
    receiver.set_read_timeout(Some(DEADLINE))?;
    let target = receiver.local_addr()?;
    client.run(|| UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0))?.send_to(b"ping", target))??;
    let mut text = [0; 8];
    assert_eq!(receiver.recv(&mut text)?, 4);
    Ok(())
}
