//! Measures on a real Kubernetes what the mesh promises in numbers, and says for each whether it is kept:
//! `just bench-cluster` runs it (`e2e/cluster/bench.sh`).
//!
//! Installs the mesh, and removes it and everything else of its own at the end, on failure and on Ctrl-C too. A benchmark and
//! no test: a number that is missed is printed as missed and fails nothing, because it depends on the machine.

mod admission;
mod change;
mod cluster;
mod crowd;
mod install;
mod namespaces;
mod program;
mod prometheus;
mod start;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use mesh_measure::Report;
use tokio::signal::unix::{SignalKind, signal};

use crate::{change::Changes, cluster::Cluster, install::Mesh};

/// Measures installation, admission, discovery and the start of pods on the cluster of KUBECONFIG.
#[derive(Debug, Parser)]
struct Cli {
    /// Where the report goes, as JSON; else `bench/cluster.json` in the build directory.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How often the mesh is installed.
    #[arg(long, default_value = "3", value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..))]
    installs: u8,
    /// How many pods are admitted.
    #[arg(long, default_value = "1000", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    admissions: u16,
    /// How many pods are started, with the mesh and without.
    #[arg(long, default_value = "15", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=60))]
    starts: u16,
    /// How often an endpoint is changed, with few others and with many.
    #[arg(long, default_value = "100", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    changes: u16,
    /// How many Services there are in the end, each with ten pods.
    #[arg(long, default_value = "1000", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=5000))]
    services: u32,
    /// How often the controller is started anew, with those.
    #[arg(long, default_value = "3", value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..))]
    restarts: u8,
}

// One thread is enough for what waits most of the time, and leaves the others to the cluster.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            mesh_measure::complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let written = match &cli.report {
        Some(path) => path.clone(),
        None => mesh_measure::build_directory()?.join("bench/cluster.json"),
    };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let cluster = Cluster::open().await?;
    let mesh = Mesh::on(&cluster).await?;
    // Left behind by one that was killed.
    namespaces::remove(&cluster).await?;

    let mut report = Report::here();
    let measured = tokio::select! {
        measured = measure(cli, &cluster, &mesh, &mut report) => measured,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    // The mesh last: its proxies go in order while it is there.
    let removed = (namespaces::remove(&cluster).await, mesh.remove().await);
    // What was measured before something failed is worth something, too.
    report.print()?;
    report.write(&written)?;
    measured?;
    removed.0.and(removed.1).context("remove what the benchmark made")
}

async fn measure(cli: &Cli, cluster: &Cluster, mesh: &Mesh, report: &mut Report) -> anyhow::Result<()> {
    said("install");
    mesh.measure(cli.installs, report).await.context("install")?;
    said("admission");
    admission::measure(cluster, cli.admissions.into(), report).await.context("admission")?;
    said("start of pods");
    start::measure(cluster, cli.starts, report).await.context("start of pods")?;
    said("changes");
    let mut changes = Changes::start(cluster).await.context("start what sees changes")?;
    let took = changes.measure(cli.changes).await.context("changes")?;
    let rows = ["endpoint change to its use, median", "endpoint change to its use, p99", "endpoint change, slowest"];
    report.latency(rows, &took, change::USED);
    said("many objects");
    let services = crowd::create(cluster, cli.services, report).await.context("many objects")?;
    said("controller");
    crowd::measure(cluster, services, cli.restarts, report).await.context("controller")?;
    said("changes among many objects");
    let took = changes.measure(cli.changes).await.context("changes among many")?;
    let rows @ [median, percentile, most] =
        ["  among many endpoints, median", "  among many endpoints, p99", "  among many endpoints, slowest"];
    if crowd::is_full(services) {
        report.latency(rows, &took, change::USED);
    } else {
        report.told(median, "ms", took.median(), took.count());
        report.told(percentile, "ms", took.percentile(99), took.count());
        report.told(most, "ms", took.most(), took.count());
    }
    Ok(())
}

/// What it is at, for whoever waits.
#[expect(clippy::print_stderr, reason = "progress is for people; the report is on standard output")]
fn said(what: &str) {
    eprintln!("{} measures: {what}", env!("CARGO_PKG_NAME"));
}
