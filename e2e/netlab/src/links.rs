//! Links, addresses and routes by rtnetlink. Each function works on the network namespace of the calling thread, and
//! is called through [`crate::Namespace::run`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::{fmt, fs, io};

use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::lab::Addresses;
use crate::namespace::Namespace;

/// The interface of every pod.
pub(crate) const POD_LINK: &str = "eth0";
/// The node's address on every link to a pod: the pods' gateway. Link-local, so that no network is used up.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The same for IPv6.
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A change to links, addresses or routes that the kernel did not make.
#[derive(Debug, thiserror::Error)]
#[error("{act}: {reason}")]
pub struct LinkError {
    act: String,
    reason: String,
}

/// Brings `lo` up.
pub(crate) fn loopback_up() -> Result<(), LinkError> {
    with_netlink(async |net| net.up("lo").await)
}

/// The pod's end: a veth pair whose other end goes to `node` under the name `node_link`.
pub(crate) fn connect_pod(node: &Namespace, node_link: &str) -> Result<(), LinkError> {
    with_netlink(async |net| {
        net.up("lo").await?;
        let pair = LinkVeth::new(POD_LINK, node_link).build();
        check(net.handle.link().add(pair).execute().await, || format!("create the link {POD_LINK} to {node_link}"))?;
        let moved = LinkUnspec::new_with_name(node_link).setns_by_fd(node.net().as_raw_fd()).build();
        check(net.handle.link().set(moved).execute().await, || format!("move the link {node_link} to the node"))
    })
}

/// The pod's addresses and its default routes over the node; the node's end is up already.
pub(crate) fn configure_pod(addresses: Addresses) -> Result<(), LinkError> {
    with_netlink(async |net| {
        let link = index(POD_LINK)?;
        for address in addresses.iter() {
            net.address(link, address, host_prefix(address)).await?;
        }
        net.up(POD_LINK).await?;
        net.route_on_link(link, IpAddr::V4(GATEWAY_V4)).await?;
        net.default_route(link, IpAddr::V4(GATEWAY_V4)).await?;
        if addresses.v6.is_some() {
            net.default_route(link, IpAddr::V6(GATEWAY_V6)).await?;
        }
        Ok(())
    })
}

/// Removes the pod's link, both ends.
pub(crate) fn disconnect_pod() -> Result<(), LinkError> {
    with_netlink(async |net| {
        let link = index(POD_LINK)?;
        check(net.handle.link().del(link).execute().await, || format!("remove the link {POD_LINK}"))
    })
}

/// The node's end of a pod's link: the gateway's addresses and a route to each address of the pod.
pub(crate) fn configure_node_link(link: &str, pod: Addresses) -> Result<(), LinkError> {
    with_netlink(async |net| {
        let index = index(link)?;
        net.address(index, IpAddr::V4(GATEWAY_V4), 32).await?;
        if pod.v6.is_some() {
            net.address(index, IpAddr::V6(GATEWAY_V6), 64).await?;
        }
        net.up(link).await?;
        for address in pod.iter() {
            net.route_on_link(index, address).await?;
        }
        Ok(())
    })
}

/// The node's own addresses, on loopback, so that it can speak to pods.
pub(crate) fn configure_node(addresses: Addresses) -> Result<(), LinkError> {
    with_netlink(async |net| {
        net.up("lo").await?;
        let lo = index("lo")?;
        for address in addresses.iter() {
            net.address(lo, address, host_prefix(address)).await?;
        }
        Ok(())
    })
}

/// Turns on routing between the links of this namespace, present and future.
pub(crate) fn forward_packets(v6: bool) -> Result<(), LinkError> {
    set_sysctl("net/ipv4/ip_forward", "1")?;
    if v6 {
        set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Whether this kernel has IPv6.
pub(crate) fn kernel_has_v6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}

fn set_sysctl(name: &str, value: &str) -> Result<(), LinkError> {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).map_err(|error| LinkError {
        act: format!("write {value} to {path}"),
        reason: if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
            format!("{error}; a container must mount /proc/sys writable for this")
        } else {
            error.to_string()
        },
    })
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Runs `work` with an rtnetlink connection to the network namespace of this thread. The connection is driven here
/// and ends here: no task outlives the call.
fn with_netlink<T>(work: impl AsyncFnOnce(Net) -> Result<T, LinkError>) -> Result<T, LinkError> {
    let unusable = |error: io::Error| LinkError { act: "open rtnetlink".into(), reason: error.to_string() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(unusable)?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(unusable)?;
        tokio::select! {
            result = work(Net { handle }) => result,
            () = connection => Err(unusable(io::ErrorKind::UnexpectedEof.into())),
        }
    })
}

/// An rtnetlink connection to the namespace of this thread.
struct Net {
    handle: Handle,
}

impl Net {
    async fn up(&self, link: &str) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_name(link).up().build();
        check(self.handle.link().set(message).execute().await, || format!("bring the link {link} up"))
    }

    async fn address(&self, link: u32, address: IpAddr, prefix: u8) -> Result<(), LinkError> {
        let mut request = self.handle.address().add(link, address, prefix);
        if address.is_ipv6() {
            // Duplicate address detection would leave the address unusable for a second, and here is no duplicate.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        check(request.execute().await, || format!("add the address {address}/{prefix}"))
    }

    /// `address` is reached directly over `link`.
    async fn route_on_link(&self, link: u32, address: IpAddr) -> Result<(), LinkError> {
        let route = match address {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(v4, 32)
                .scope(RouteScope::Link)
                .output_interface(link)
                .build(),
            IpAddr::V6(v6) => {
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).output_interface(link).build()
            }
        };
        check(self.handle.route().add(route).execute().await, || format!("add the route to {address}"))
    }

    async fn default_route(&self, link: u32, gateway: IpAddr) -> Result<(), LinkError> {
        let route = match gateway {
            IpAddr::V4(v4) => {
                RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).output_interface(link).onlink().build()
            }
            IpAddr::V6(v6) => {
                RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).output_interface(link).onlink().build()
            }
        };
        check(self.handle.route().add(route).execute().await, || format!("add the default route via {gateway}"))
    }
}

/// The number of a link of this thread's namespace.
fn index(link: &str) -> Result<u32, LinkError> {
    check(nix::net::if_::if_nametoindex(link), || format!("find the link {link}"))
}

fn check<T, E: fmt::Display>(result: Result<T, E>, act: impl FnOnce() -> String) -> Result<T, LinkError> {
    result.map_err(|error| LinkError { act: act(), reason: error.to_string() })
}
