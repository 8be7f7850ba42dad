//! The injector's command line, and what the code makes of it.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use mesh_proto::names;
use mesh_runtime::telemetry::{self, Format};

use crate::{
    namespaces::{Cluster, Namespaces},
    sidecar::Mesh,
};

/// What is wrong where the API server cannot be asked.
const NO_CLUSTER: &str = "find the API server: run in a pod with a service account, or give --manifests DIR";

/// How long a webhook that is to end still answers in a cluster: until then API servers may be sent to it, by a Service
/// that does not know yet, and a pod whose review is refused starts without a sidecar (or not at all).
const LINGER: Duration = Duration::from_secs(5);

/// Command line of `mesh-injector run`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Directory with tls.crt and tls.key of the webhook; followed as they change. Without --manifests it is filled from
    /// the Secret mesh-injector-webhook-tls, which is made where there is none
    #[arg(long, value_name = "DIR")]
    pub tls_dir: PathBuf,
    /// File with the roots of trust (PEM) that sidecars start with; followed as it changes
    #[arg(long, value_name = "FILE")]
    pub trust_bundle_file: Option<PathBuf>,
    /// Directory of manifests with the namespaces; without it the API server of this pod is asked
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// Where the webhook listens
    #[arg(long, value_name = "ADDR", default_value_t = any(names::PORT_INJECTOR))]
    pub webhook_addr: SocketAddr,
    /// Where the admin server listens
    #[arg(long, value_name = "ADDR", default_value_t = any(names::PORT_ADMIN))]
    pub admin_addr: SocketAddr,
    /// Image of the sidecar
    #[arg(long, value_name = "IMAGE", default_value_t = Mesh::default().image)]
    pub proxy_image: String,
    /// imagePullPolicy of the sidecar
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent")]
    pub proxy_pull_policy: String,
    /// Trust domain of the mesh
    #[arg(long, value_name = "NAME", default_value = names::DEFAULT_TRUST_DOMAIN)]
    pub trust_domain: String,
    /// host:port of the controller's gRPC
    #[arg(long, value_name = "HOST:PORT", default_value_t = Mesh::default().controller)]
    pub controller_addr: String,
    /// Log filter of sidecars without an annotation for it
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = filter)]
    pub proxy_log: String,
    /// Socket mark that exempts the proxy's sockets from the redirect, where its user id cannot
    #[arg(long, value_name = "MARK", value_parser = mark)]
    pub socket_mark: Option<u32>,
    /// Evict the pods that should have a sidecar and have none, one of a workload at a time and within its disruption budget
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    pub evict: bool,
    /// Log filter of the injector
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// Log as JSON, one object a line
    #[arg(long)]
    pub log_json: bool,
}

/// What the injector runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// What all sidecars have in common.
    pub mesh: Mesh,
    /// Where namespaces are looked up.
    pub namespaces: Namespaces,
    /// Directory of the webhook's certificate.
    pub tls_dir: PathBuf,
    /// File with the roots of trust.
    pub trust_bundle_file: Option<PathBuf>,
    /// Where the webhook listens.
    pub webhook_addr: SocketAddr,
    /// Where the admin server listens.
    pub admin_addr: SocketAddr,
    /// Whether pods that got no sidecar are evicted.
    pub evict: bool,
    /// How long it goes on after it was told to end.
    pub linger: Duration,
}

impl Args {
    /// Plain, or JSON where asked for.
    pub fn log_format(&self) -> Format {
        if self.log_json { Format::Json } else { Format::Plain }
    }

    /// What the code makes of it.
    pub fn into_config(self) -> anyhow::Result<Config> {
        let cluster = || Cluster::of_this_pod().map_err(anyhow::Error::from_boxed);
        let (namespaces, linger) = match self.manifests {
            Some(directory) => (Namespaces::Directory(directory), Duration::ZERO),
            None => (Namespaces::Cluster(cluster().context(NO_CLUSTER)?), LINGER),
        };
        Ok(Config {
            mesh: Mesh {
                image: self.proxy_image,
                pull_policy: self.proxy_pull_policy,
                trust_domain: self.trust_domain,
                controller: self.controller_addr,
                trust_bundle: None,
                log: self.proxy_log,
                socket_mark: self.socket_mark,
            },
            namespaces,
            tls_dir: self.tls_dir,
            trust_bundle_file: self.trust_bundle_file,
            webhook_addr: self.webhook_addr,
            admin_addr: self.admin_addr,
            evict: self.evict,
            linger,
        })
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

fn filter(text: &str) -> Result<String, telemetry::BadFilter> {
    telemetry::check(text).map(|()| text.to_owned())
}

/// Decimal, or hexadecimal with 0x.
fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.ok().filter(|mark| *mark != 0).ok_or_else(|| format!("{text:?} is not a mark such as 0x2102"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_command_line_becomes_the_mesh_of_every_sidecar() {
        let line = ["mesh-injector", "--tls-dir=/tls", "--socket-mark=0x2102", "--manifests=/m", "--trust-domain=a.b"];
        let config = Line::parse_from(line).args.into_config().unwrap();
        assert_eq!(config.mesh.socket_mark, Some(names::PROXY_MARK));
        assert_eq!(config.mesh.trust_domain, "a.b");
        assert_eq!(config.mesh.controller, "mesh-controller.mesh-system.svc:8443");
        assert!(matches!(config.namespaces, Namespaces::Directory(path) if path.as_os_str() == "/m"));
        assert_eq!(config.webhook_addr.port(), 9443);
        assert!(Line::try_parse_from(["mesh-injector", "--tls-dir=/", "--socket-mark=x"]).is_err());
        assert!(Line::try_parse_from(["mesh-injector", "--tls-dir=/", "--proxy-log=inof"]).is_err());
    }
}
