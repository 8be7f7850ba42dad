//! What the user may type, as types. No behaviour: each command is one file under `commands/`.

mod globals;
#[cfg(test)]
mod reference;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

pub(crate) use self::globals::{Color, Globals, Output, color_of};

use crate::{
    commands::{
        stat::{By, Sort},
        tap::{Except, header},
    },
    complete,
    filter::{LatencyFloor, StatusRange, duration, window},
    install::Profile,
    resource::Resource,
};

/// A service mesh for Kubernetes: mutual TLS, load balancing and live traffic without changing applications.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, max_term_width = 100, after_help = AFTER)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
First time? meshctl playground runs the whole mesh with a demo shop on this machine.
A code you do not know? meshctl explain CODE. Exit codes: meshctl help exit-codes.";

/// Commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole mesh with a demo shop on this machine: no cluster, no root
    Playground(crate::playground::Args),
    /// Check whether the mesh is healthy, or with -f whether manifests are
    Check(Check),
    /// Show which workloads are meshed, and if not, why
    List,
    /// Show success rate, requests per second and latency of each workload, live from the proxies
    Stat(Stat),
    /// Show live requests and connections, one line for each that finished
    Tap(Box<Tap>),
    /// Show the certificates that proxies hold
    Identity(Identity),
    /// Show open connections, or who ended the last ones: with whom, how old, how much
    Connections(Connections),
    /// Show what proxies see, as they see it
    Diagnostics(Diagnostics),
    /// Add the sidecar to manifests: YAML in, YAML out, comments and order kept
    Inject(Inject),
    /// Remove the sidecar from manifests that `inject` made
    Uninject(Uninject),
    /// Say what the mesh makes of a workload: meshed or not and why, its ports, who is let in
    Describe(Describe),
    /// Print the manifest of the control plane for `kubectl apply -f -`, or apply it
    Install(Install),
    /// Show what this release of meshctl would change of an installation, or change it
    Upgrade(Upgrade),
    /// Print what `kubectl delete -f -` takes to remove the mesh, the webhook first
    Uninstall(Uninstall),
    /// Explain a code, check, annotation, status or topic; without one, list them
    Explain(Explain),
    /// Show the versions of meshctl, the controller and the proxies
    Version(Version),
    /// Print what makes a shell complete commands, namespaces and workloads
    Completion(Completion),
}

/// `meshctl check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Check before installing: whether this cluster, or with --playground this machine, can run the mesh
    #[arg(long, conflicts_with_all = ["proxy", "filename"])]
    pub(crate) pre: bool,
    /// Only the proxies, their identities and their workloads
    #[arg(long, conflicts_with = "filename")]
    pub(crate) proxy: bool,
    /// Check these manifests instead, without a cluster: a file, a directory, or `-`; may be given several times
    #[arg(short, long, value_name = "PATH")]
    pub(crate) filename: Vec<PathBuf>,
    /// What makes the command fail: errors (exit code 1), or warnings too (exit code 5)
    #[arg(long, value_enum, default_value_t = FailOn::Error)]
    pub(crate) fail_on: FailOn,
    /// Look again until no error is left
    #[arg(long, conflicts_with = "filename")]
    pub(crate) wait: bool,
    /// Longest that all of it may take (exit code 4)
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// What makes a check fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// Errors
    Error,
    /// Warnings too
    Warning,
}

/// `meshctl stat`.
#[derive(Debug, Args)]
pub(crate) struct Stat {
    /// Only these workloads, pods or namespaces, e.g. deploy/web, or deploy for every Deployment
    #[arg(value_name = "RESOURCE", add = ArgValueCompleter::new(complete::resources))]
    pub(crate) resources: Vec<Resource>,
    /// Only what they send to this workload, Service or namespace, as their own proxies see it
    #[arg(long, value_name = "RESOURCE", conflicts_with = "from", add = ArgValueCompleter::new(complete::resources))]
    pub(crate) to: Option<Resource>,
    /// Only what this workload, pod or namespace sends to them, as its proxies see it
    #[arg(long, value_name = "RESOURCE", conflicts_with = "by", add = ArgValueCompleter::new(complete::resources))]
    pub(crate) from: Option<Resource>,
    /// One line for each: backend, where the requests of a workload went
    #[arg(long, value_name = "WHAT")]
    pub(crate) by: Option<By>,
    /// How long to watch
    #[arg(long, short = 't', value_name = "TIME", default_value = "2s", value_parser = window)]
    pub(crate) window: Duration,
    /// Look again and again until Ctrl-C: redraws a terminal, prints round after round elsewhere
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// What comes first: name, success, rps, p50, p95, p99 or tcp
    #[arg(long, value_enum, value_name = "KEY", default_value_t = Sort::Name, hide_possible_values = true)]
    pub(crate) sort: Sort,
}

/// `meshctl tap`.
#[derive(Debug, Args)]
pub(crate) struct Tap {
    /// Only the proxies of this workload, pod or namespace, e.g. deploy/web; pods that come later are tapped too
    #[arg(add = ArgValueCompleter::new(complete::resources))]
    pub(crate) resource: Option<Resource>,
    /// Only traffic to this workload, pod, service or namespace
    #[arg(long, value_name = "RESOURCE", add = ArgValueCompleter::new(complete::resources))]
    pub(crate) to: Option<Resource>,
    /// Only traffic from this workload, pod or namespace
    #[arg(long, value_name = "RESOURCE", add = ArgValueCompleter::new(complete::resources))]
    pub(crate) from: Option<Resource>,
    /// Only this HTTP method
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// Only paths that begin so
    #[arg(long, value_name = "PREFIX")]
    pub(crate) path: Option<String>,
    /// Only this authority (Host)
    #[arg(long)]
    pub(crate) authority: Option<String>,
    /// Only these statuses: 503, 5xx or 500-504
    #[arg(long)]
    pub(crate) status: Option<StatusRange>,
    /// Only what took at least so long, e.g. 200ms
    #[arg(long, value_name = "AT_LEAST")]
    pub(crate) latency: Option<LatencyFloor>,
    /// Only gRPC calls
    #[arg(long, conflicts_with = "tcp")]
    pub(crate) grpc: bool,
    /// Only opaque connections
    #[arg(long, conflicts_with_all = ["method", "path", "authority", "status"])]
    pub(crate) tcp: bool,
    /// Nothing like this, e.g. path=/health, status=2xx, from=deploy/load, tcp; may be given several times
    #[arg(long = "not", value_name = "KEY=VALUE")]
    pub(crate) except: Vec<Except>,
    /// Show this header of requests and answers; may be given several times
    #[arg(long, value_name = "NAME", value_parser = header)]
    pub(crate) show_header: Vec<String>,
    /// Show queries: what follows the question mark
    #[arg(long)]
    pub(crate) show_query: bool,
    /// At most so many lines a second from each proxy
    #[arg(long, default_value_t = 100)]
    pub(crate) max_rps: u32,
    /// End after so many lines
    #[arg(short = 'c', long, value_name = "LINES")]
    pub(crate) count: Option<u64>,
    /// End after so long
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,
}

/// `meshctl identity`.
#[derive(Debug, Args)]
pub(crate) struct Identity {
    /// Only this workload, pod or namespace, e.g. deploy/web
    #[arg(required_unless_present = "all", add = ArgValueCompleter::new(complete::resources))]
    pub(crate) resource: Option<Resource>,
    /// Every meshed pod
    #[arg(long, conflicts_with = "resource")]
    pub(crate) all: bool,
}

/// `meshctl connections`.
#[derive(Debug, Args)]
pub(crate) struct Connections {
    /// Only of this workload, pod or namespace, e.g. deploy/web
    #[arg(add = ArgValueCompleter::new(complete::resources))]
    pub(crate) resource: Option<Resource>,
    /// Those that have ended, latest first, with who ended them and why
    #[arg(long)]
    pub(crate) closed: bool,
}

/// `meshctl diagnostics`.
#[derive(Debug, Args)]
pub(crate) struct Diagnostics {
    #[command(subcommand)]
    pub(crate) view: View,
}

/// Whose raw view, and which.
#[derive(Debug, Subcommand)]
pub(crate) enum View {
    /// What proxies count, as Prometheus reads it
    ProxyMetrics(Whose),
    /// Where the destinations that pods dialled lead, and how the balancer sees each endpoint
    Endpoints(Whose),
    /// Settings, certificate, policy and versions in force, as JSON
    Config(Whose),
}

/// The proxies to ask.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    /// This workload, pod or namespace, e.g. deploy/web
    #[arg(add = ArgValueCompleter::new(complete::resources))]
    pub(crate) resource: Option<Resource>,
}

impl View {
    /// Whose.
    pub(crate) fn resource(&self) -> Option<&Resource> {
        match self {
            Self::ProxyMetrics(whose) | Self::Endpoints(whose) | Self::Config(whose) => whose.resource.as_ref(),
        }
    }
}

/// `meshctl inject`.
#[derive(Debug, Args)]
pub(crate) struct Inject {
    /// Manifest file or directory; `-` reads standard input
    #[arg(default_value = "-")]
    pub(crate) path: PathBuf,
    /// Exit with 1 if anything would change, and print nothing
    #[arg(long)]
    pub(crate) check: bool,
}

/// `meshctl uninject`.
#[derive(Debug, Args)]
pub(crate) struct Uninject {
    /// Manifest file or directory; `-` reads standard input
    #[arg(default_value = "-")]
    pub(crate) path: PathBuf,
}

/// `meshctl install`, and what `meshctl upgrade` has of it: both render the manifest, and may apply it.
#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    pub(crate) values: Values,
    /// Apply it too, and wait until it works
    #[arg(long)]
    pub(crate) apply: bool,
    /// Longest that --apply may take (exit code 4)
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, requires = "apply")]
    pub(crate) timeout: Duration,
}

/// `meshctl upgrade`.
#[derive(Debug, Args)]
pub(crate) struct Upgrade {
    #[command(flatten)]
    pub(crate) install: Install,
    /// Start from the defaults, not from the values that the mesh was installed with
    #[arg(long)]
    pub(crate) reset_values: bool,
}

/// What fills the manifest: defaults, then --ha and --profile, then files, then --set.
#[derive(Debug, Args)]
pub(crate) struct Values {
    /// Set a value, e.g. --set trustDomain=example.org; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Take values from a file written like deploy/values.yaml; may be given several times
    #[arg(long = "values", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Three replicas of each part, and pods of the mesh do not start while the injector is away
    #[arg(long)]
    pub(crate) ha: bool,
    /// Who may connect where nothing else is said: permissive (the default), authenticated or deny
    #[arg(long, value_enum, value_name = "NAME", hide_possible_values = true)]
    pub(crate) profile: Option<Profile>,
}

/// `meshctl uninstall`.
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Even while pods run with a sidecar
    #[arg(long)]
    pub(crate) force: bool,
}

/// `meshctl describe`.
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// A workload, pod, Service or namespace, e.g. deploy/web or svc/web
    #[arg(add = ArgValueCompleter::new(complete::resources))]
    pub(crate) resource: Resource,
}

/// `meshctl explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// CODE, CHECK-ID, ANNOTATION, HTTP status, exit code or topic, e.g. no-endpoints, 503, mtls
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Option<String>,
}

/// `meshctl version`.
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Only that of meshctl; asks nobody
    #[arg(long)]
    pub(crate) client: bool,
}

/// `meshctl completion`.
#[derive(Debug, Args)]
#[command(after_help = COMPLETION)]
pub(crate) struct Completion {
    /// bash, zsh, fish or powershell
    pub(crate) shell: Shell,
}

const COMPLETION: &str = "\
bash        source <(meshctl completion bash)                        # in ~/.bashrc
zsh         source <(meshctl completion zsh)                         # in ~/.zshrc, after compinit
fish        meshctl completion fish | source                         # in ~/.config/fish/config.fish
powershell  meshctl completion powershell | Out-String | iex         # in $PROFILE";

/// Shells that can complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
    /// PowerShell
    #[value(name = "powershell")]
    Power,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn globals_go_before_and_after_the_command() {
        for line in ["meshctl --playground tap --status 5xx", "meshctl tap --status 5xx --playground"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.globals.playground, "{line}");
        }
    }

    #[test]
    fn identity_wants_a_resource_or_all() {
        assert!(Cli::try_parse_from(["meshctl", "identity"]).is_err());
        assert!(Cli::try_parse_from(["meshctl", "identity", "--all"]).is_ok());
        assert!(Cli::try_parse_from(["meshctl", "identity", "deploy/web"]).is_ok());
    }
}
