//! The network of the playground: a node, a namespace per pod, and cluster IPs by nftables on the node.
//!
//! Meshed pods never need the cluster IPs (their proxies balance by themselves); pods outside the mesh, the proxies on
//! their way to the controller, and the supervisor on its way to the injector do (contracts §10).

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::Context as _;
use ipnet::IpNet;
use mesh_netlab::{Addresses, Lab, Pod};
use mesh_proxy::nft::{self, Chain, Hook, Match, Protocol, Rule, Ruleset};

use super::{addresses::NODE, dns, mounts::Mounts, select::Destination};

/// The table on the node.
const TABLE: &str = "playground_services";

/// Node and links; pods belong to who asked for them.
#[derive(Debug)]
pub(crate) struct Network {
    lab: Lab,
}

impl Network {
    /// An empty network.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let lab = Lab::new(Addresses { v4: NODE, v6: None }).context("build the network")?;
        Ok(Self { lab })
    }

    /// A connected namespace with its own mounts for a pod. Blocks for some milliseconds.
    pub(crate) fn pod(&self, name: &str, address: Ipv4Addr, mounts: &Mounts) -> anyhow::Result<Pod> {
        self.lab
            .pod_with_mounts(name, Addresses { v4: address, v6: None }, || mounts.make())
            .with_context(|| format!("make the namespaces of pod {name}"))
    }

    /// Makes the cluster IPs lead to these pods, all at once.
    pub(crate) fn publish(&self, destinations: &[Destination]) -> anyhow::Result<()> {
        let ruleset = ruleset(destinations);
        self.lab.node().run(|| nft::apply(&ruleset))?.context("change the cluster IPs on the node")
    }

    /// The sockets of a name server: the node's address, which every pod reaches without a cluster IP.
    pub(crate) fn name_server(&self) -> anyhow::Result<(UdpSocket, TcpListener)> {
        let address = SocketAddr::new(NODE.into(), dns::server::PORT);
        let bind = || io::Result::Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?));
        self.lab.node().run(bind)?.with_context(|| format!("open the name server's port {address}"))
    }

    /// Opens a connection from the node: what a kubelet probes with, and an API server calls webhooks with.
    pub(crate) fn dial(&self, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        self.lab.node().run(|| TcpStream::connect_timeout(&to, limit))?
    }
}

/// Opens a connection inside a pod.
pub(crate) fn dial_inside(pod: &Pod, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    pod.run(|| TcpStream::connect_timeout(&to, limit))?
}

/// Cluster IPs as rules, the same for what passes the node and for what it sends itself. A port without a ready pod has
/// no rule: nobody answers there.
fn ruleset(destinations: &[Destination]) -> Ruleset {
    let rules: Vec<Rule> = destinations
        .iter()
        .flat_map(|destination| {
            let port = destination.service.port();
            let matches = [
                Match::Destination(IpNet::from(destination.service.ip())),
                Match::DestinationPort(Protocol::Tcp, port..=port),
            ];
            nft::spread(&matches, &destination.endpoints)
        })
        .collect();
    let chain = |name, hook| Chain { name, hook, rules: rules.clone() };
    Ruleset { table: TABLE, chains: vec![chain("prerouting", Hook::NatPrerouting), chain("output", Hook::NatOutput)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_leads_to_its_pods_evenly_and_one_without_pods_has_no_rule() {
        let destination = |service: &str, endpoints: &[&str]| Destination {
            service: service.parse().unwrap(),
            endpoints: endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect(),
        };
        let text = ruleset(&[
            destination("10.96.0.10:80", &["10.244.0.2:8080", "10.244.0.3:8080"]),
            destination("10.96.0.11:443", &["10.244.0.4:9443"]),
            destination("10.96.0.12:80", &[]),
        ])
        .to_string();
        insta::assert_snapshot!(text);
    }
}
