//! What a proxy is told when it starts: parsed once from the environment, then carried as values.
//!
//! [`env`] reads it, [`crate::app`] hands each part its share; the data path gets [`DataConfig`]. Nothing here is secret, so
//! all of it may be logged and shown. It does not know where the values come from or how they are used.

use std::{fmt, net::IpAddr, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use mesh_proto::{
    config::{Hello, PROTOCOL_VERSION},
    identity::Identity,
    names,
    ports::{PortSet, Subnets},
    probe::Probe,
};
use mesh_runtime::build_info;
use serde_json::{Value, json};

pub mod env;

/// Everything a proxy is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The pod it serves.
    pub pod: Pod,
    /// The data path's share.
    pub data: Arc<DataConfig>,
    /// Where the controller is.
    pub controller: ControllerAddr,
    /// File with the bootstrap token; read anew for every request.
    pub token_file: PathBuf,
    /// Where roots of trust come from before the first bundle on the stream.
    pub trust: TrustSources,
    /// Log filter at start.
    pub log: String,
    /// Worker threads of the data path; at least 1.
    pub workers: usize,
    /// Longest a drain may take.
    pub drain: Duration,
    /// The application's own probes.
    pub probes: Vec<Probe>,
    /// What the redirect leaves alone; shown, and otherwise no business of the proxy.
    pub skipped: Skipped,
}

/// What the redirect leaves alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Skipped {
    /// Inbound ports.
    pub inbound: PortSet,
    /// Outbound ports.
    pub outbound: PortSet,
    /// Networks, either way.
    pub subnets: Subnets,
}

/// Which pod it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Host and port of the controller. The name only leads there: who answers is told by its SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerAddr {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The sources of contracts §6 that exist before a stream, all optional but not all absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustSources {
    /// Where the last bundle of the stream is kept; memory-backed.
    pub state_dir: Option<PathBuf>,
    /// PEM file that the controller keeps up to date; may be absent.
    pub file: Option<PathBuf>,
    /// PEM text that the injector put in.
    pub pem: Option<String>,
}

/// The data path's share of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct DataConfig {
    /// Addresses of the pod.
    pub pod_ips: Vec<IpAddr>,
    /// The pod's own identity.
    pub identity: Identity,
    /// Outbound listener; 0 in tests.
    pub outbound_port: u16,
    /// Inbound listener; 0 in tests.
    pub inbound_port: u16,
    /// Admin listener; 0 in tests.
    pub admin_port: u16,
    /// Mark of every socket the proxy opens, where the user id does not exempt them from the redirect.
    pub socket_mark: Option<u32>,
    /// What to do with destinations that were never resolved.
    pub unresolved: Unresolved,
    /// Ports that are TCP unless declared otherwise.
    pub opaque_ports: PortSet,
    /// Longest a TCP connect to an endpoint may take.
    pub connect_timeout: Duration,
    /// Longest to wait for a first byte of either side before a connection counts as TCP.
    pub detect_timeout: Duration,
    /// Longest a request's head may take, from its first byte.
    pub head_timeout: Duration,
    /// How the original destination of a connection is learnt.
    pub original_dst: OriginalDst,
}

/// What to do with a destination that was never resolved while the controller is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unresolved {
    /// Refuse it with `discovery-unavailable`.
    #[default]
    Refuse,
    /// Let it past the mesh, in the clear.
    PassThrough,
}

/// How the original destination of a connection is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginalDst {
    /// From the kernel, which redirected it.
    Kernel,
    /// Always this one: tests on loopback, without a redirect.
    Fixed(SocketAddr),
}

impl DataConfig {
    /// The defaults, for a pod.
    pub fn new(identity: Identity, pod_ips: Vec<IpAddr>) -> Self {
        let opaque_ports = PortSet::new(names::DEFAULT_OPAQUE_PORTS.iter().map(|port| *port..=*port));
        Self {
            pod_ips,
            identity,
            outbound_port: names::PORT_OUTBOUND,
            inbound_port: names::PORT_INBOUND,
            admin_port: names::PORT_PROXY_ADMIN,
            socket_mark: None,
            unresolved: Unresolved::default(),
            opaque_ports,
            connect_timeout: Duration::from_secs(1),
            // Waiting is free: the way to the server is open meanwhile, and a server that speaks first ends the wait.
            detect_timeout: Duration::from_secs(1),
            head_timeout: Duration::from_secs(15),
            original_dst: OriginalDst::Kernel,
        }
    }
}

impl Config {
    /// What the proxy says first on its configuration stream.
    pub fn hello(&self) -> Hello {
        Hello {
            pod_namespace: self.pod.namespace.clone(),
            pod_name: self.pod.name.clone(),
            pod_uid: self.pod.uid.clone(),
            proxy_version: build_info::VERSION.to_owned(),
            protocol_version: PROTOCOL_VERSION,
        }
    }

    /// What is in force, for the first log line and the admin page.
    pub fn to_json(&self) -> Value {
        let Self { pod, data, controller, token_file, trust, log: _, workers, drain, probes, skipped } = self;
        json!({
            "pod": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid, "ips": data.pod_ips},
            "identity": data.identity.as_str(),
            "controller": controller.to_string(),
            "tokenFile": token_file,
            "trust": {"stateDir": trust.state_dir, "file": trust.file, "environment": trust.pem.is_some()},
            "ports": {"outbound": data.outbound_port, "inbound": data.inbound_port, "admin": data.admin_port},
            "socketMark": data.socket_mark,
            "unresolved": data.unresolved.as_str(),
            "opaquePorts": data.opaque_ports.to_string(),
            "connectTimeoutMs": data.connect_timeout.as_millis(),
            "detectTimeoutMs": data.detect_timeout.as_millis(),
            "headTimeoutMs": data.head_timeout.as_millis(),
            "skipped": {
                "inboundPorts": skipped.inbound.to_string(),
                "outboundPorts": skipped.outbound.to_string(),
                "subnets": skipped.subnets.to_string(),
            },
            "workers": workers,
            "drainSeconds": drain.as_secs(),
            "probes": probes.iter().map(Probe::path).collect::<Vec<_>>(),
        })
    }
}

impl Unresolved {
    /// As written in annotation and environment.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::PassThrough => "pass-through",
        }
    }
}

impl fmt::Display for ControllerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}
