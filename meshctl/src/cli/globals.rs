//! Options that every command takes, before or after its name, and their values. No behaviour.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ColorChoice, ValueEnum};
use mesh_proto::names;

use crate::printer::may_color;

/// Options that every command takes, before or after its name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Look at the playground on this machine instead of a cluster
    #[arg(long, global = true, display_order = 100)]
    pub(crate) playground: bool,
    /// Only this namespace (default: the context's; every one on the playground)
    #[arg(short, long, global = true, value_name = "NAME", display_order = 101,
          add = clap_complete::engine::ArgValueCompleter::new(crate::complete::namespaces))]
    pub(crate) namespace: Option<String>,
    /// Every namespace
    #[arg(short = 'A', long, global = true, conflicts_with = "namespace", display_order = 102)]
    pub(crate) all_namespaces: bool,
    /// Form of the data on stdout: table, wide, json, ndjson, yaml or name, where they make sense
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table, hide_possible_values = true,
          hide_default_value = true, value_name = "FORM", display_order = 103)]
    pub(crate) output: Output,
    /// Print no header line
    #[arg(long, global = true, display_order = 104)]
    pub(crate) no_headers: bool,
    /// When to colour: auto (on a terminal, unless NO_COLOR or TERM=dumb), always or never
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, hide_possible_values = true,
          hide_default_value = true, value_name = "WHEN", display_order = 105)]
    pub(crate) color: Color,
    /// Exit with 6 if there is nothing to show
    #[arg(long, global = true, display_order = 106, hide_short_help = true)]
    pub(crate) fail_empty: bool,
    /// Say on stderr what is asked of whom, and how long it took
    #[arg(short, long, global = true, display_order = 107)]
    pub(crate) verbose: bool,
    /// Longest that one question to the cluster or a proxy may take
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = crate::filter::duration,
          display_order = 108, hide_short_help = true)]
    pub(crate) request_timeout: Duration,
    /// Kubeconfig file (default: $KUBECONFIG, then ~/.kube/config)
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        display_order = 109,
        hide_short_help = true,
        conflicts_with = "playground"
    )]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig (default: its current one)
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        display_order = 110,
        hide_short_help = true,
        conflicts_with = "playground"
    )]
    pub(crate) context: Option<String>,
    /// Act as this user
    #[arg(
        long = "as",
        global = true,
        value_name = "USER",
        display_order = 111,
        hide_short_help = true,
        conflicts_with = "playground"
    )]
    pub(crate) as_user: Option<String>,
    /// Act as this group; may be given several times
    #[arg(
        long,
        global = true,
        value_name = "GROUP",
        display_order = 112,
        hide_short_help = true,
        requires = "as_user"
    )]
    pub(crate) as_group: Vec<String>,
    /// Namespace of the control plane
    #[arg(long, global = true, value_name = "NAME", default_value = names::SYSTEM_NAMESPACE, display_order = 113,
          hide_short_help = true)]
    pub(crate) mesh_namespace: String,
}

/// What `--color` says to help and to errors about the command line itself, which come before it is read.
pub(crate) fn color_of(words: &[OsString]) -> ColorChoice {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).take_while(|word| word != "--").collect();
    let after = |pair: &[std::borrow::Cow<'_, str>]| (pair[0] == "--color").then(|| pair[1].to_string());
    let joined = words.iter().filter_map(|word| word.strip_prefix("--color=").map(str::to_owned));
    match words.windows(2).filter_map(after).chain(joined).last().as_deref() {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        // clap alone would colour a dumb terminal where `CI` is set.
        _ if !may_color() => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}

/// Form of the data on stdout. Not every command has every form.
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
    /// The JSON document as YAML
    Yaml,
    /// KIND/NAME, one a line
    Name,
    /// `tap`: one line an event
    Line,
    /// `check`: only what is not in order
    Short,
    /// `check`: for CI systems
    Junit,
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
