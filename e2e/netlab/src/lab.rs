//! A routed network of pods: a node in the middle, one link and one namespace per pod.
//!
//! Each pod has its addresses as single hosts (/32, /128) and one default route over the node; the node routes to each
//! pod. This is the shape of a Kubernetes node, and the same for the playground and for tests. What runs in the pods,
//! and any packet filter, is the caller's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::links::{self, LinkError};
use crate::namespace::Namespace;
use crate::process::Process;

/// The addresses of a pod or of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Always there.
    pub v4: Ipv4Addr,
    /// `None` where the network is IPv4 only (see [`Lab::has_v6`]).
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        [Some(IpAddr::V4(self.v4)), self.v6.map(IpAddr::V6)].into_iter().flatten()
    }
}

/// Why the network could not be built.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// No namespace, or none of ours can be entered any more.
    #[error("{act} a network namespace: {source}")]
    Namespace {
        /// `create` or `enter`.
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A link, address or route.
    #[error("network of {whose}: {source}")]
    Link {
        /// The pod's name, or `the node`.
        whose: String,
        /// What was not done, and why.
        source: LinkError,
    },
}

/// The network: the node's namespace and the pods' links. Dropping it ends routing between pods that still exist.
#[derive(Debug)]
pub struct Lab {
    node: Namespace,
    v6: bool,
    /// Number of links made so far; gives each its name on the node.
    links: AtomicU32,
}

impl Lab {
    /// A network with no pods yet. The calling process has entered a user namespace ([`crate::userns::enter`]).
    pub fn new(node: Addresses) -> Result<Self, LabError> {
        let v6 = links::kernel_has_v6();
        let lab = Self { node: Namespace::create().map_err(not_created)?, v6, links: AtomicU32::new(0) };
        let node = lab.only_usable(node);
        inside(&lab.node, "the node", || {
            links::forward_packets(v6)?;
            links::configure_node(node)
        })?;
        Ok(lab)
    }

    /// The node's namespace: what a kubelet or a cluster's service addresses would be found in.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// Whether pods get their IPv6 address: false on a kernel without IPv6.
    pub fn has_v6(&self) -> bool {
        self.v6
    }

    /// A new pod, connected. `name` is for error texts.
    pub fn pod(&self, name: &str, addresses: Addresses) -> Result<Pod, LabError> {
        self.connect(name, addresses, Namespace::create().map_err(not_created)?)
    }

    /// As [`Lab::pod`], with its own copy of the mounts (see [`Namespace::create_with_mounts`]).
    pub fn pod_with_mounts(
        &self,
        name: &str,
        addresses: Addresses,
        prepare: impl FnOnce() -> io::Result<()> + Send,
    ) -> Result<Pod, LabError> {
        self.connect(name, addresses, Namespace::create_with_mounts(prepare).map_err(not_created)?)
    }

    fn connect(&self, name: &str, addresses: Addresses, namespace: Namespace) -> Result<Pod, LabError> {
        let addresses = self.only_usable(addresses);
        let node_link = format!("pod{}", self.links.fetch_add(1, Ordering::Relaxed));
        inside(&namespace, name, || links::connect_pod(&self.node, &node_link))?;
        inside(&self.node, name, || links::configure_node_link(&node_link, addresses))?;
        inside(&namespace, name, || links::configure_pod(addresses))?;
        Ok(Pod { name: name.to_owned(), addresses, namespace })
    }

    fn only_usable(&self, addresses: Addresses) -> Addresses {
        Addresses { v6: addresses.v6.filter(|_| self.v6), ..addresses }
    }
}

/// A pod: its namespace and what it is called. Its link goes with this value, also while processes remain inside.
#[derive(Debug)]
pub struct Pod {
    name: String,
    addresses: Addresses,
    namespace: Namespace,
}

impl Pod {
    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is reached at.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its namespace, to keep or to enter without the pod.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs `f` in the pod; see [`Namespace::run`].
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.namespace.run(f)
    }

    /// Starts a process in the pod with the command's own input and output; see [`Namespace::spawn`].
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.namespace.spawn(command)
    }

    /// Starts a process in the pod, keeps what it prints and ends it with the returned value.
    pub fn start(&self, command: &mut Command) -> io::Result<Process> {
        Process::start(&self.namespace, command)
    }
}

impl Drop for Pod {
    /// Takes the link down at once: the kernel removes a namespace in its own time, and until then the address could
    /// not be given to another pod.
    fn drop(&mut self) {
        // Fails only where the link is gone already.
        let _ = inside(&self.namespace, &self.name, links::disconnect_pod);
    }
}

fn inside(
    namespace: &Namespace,
    whose: &str,
    act: impl FnOnce() -> Result<(), LinkError> + Send,
) -> Result<(), LabError> {
    namespace
        .run(act)
        .map_err(|source| LabError::Namespace { act: "enter", source })?
        .map_err(|source| LabError::Link { whose: whose.to_owned(), source })
}

fn not_created(source: io::Error) -> LabError {
    LabError::Namespace { act: "create", source }
}
