//! What a proxy is told at its start, parsed into what the parts use. Pure: [`env`] reads strings, nothing else does.

mod env;

use std::{net::IpAddr, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use mesh_proto::{identity::Identity, names, probe::Probe};

pub use env::{ConfigErrors, Strings};

/// Settings of the whole proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// Name of the pod.
    pub pod_name: String,
    /// Uid of the pod.
    pub pod_uid: String,
    /// `host:port` of the controller's gRPC; resolved at every connection attempt.
    pub controller: String,
    /// File with the bootstrap token; read anew for every certificate.
    pub token_file: PathBuf,
    /// Memory-backed directory for the last trust bundle.
    pub state_dir: Option<PathBuf>,
    /// PEM file with roots of trust; may be absent.
    pub trust_bundle_file: Option<PathBuf>,
    /// PEM roots of trust from the injector.
    pub trust_bundle: Option<String>,
    /// Log filter.
    pub log: String,
    /// Data-path threads.
    pub workers: usize,
    /// Longest a drain may take.
    pub drain_deadline: Duration,
    /// Where the admin listener binds.
    pub admin: SocketAddr,
    /// The application's probes, performed on behalf of the kubelet.
    pub probes: Vec<Probe>,
    /// What the data path needs.
    pub data: Arc<DataConfig>,
}

impl Config {
    /// Parses the environment; every mistake is reported at once.
    pub fn from_env(strings: &dyn Strings) -> Result<Self, ConfigErrors> {
        env::parse(strings)
    }
}

/// Settings of the data path.
#[derive(Debug, Clone, PartialEq)]
pub struct DataConfig {
    /// Addresses of the pod.
    pub pod_ips: Vec<IpAddr>,
    /// The pod's own identity.
    pub identity: Identity,
    /// Port of the outbound listener (loopback); 0 in tests.
    pub outbound_port: u16,
    /// Port of the inbound listener (all addresses); 0 in tests.
    pub inbound_port: u16,
    /// Port of the admin listener: never redirected, and no destination for others.
    pub admin_port: u16,
    /// Marks our own connections, so that the redirect lets them pass.
    pub socket_mark: Option<u32>,
    /// What happens to a destination never resolved while the controller is away.
    pub unresolved: Unresolved,
    /// How long an endpoint may take to accept (features.md: as linkerd2-proxy).
    pub connect_timeout: Duration,
    /// How long an undeclared connection may be silent on both sides before it is TCP.
    pub detect_timeout: Duration,
    /// How long a request's head may take.
    pub head_timeout: Duration,
    /// How the original destination of a connection is learnt.
    pub original_dst: OriginalDst,
}

/// What happens to a destination never resolved while the controller is away (contracts §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unresolved {
    /// Refused with `discovery-unavailable`.
    #[default]
    Refuse,
    /// Let past the mesh.
    PassThrough,
}

/// How the original destination of a connection is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginalDst {
    /// `SO_ORIGINAL_DST`, as the redirect leaves it.
    Kernel,
    /// Always this one: tests without a redirect.
    Fixed(SocketAddr),
}

impl DataConfig {
    /// The defaults of a pod with these addresses and this identity.
    pub fn new(identity: Identity, pod_ips: Vec<IpAddr>) -> Self {
        Self {
            pod_ips,
            identity,
            outbound_port: names::PORT_OUTBOUND,
            inbound_port: names::PORT_INBOUND,
            admin_port: names::PORT_PROXY_ADMIN,
            socket_mark: None,
            unresolved: Unresolved::Refuse,
            connect_timeout: Duration::from_secs(1),
            // Server-first protocols do not wait for it: the way is opened at once (contracts §2).
            detect_timeout: Duration::from_secs(1),
            head_timeout: Duration::from_secs(15),
            original_dst: OriginalDst::Kernel,
        }
    }
}
