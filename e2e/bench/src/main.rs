//! Measures what the mesh promises in numbers, and says for each whether it is kept. `just bench` runs it.
//!
//! Release binary, real controller, real redirect, pods as network namespaces, as an ordinary user. A benchmark and no test:
//! a number that is missed is printed as missed and fails nothing, because it depends on the machine.

mod change;
mod footprint;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use mesh_measure::Report;

/// Measures start, memory, size of a proxy, and how soon a change is in force.
#[derive(Debug, Parser)]
struct Cli {
    /// The program to measure; else the `mesh-proxy` beside this one.
    #[arg(long, value_name = "FILE")]
    proxy: Option<PathBuf>,
    /// Where the report goes, as JSON; else `bench/report.json` in the build directory.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How often a proxy is started.
    #[arg(long, default_value = "11", value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=200))]
    starts: u8,
    /// How often each kind of object is changed.
    #[arg(long, default_value = "100", value_name = "COUNT")]
    changes: u32,
}

fn main() -> ExitCode {
    // Before anything else: a process with threads cannot move into a user namespace.
    if let Some(ended) = mesh_testbed::enter() {
        return ended;
    }
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            mesh_measure::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    let proxy = cli.proxy.clone().unwrap_or_else(|| own.with_file_name("mesh-proxy"));
    let written =
        cli.report.clone().unwrap_or_else(|| own.ancestors().nth(2).unwrap_or(&own).join("bench/report.json"));
    anyhow::ensure!(
        proxy.is_file(),
        "no program {}: build it with `cargo build --release --package mesh-proxy`",
        proxy.display()
    );
    let mut report = Report::here();
    footprint::measure(&proxy, cli.starts, &mut report)?;
    change::measure(&proxy, cli.changes, &mut report)?;
    report.print()?;
    report.write(&written)
}
