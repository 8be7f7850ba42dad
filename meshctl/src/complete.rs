//! What a shell may complete: names of the mesh that the words so far point at, within a budget that nobody notices.
//!
//! Called by clap_complete while a person presses Tab. It never prints and never fails: no answer is no candidate.

use std::{ffi::OsStr, time::Duration};

use clap::Parser as _;
use clap_complete::engine::CompletionCandidate;

use crate::{
    cli::Globals,
    cluster::{Cluster, PodInfo},
    explain,
};

/// Longest that a person waits for a completion.
const BUDGET: Duration = Duration::from_millis(300);

/// Names that `explain` knows.
pub(crate) fn topics(current: &OsStr) -> Vec<CompletionCandidate> {
    let pages = explain::all().into_iter();
    candidates(current, pages.map(|page| (page.name, page.summary)))
}

/// Namespaces with pods.
pub(crate) fn namespaces(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut names: Vec<String> = pods().into_iter().map(|pod| pod.namespace).collect();
    names.dedup();
    candidates(current, names.into_iter().map(|name| (name, String::new())))
}

/// Workloads, as `deploy/NAME`.
pub(crate) fn resources(current: &OsStr) -> Vec<CompletionCandidate> {
    let short = |pod: &PodInfo| pod.workload_or_name().replace("deployment/", "deploy/");
    let mut names: Vec<(String, String)> =
        pods().iter().map(|pod| (short(pod), format!("in namespace {}", pod.namespace))).collect();
    names.dedup();
    candidates(current, names.into_iter())
}

fn candidates(current: &OsStr, names: impl Iterator<Item = (String, String)>) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let candidate = |(name, help): (String, String)| {
        CompletionCandidate::new(name).help(Some(help).filter(|help| !help.is_empty()).map(Into::into))
    };
    names.filter(|(name, _)| name.starts_with(current)).map(candidate).collect()
}

/// The globals among the words so far; what does not belong to them is passed over.
#[derive(clap::Parser)]
#[command(ignore_errors = true, disable_help_flag = true)]
struct Words {
    #[command(flatten)]
    globals: Globals,
    #[arg(trailing_var_arg = false)]
    _others: Vec<String>,
}

fn pods() -> Vec<PodInfo> {
    // `meshctl -- meshctl tap --playground …`: the shell's words come after the first `--`.
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let Ok(Words { globals, .. }) = Words::try_parse_from(words) else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let asked = async {
        let cluster = Cluster::select(&globals).await.ok()?;
        cluster.pods(globals.namespace.as_deref()).await.ok()
    };
    runtime.block_on(async { tokio::time::timeout(BUDGET, asked).await }).ok().flatten().unwrap_or_default()
}
