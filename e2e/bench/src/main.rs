//! Measures what the mesh promises in numbers, and says for each whether it is kept. `just bench` runs it.
//!
//! Release binary, real controller, real redirect, pods as network namespaces, as an ordinary user. A benchmark and no test:
//! a number that is missed is printed as missed and fails nothing, because it depends on the machine. One that could not be
//! measured does, where it is ours or a bar needs it; all the rest is measured and reported before.

mod change;
mod contestant;
mod footprint;
mod host;
mod instructions;
mod load;
mod parts;
mod traffic;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use mesh_measure::Report;
use mesh_testbed::envoy::Program;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::contestant::{Contestant, Programs};

/// Measures what the data plane costs beside Envoy, start, memory and size of a proxy, and how soon a change is in force.
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
    /// How often every contestant has its turn.
    #[arg(long, default_value = "3", value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,
    /// How many seconds a test of a contestant takes.
    #[arg(long, default_value = "2", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only this part.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// Only these contestants: direct, envoy-h1, envoy-h2, ours.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = contestant)]
    contestants: Vec<Contestant>,
    /// Of the traffic only the tests with a figure whose name has this in it.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    figure: String,
    /// Write the instructions that are counted into the tree, to be held from now on.
    #[arg(long, requires = "only")]
    update: bool,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What the data plane costs, beside Envoy.
    Traffic,
    /// Start, memory, size.
    Footprint,
    /// How soon a change is in force.
    Change,
    /// Decisions on a request's path, each by itself.
    Parts,
    /// Instructions of one request, which is not part of the whole: it needs valgrind, and holds what it counts.
    Instructions,
}

fn contestant(name: &str) -> Result<Contestant, String> {
    let known = Contestant::ALL.into_iter().find(|known| known.name() == name);
    known.ok_or_else(|| Contestant::ALL.map(Contestant::name).join(", "))
}

fn main() -> ExitCode {
    if let Some(ended) = mesh_testbed::role() {
        return ended;
    }
    let cli = Cli::parse();
    // The network of the machine is out of reach after this, and a process with threads cannot move into a user namespace.
    let envoy = cli.envoy();
    if let Some(ended) = mesh_testbed::enter() {
        return ended;
    }
    match run(&cli, envoy.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            mesh_measure::complain(&error);
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    fn measures(&self, part: Part) -> bool {
        self.only.map_or(part != Part::Instructions, |only| only == part)
    }

    /// Envoy, where it is needed and can be had.
    fn envoy(&self) -> Option<Program> {
        let wanted = |name: &Contestant| matches!(name, Contestant::Envoy(_));
        let wanted = self.contestants.is_empty() || self.contestants.iter().any(wanted);
        if !wanted || !self.measures(Part::Traffic) {
            return None;
        }
        let fetched = mesh_measure::build_directory().and_then(|build| Program::fetch(&build));
        fetched.map_err(|error| mesh_measure::complain(&error.context("goes on without Envoy"))).ok()
    }

    fn contestants(&self, envoy: bool) -> Vec<Contestant> {
        let wanted = |name: &Contestant| self.contestants.is_empty() || self.contestants.contains(name);
        let there = |name: &Contestant| envoy || !matches!(name, Contestant::Envoy(_));
        Contestant::ALL.into_iter().filter(|name| wanted(name) && there(name)).collect()
    }
}

fn run(cli: &Cli, envoy: Option<&Program>) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    let proxy = cli.proxy.clone().unwrap_or_else(|| own.with_file_name("mesh-proxy"));
    anyhow::ensure!(
        proxy.is_file(),
        "no program {}: build it with `cargo build --release --package mesh-proxy`",
        proxy.display()
    );
    // A thousand connections are several descriptors each, here and in the proxies.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    if cli.measures(Part::Instructions) {
        return instructions::measure(&proxy, cli.update);
    }
    let mut report = Report::here();
    let mut complete = Ok(());
    if cli.measures(Part::Traffic) {
        let settings = traffic::Settings {
            rounds: cli.rounds,
            time: Duration::from_secs(cli.seconds),
            contestants: cli.contestants(envoy.is_some()),
            figure: cli.figure.clone(),
        };
        let figures = traffic::measure(Programs { ours: &proxy, envoy }, &settings)?;
        complete = traffic::complete(&figures);
        report.compared(figures);
    }
    if cli.measures(Part::Footprint) {
        footprint::measure(&proxy, cli.starts, &mut report)?;
    }
    if cli.measures(Part::Change) {
        change::measure(&proxy, cli.changes, &mut report)?;
    }
    if cli.measures(Part::Parts) {
        parts::measure(&mut report)?;
    }
    report.print()?;
    let written = match &cli.report {
        Some(path) => path.clone(),
        None => mesh_measure::build_directory()?.join("bench/report.json"),
    };
    report.write(&written)?;
    complete
}
