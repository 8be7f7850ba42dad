//! What the user says on the command line, and what the controller is made from.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use mesh_proto::{identity, inbound::DefaultPolicy, names};

use crate::{api::connect, source::kube::Pace};

/// Longest life of a leaf certificate that makes sense; the shortest leaves time to renew.
const LEAF_LIFETIME: std::ops::RangeInclusive<u64> = 5..=365 * 24 * 3600;

/// Long enough for a proxy that is starved of CPU, short enough that nobody holds memory here for long.
const SLOWEST_READER: Duration = Duration::from_mins(1);

/// Read Services, routes and policies, certify proxies and tell each what it needs, until a signal ends it.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where objects come from: `kube`, the Kubernetes API, or `dir:PATH`, a directory of manifests. In a pod of a
    /// cluster it is `kube` unless said otherwise.
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<Source>,
    /// For `--source kube` outside a cluster: the file that says where it is. Without it, what KUBECONFIG names, or
    /// ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Directory for the certificate authority and the key of join tokens, made at the first start. In a cluster the
    /// authority is a Secret, of which this directory is a copy; there it belongs in memory.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Directory of a certificate authority that somebody else keeps, e.g. a mounted Secret of cert-manager: ca.crt
    /// (the roots), tls.crt and tls.key (the issuer). Changes are in force within seconds.
    #[arg(long, value_name = "DIR")]
    pub ca: Option<PathBuf>,
    /// Trust domain of every identity.
    #[arg(long, value_name = "NAME", default_value = names::DEFAULT_TRUST_DOMAIN, value_parser = trust_domain)]
    pub trust_domain: String,
    /// Address of the gRPC port.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], names::PORT_CONTROLLER)))]
    pub listen: SocketAddr,
    /// Address of the admin port.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], names::PORT_ADMIN)))]
    pub admin: SocketAddr,
    /// Who is let in where neither pod nor namespace say: allow, authenticated, same-namespace, deny or audit.
    #[arg(long, value_name = "POLICY", default_value = DefaultPolicy::Allow.as_str(), value_parser = DefaultPolicy::from_str)]
    pub default_policy: DefaultPolicy,
    /// Life of a certificate, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "86400", value_parser = leaf_lifetime)]
    pub leaf_lifetime: Duration,
    /// File to write the roots of trust to (PEM), for the injector.
    #[arg(long, value_name = "FILE")]
    pub trust_bundle_out: Option<PathBuf>,
    /// Log filter.
    #[arg(long, value_name = "FILTER", env = names::ENV_LOG, default_value = "info")]
    pub log: String,
    /// One JSON object per line instead of text.
    #[arg(long)]
    pub log_json: bool,
}

/// `mesh-controller ca …`: steps of a rotation, on the files of a controller that may run meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CaStep {
    /// First: makes a new root, which every proxy is to trust before anything else happens.
    AddRoot,
    /// Second, when every proxy trusts two roots (meshctl identity --all): the new root signs the issuer from now on.
    SwitchIssuer,
    /// Last, when every proxy has renewed its certificate: only the new root is trusted.
    DropRoots,
}

/// Replace the root of trust step by step, without a restart; each step says what to do next.
#[derive(Debug, Clone, clap::Args)]
pub struct CaArgs {
    /// State directory of the controller.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Trust domain.
    #[arg(long, value_name = "NAME", default_value = names::DEFAULT_TRUST_DOMAIN, value_parser = trust_domain)]
    pub trust_domain: String,
    /// Which step.
    #[arg(value_enum, value_name = "STEP")]
    pub step: CaStep,
}

/// Print a join token: good for one certificate of one pod, at most ten minutes long.
#[derive(Debug, Clone, clap::Args)]
pub struct MintArgs {
    /// State directory of the controller.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Trust domain.
    #[arg(long, value_name = "NAME", default_value = names::DEFAULT_TRUST_DOMAIN, value_parser = trust_domain)]
    pub trust_domain: String,
    /// Namespace of the pod.
    #[arg(long)]
    pub namespace: String,
    /// Service account of the pod.
    #[arg(long, default_value = "default")]
    pub service_account: String,
    /// Name of the pod.
    #[arg(long)]
    pub pod: String,
    /// Uid of the pod.
    #[arg(long)]
    pub uid: String,
    /// Life of the token, in seconds; at most 600.
    #[arg(long, default_value = "600")]
    pub life: u64,
}

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A watched directory of manifests.
    Dir(PathBuf),
    /// The Kubernetes API.
    Kube,
}

/// Not a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSource {
    /// Neither of those that there are.
    #[error("{0:?} is not a source; use kube or dir:PATH")]
    Unknown(String),
}

/// None was named, and nothing says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no --source, and this is no pod of a cluster (KUBERNETES_SERVICE_HOST is not set); \
     name a directory of manifests with --source dir:PATH, or a cluster with --source kube --kubeconfig FILE"
)]
pub struct NoSource;

impl FromStr for Source {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        match text.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Dir(path.into())),
            None if text == "kube" => Ok(Self::Kube),
            _ => Err(BadSource::Unknown(text.to_owned())),
        }
    }
}

/// What a controller is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where objects come from.
    pub source: Source,
    /// Where the cluster is, for [`Source::Kube`].
    pub kubeconfig: Option<PathBuf>,
    /// How long things may take there.
    pub pace: Pace,
    /// Where secrets are kept.
    pub state_dir: PathBuf,
    /// A certificate authority that somebody else keeps.
    pub ca: Option<PathBuf>,
    /// Of every identity.
    pub trust_domain: String,
    /// Of the gRPC port; port 0 picks a free one.
    pub listen: SocketAddr,
    /// In force where neither pod nor namespace say.
    pub default_policy: DefaultPolicy,
    /// Life of a certificate.
    pub leaf_lifetime: Duration,
    /// Where the roots of trust are written, for the injector.
    pub trust_bundle_out: Option<PathBuf>,
    /// A proxy that takes no message for this long is cut off.
    pub slowest_reader: Duration,
}

impl TryFrom<&Args> for Config {
    type Error = NoSource;

    fn try_from(args: &Args) -> Result<Self, NoSource> {
        let in_cluster = || connect::in_cluster().then_some(Source::Kube);
        Ok(Self {
            source: args.source.clone().or_else(in_cluster).ok_or(NoSource)?,
            kubeconfig: args.kubeconfig.clone(),
            pace: Pace::default(),
            state_dir: args.state_dir.clone(),
            ca: args.ca.clone(),
            trust_domain: args.trust_domain.clone(),
            listen: args.listen,
            default_policy: args.default_policy,
            leaf_lifetime: args.leaf_lifetime,
            trust_bundle_out: args.trust_bundle_out.clone(),
            slowest_reader: SLOWEST_READER,
        })
    }
}

fn trust_domain(text: &str) -> Result<String, String> {
    if identity::is_trust_domain(text) {
        return Ok(text.to_owned());
    }
    Err("1 to 255 of a-z, 0-9, '.', '-' and '_'".into())
}

fn leaf_lifetime(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if LEAF_LIFETIME.contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("a number of seconds from {} to {}", LEAF_LIFETIME.start(), LEAF_LIFETIME.end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_cluster_or_a_directory() {
        assert_eq!("dir:/a:b".parse(), Ok(Source::Dir("/a:b".into())));
        assert_eq!("kube".parse(), Ok(Source::Kube));
        for text in ["", "dir:", "dir", "/path", "file:/x", "kube:", "kube:x"] {
            assert_eq!(text.parse::<Source>(), Err(BadSource::Unknown(text.into())), "{text}");
        }
    }
}
