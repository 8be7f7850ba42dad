//! Attacks the mesh and breaks what is around it, row by row, and scores what it bears. `just torture` runs it.
//!
//! Release binary, real controller, real redirect, pods as network namespaces, as an ordinary user. Each row is a process of its
//! own, so that one that hangs is ended, with everything it started, and the others go on. Whether a row passes is computed from
//! what was measured. Rows about one proxy and the wire are run with Envoy in its place, too, and judged alike.

mod invariants;
mod load;
mod oracle;
mod outcome;
mod party;
mod process;
mod raw;
mod report;
mod rig;
mod row;
mod rows;
mod runner;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;

use crate::{row::Stage, runner::Programme};

/// Attacks the mesh and breaks what is around it, and scores what it bears.
#[derive(Debug, Parser)]
struct Cli {
    /// The proxy to torture; else the `mesh-proxy` beside this program.
    #[arg(long, value_name = "FILE")]
    proxy: Option<PathBuf>,
    /// Where the report goes, as JSON; else `torture/report.json` in the build directory.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The quick and sturdy rows, shortened, ours alone; fails unless every one passes.
    #[arg(long)]
    ci: bool,
    /// These rows alone.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// Ours alone, without Envoy beside them.
    #[arg(long)]
    without_envoy: bool,
    /// One row in this process, its findings as the last line of the output.
    #[arg(long, hide = true, value_name = "ID")]
    row: Option<String>,
    /// With this Envoy in place of our proxies.
    #[arg(long, hide = true, value_name = "FILE", requires = "row")]
    envoy: Option<PathBuf>,
}

fn main() -> ExitCode {
    // A controller of a testbed is this program, too.
    let is_row = std::env::args().any(|argument| argument == "--row");
    let is_runner = !is_row && std::env::args().nth(1).is_none_or(|argument| argument.starts_with('-'));
    // Before anything else: a process with threads cannot move into a user namespace.
    if !is_runner && let Some(ended) = mesh_testbed::enter() {
        return ended;
    }
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            mesh_measure::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether that is a success.
fn run(cli: &Cli) -> anyhow::Result<bool> {
    let own = std::env::current_exe().context("find this program")?;
    let proxy = cli.proxy.clone().unwrap_or_else(|| own.with_file_name("mesh-proxy"));
    anyhow::ensure!(
        proxy.is_file(),
        "no program {}: build it with `cargo build --release --package mesh-proxy`",
        proxy.display()
    );
    if let Some(id) = &cli.row {
        runner::one(id, &Stage { proxy, full: !cli.ci, envoy: cli.envoy.clone() })?;
        return Ok(true);
    }
    let report = runner::all(&Programme { own, proxy, ci: cli.ci, only: &cli.only, envoy: !cli.without_envoy })?;
    report.print()?;
    let written = match &cli.report {
        Some(path) => path.clone(),
        None => mesh_measure::build_directory()?.join("torture/report.json"),
    };
    mesh_measure::write(&report, &written)?;
    Ok(!cli.ci || report.is_clean())
}
