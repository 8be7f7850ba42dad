//! Service addresses by DNAT on the node, as the playground gives them to pods that opt out of the mesh.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use libtest_mimic::{Failed, Trial};
use mesh_proxy::nft::{self, Action, Chain, Hook, Match, Protocol, Rule, Ruleset};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::support::{DEADLINE, accept, addresses, connect, lab, listen};

const TABLE: &str = "services";
const SERVICE_PORT: u16 = 80;
const ENDPOINT_PORT: u16 = 8080;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("a_service_address_reaches_its_endpoints", a_service_address_reaches_its_endpoints),
        Trial::test("a_pod_reaches_itself_by_its_service_address", a_pod_reaches_itself_by_its_service_address),
    ]
}

/// The service's rules, for packets that pass through and for those made where the rules are.
fn services(service: IpAddr, endpoints: &[SocketAddr]) -> Ruleset {
    let to_service =
        [Match::Destination(service.into()), Match::DestinationPort(Protocol::Tcp, SERVICE_PORT..=SERVICE_PORT)];
    let rules = nft::spread(&to_service, endpoints);
    let hairpins = endpoints.iter().map(|endpoint| Rule {
        matches: vec![Match::Source(endpoint.ip().into()), Match::Destination(endpoint.ip().into())],
        action: Action::Masquerade,
    });
    Ruleset {
        table: TABLE,
        chains: vec![
            Chain { name: "passing", hook: Hook::NatPrerouting, rules: rules.clone() },
            Chain { name: "made-here", hook: Hook::NatOutput, rules },
            Chain { name: "hairpin", hook: Hook::NatPostrouting, rules: hairpins.collect() },
        ],
    }
}

fn service_of(like: IpAddr) -> Result<IpAddr, Failed> {
    Ok(if like.is_ipv4() { "10.96.0.1".parse()? } else { "fd00:96::1".parse()? })
}

/// The rules work where packets pass through and where they are made. Each in a network of its own: a port that the kernel gave
/// out once more would meet the connection of before, which the node remembers with an address that this one has without it.
fn a_service_address_reaches_its_endpoints() -> Result<(), Failed> {
    for where_packets_pass in [true, false] {
        spread_over_its_endpoints(where_packets_pass)?;
    }
    Ok(())
}

fn spread_over_its_endpoints(where_packets_pass: bool) -> Result<(), Failed> {
    let lab = lab()?;
    let client = lab.pod("client", addresses(1))?;
    let pods = [lab.pod("web-1", addresses(2))?, lab.pod("web-2", addresses(3))?, lab.pod("web-3", addresses(4))?];
    let place = if where_packets_pass { lab.node() } else { client.namespace() };
    for v6 in [false, true] {
        let ips: Vec<IpAddr> =
            pods.iter().filter_map(|pod| pod.addresses().iter().find(|ip| ip.is_ipv6() == v6)).collect();
        let service = service_of(ips[0])?;
        let endpoints: Vec<SocketAddr> = ips.iter().map(|ip| SocketAddr::new(*ip, ENDPOINT_PORT)).collect();
        // The kernel picks at random: to miss one of three endpoints in 120 connections has a probability of 2e-21.
        let listeners =
            pods.iter().map(|pod| listen(pod.namespace(), ips[0], ENDPOINT_PORT)).collect::<Result<Vec<_>, _>>()?;
        let mut hits: HashMap<SocketAddr, u32> = HashMap::new();
        place.run(|| nft::apply(&services(service, &endpoints)))??;
        for _ in 0..120 {
            let stream = connect(client.namespace(), SocketAddr::new(service, SERVICE_PORT))?;
            let local = stream.local_addr()?;
            let (index, server) = accept_any(&listeners)?;
            assert_eq!(server.peer_addr()?, local, "the client's address stays");
            *hits.entry(endpoints[index]).or_default() += 1;
        }
        place.run(|| nft::remove(TABLE))??;
        assert_eq!(hits.len(), 3, "{hits:?}");
    }
    Ok(())
}

/// The next connection to any of the listeners, and which one it was.
fn accept_any(listeners: &[TcpListener]) -> Result<(usize, TcpStream), Failed> {
    let mut waiting: Vec<PollFd<'_>> =
        listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)).collect();
    poll(&mut waiting, PollTimeout::try_from(DEADLINE)?)?;
    let index = waiting.iter().position(|fd| fd.any().unwrap_or_default()).ok_or("the connection came nowhere")?;
    Ok((index, listeners[index].accept()?.0))
}

fn a_pod_reaches_itself_by_its_service_address() -> Result<(), Failed> {
    let lab = lab()?;
    let pod = lab.pod("web", addresses(1))?;
    for ip in pod.addresses().iter() {
        let service = service_of(ip)?;
        let endpoint = SocketAddr::new(ip, ENDPOINT_PORT);
        lab.node().run(|| nft::apply(&services(service, &[endpoint])))??;
        let listener = listen(pod.namespace(), ip, ENDPOINT_PORT)?;
        accept(&listener, &connect(pod.namespace(), SocketAddr::new(service, SERVICE_PORT))?)?;
    }
    Ok(())
}
