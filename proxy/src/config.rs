//! What a proxy is told when it starts: parsed once from the environment, then carried as values.
//!
//! [`env`] reads it, [`crate::app`] hands each part its share; the data path gets [`DataConfig`]. Nothing here is secret, so
//! all of it may be logged and shown. It does not know where the values come from or how they are used.

use std::{collections::BTreeSet, fmt, net::IpAddr, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use mesh_proto::{
    admin::Setting,
    config::{Hello, PROTOCOL_VERSION},
    identity::Identity,
    names,
    ports::{PortSet, Subnets},
    probe::Probe,
};
use mesh_runtime::{build_info, telemetry::Format};

pub mod env;
mod limits;

pub use limits::Limits;

/// Everything a proxy is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The pod it serves.
    pub pod: Pod,
    /// The data path's share.
    pub data: Arc<DataConfig>,
    /// Where the controller is.
    pub controller: HostPort,
    /// File with the bootstrap token; read anew for every request.
    pub token_file: PathBuf,
    /// Where roots of trust come from before the first bundle on the stream.
    pub trust: TrustSources,
    /// Log filter at start.
    pub log: String,
    /// How a line of the log is written.
    pub log_format: Format,
    /// Worker threads of the data path; at least 1.
    pub workers: usize,
    /// Longest a drain may take.
    pub drain: Duration,
    /// The application's own probes.
    pub probes: Vec<Probe>,
    /// What the redirect leaves alone; shown, and otherwise no business of the proxy.
    pub skipped: Skipped,
    /// Whether finished requests are logged.
    pub access_log: AccessLog,
    /// Where spans go; none: there are no traces.
    pub traces: Option<Traces>,
    /// The variables that were set.
    pub given: BTreeSet<&'static str>,
}

/// Whether every finished request and connection is written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Nothing is.
    #[default]
    Off,
    /// As one JSON object on one line.
    Json,
}

/// Spans of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// The collector: OTLP over gRPC, in clear text.
    pub endpoint: HostPort,
    /// Share of the traces that begin here which are sampled, 0 to 1.
    pub sample: f64,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// What owns it, e.g. `deployment/web`; none for a bare pod.
    pub workload: Option<String>,
}

/// A host and a port of it. Of the controller, the name only leads there: who answers is told by its SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
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
    /// The same of the pod's own application, which is no network away.
    pub app_connect_timeout: Duration,
    /// Longest to wait for a first byte of either side before a connection counts as TCP.
    pub detect_timeout: Duration,
    /// Longest a request's head may take, from its first byte.
    pub head_timeout: Duration,
    /// What it may hold, and how long clients may take.
    pub limits: Limits,
    /// Whether the usual request of HTTP/1.1 goes the direct way (`http::direct`); otherwise only where the two are compared.
    pub direct: bool,
    /// Requests of HTTP/1.1 that are at one endpoint at once from which on the next ones share a connection to it; always (0) where that
    /// is what is tested.
    pub share_from: u32,
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
            // reliability.md §1.3. The kernel answers for whoever listens; only a full queue makes it wait.
            app_connect_timeout: Duration::from_millis(100),
            // Waiting is free: the way to the server is open meanwhile, and a server that speaks first ends the wait.
            detect_timeout: Duration::from_secs(1),
            head_timeout: Duration::from_secs(10),
            limits: Limits::default(),
            direct: true,
            // A lone one, with nothing to share, has its answer a third later by a channel, for two more tasks on its way in each proxy
            // (`just bench`: added p50 at 1,000/s 0.54 of Envoy's in place of 0.38).
            share_from: 4,
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

    /// Every setting, as it would be written, and whether it was.
    pub fn settings(&self) -> Vec<Setting> {
        let Self {
            pod,
            data,
            controller,
            token_file,
            trust,
            log,
            log_format,
            workers,
            drain,
            access_log,
            traces,
            probes,
            skipped,
            given,
        } = self;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let ips: Vec<String> = data.pod_ips.iter().map(ToString::to_string).collect();
        let values = [
            (names::ENV_POD_NAMESPACE, pod.namespace.clone()),
            (names::ENV_POD_NAME, pod.name.clone()),
            (names::ENV_POD_UID, pod.uid.clone()),
            (names::ENV_WORKLOAD, pod.workload.clone().unwrap_or_default()),
            (names::ENV_POD_IPS, ips.join(",")),
            (names::ENV_SERVICE_ACCOUNT, data.identity.service_account().to_owned()),
            (names::ENV_TRUST_DOMAIN, data.identity.trust_domain().to_owned()),
            (names::ENV_CONTROLLER_ADDR, controller.to_string()),
            (names::ENV_TOKEN_FILE, token_file.display().to_string()),
            (names::ENV_STATE_DIR, path(&trust.state_dir)),
            (names::ENV_TRUST_BUNDLE_FILE, path(&trust.file)),
            // Public, but pages of it; the bundle in force is shown by the names of its roots.
            (names::ENV_TRUST_BUNDLE, trust.pem.as_ref().map(|pem| format!("{} bytes", pem.len())).unwrap_or_default()),
            (names::ENV_SOCKET_MARK, data.socket_mark.map(|mark| format!("{mark:#x}")).unwrap_or_default()),
            (names::ENV_UNRESOLVED, data.unresolved.as_str().to_owned()),
            (names::ENV_CONNECT_TIMEOUT_MS, data.connect_timeout.as_millis().to_string()),
            (names::ENV_APP_CONNECT_TIMEOUT_MS, data.app_connect_timeout.as_millis().to_string()),
            (names::ENV_LOG, log.clone()),
            (names::ENV_LOG_FORMAT, format(*log_format).to_owned()),
            (names::ENV_WORKERS, workers.to_string()),
            (names::ENV_DRAIN_SECONDS, drain.as_secs().to_string()),
            (names::ENV_ACCESS_LOG, access_log.as_str().to_owned()),
            (names::ENV_TRACE_ENDPOINT, traces.as_ref().map(ToString::to_string).unwrap_or_default()),
            (names::ENV_TRACE_SAMPLE, traces.as_ref().map(|traces| traces.sample.to_string()).unwrap_or_default()),
            (names::ENV_PROBES, probes.iter().map(Probe::path).collect::<Vec<_>>().join(",")),
            (names::ENV_MAX_CONNECTIONS, data.limits.connections.to_string()),
            (names::ENV_MAX_SERIES, data.limits.series.to_string()),
            (names::ENV_MEMORY_LIMIT, data.limits.memory.map(|bytes| bytes.to_string()).unwrap_or_default()),
            (names::ENV_HEAD_TIMEOUT, data.head_timeout.as_secs_f64().to_string()),
            (names::ENV_HANDSHAKE_TIMEOUT, data.limits.handshake_timeout.as_secs_f64().to_string()),
            (names::ENV_PING_INTERVAL, data.limits.ping_interval.as_secs_f64().to_string()),
            (names::ENV_PING_TIMEOUT, data.limits.ping_timeout.as_secs_f64().to_string()),
            (names::ENV_SKIP_INBOUND_PORTS, skipped.inbound.to_string()),
            (names::ENV_SKIP_OUTBOUND_PORTS, skipped.outbound.to_string()),
            (names::ENV_SKIP_SUBNETS, skipped.subnets.to_string()),
        ];
        let setting = |(name, value): (&str, String)| Setting {
            name: name.to_owned(),
            value,
            source: if given.contains(name) { "environment" } else { "default" }.to_owned(),
        };
        values.into_iter().map(setting).collect()
    }
}

/// As written in the environment.
fn format(format: Format) -> &'static str {
    match format {
        Format::Plain => "plain",
        Format::Json => "json",
    }
}

impl AccessLog {
    /// As written in the environment.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.endpoint)
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

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}
