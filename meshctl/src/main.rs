//! One file, several programs: the first argument may name a hidden role of the playground; anything else is the
//! command line of a person. Nothing here starts a thread: roles that join namespaces need the only one.

mod cli;
mod cluster;
mod commands;
mod failure;
mod filter;
mod golden;
mod install;
mod playground;
mod printer;
mod reason;
mod resource;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use cluster::Cluster;
use failure::Failure;
use printer::Printer;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let printer = Printer::new(cli.globals.output, !cli.globals.no_headers, cli.globals.color);
    match run(&cli, &printer) {
        Ok(()) => ExitCode::SUCCESS,
        // `meshctl … | head`: the reader has what it wanted.
        Err(failure) if printer::is_broken_pipe(&failure) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.say(failure.to_string());
            failure.code()
        }
    }
}

fn run(cli: &Cli, printer: &Printer) -> Result<(), Failure> {
    match &cli.command {
        Command::Inject(args) => commands::inject::inject(args, printer),
        Command::Uninject(args) => commands::inject::uninject(args, printer),
        Command::Install(args) => commands::install(args, printer),
        Command::Version => printer.data(&format!("meshctl {}\n", env!("CARGO_PKG_VERSION"))),
        live => look(cli, live, printer),
    }
}

/// Commands that look at a mesh.
fn look(cli: &Cli, command: &Command, printer: &Printer) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(failure::Exit::Bad, format!("start: {error}")))?;
    let namespace = cli.globals.namespace.as_deref();
    runtime.block_on(async {
        let cluster = Cluster::select(cli.globals.playground)?;
        match command {
            Command::List => commands::list::run(&cluster, namespace, printer).await,
            Command::Stat(args) => commands::stat::run(&cluster, namespace, args, printer).await,
            Command::Tap(args) => commands::tap::run(&cluster, namespace, args, printer).await,
            Command::Identity(args) => commands::identity::run(&cluster, namespace, args, printer).await,
            Command::Inject(_) | Command::Uninject(_) | Command::Install(_) | Command::Version => Ok(()),
        }
    })
}
