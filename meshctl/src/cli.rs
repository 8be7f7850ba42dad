//! What the user may type, as types. No behaviour: each command is one file under `commands/`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    filter::{LatencyFloor, StatusRange},
    resource::Resource,
};

/// A service mesh for Kubernetes: mutual TLS, load balancing and live traffic without changing applications.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 the thing asked about is bad, 2 usage, 3 cluster not reachable or forbidden, 4 timed out,
6 not found or no data. Data goes to stdout, everything else to stderr.";

/// Options that every command takes, before or after its name.
#[derive(Debug, Clone, Args)]
pub(crate) struct Globals {
    /// Look at the playground on this machine instead of a cluster
    #[arg(long, global = true)]
    pub(crate) playground: bool,
    /// Only this namespace (default: all)
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Form of the data on stdout
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Print no header line
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

/// Form of the data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns for people
    Table,
    /// More columns
    Wide,
    /// One JSON document
    Json,
    /// One JSON object a line
    Ndjson,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR or TERM=dumb
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole mesh with a demo shop on this machine: no cluster, no root
    Playground(crate::playground::Args),
    /// Show which workloads are meshed, and if not, why
    List,
    /// Show success rate, requests per second and latency of each workload, live from the proxies
    Stat(Stat),
    /// Show live requests and connections, one line for each that finished
    Tap(Tap),
    /// Show the certificates that proxies hold
    Identity(Identity),
    /// Add the sidecar to manifests: YAML in, YAML out, comments and order kept
    Inject(Inject),
    /// Remove the sidecar from manifests that `inject` made
    Uninject(Uninject),
    /// Print the manifest of the control plane for `kubectl apply -f -`
    Install(Install),
    /// Show the version of meshctl
    Version,
}

/// `meshctl stat`.
#[derive(Debug, Args)]
pub(crate) struct Stat {
    /// Only this workload, pod or namespace, e.g. deploy/web
    pub(crate) resource: Option<Resource>,
    /// How long to watch
    #[arg(long, short = 't', default_value = "2s", value_parser = duration)]
    pub(crate) window: Duration,
}

/// `meshctl tap`.
#[derive(Debug, Args)]
pub(crate) struct Tap {
    /// Only the proxies of this workload, pod or namespace, e.g. deploy/web
    pub(crate) resource: Option<Resource>,
    /// Only traffic to this workload, pod, service or namespace
    #[arg(long)]
    pub(crate) to: Option<Resource>,
    /// Only traffic from this workload, pod or namespace
    #[arg(long)]
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
    #[arg(required_unless_present = "all")]
    pub(crate) resource: Option<Resource>,
    /// Every meshed pod
    #[arg(long, conflicts_with = "resource")]
    pub(crate) all: bool,
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

/// `meshctl install`.
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// Set a value, e.g. --set trustDomain=example.org
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::filter::parse_duration(text).ok_or_else(|| format!("{text:?} is not a duration such as 500ms, 2s or 1m"))
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
