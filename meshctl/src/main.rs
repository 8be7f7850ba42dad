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
mod roles;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;

use cli::{Cli, Command};
use cluster::Cluster;
use failure::Failure;
use printer::Printer;
use roles::Role;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(role) = words.first().and_then(|word| Role::named(word)) {
        return role.run(words);
    }
    let cli = Cli::parse();
    let printer = Printer::new(cli.globals.output, !cli.globals.no_headers, cli.globals.color);
    match run(&cli, &printer) {
        Ok(code) => code,
        // `meshctl … | head`: the reader has what it wanted.
        Err(failure) if printer::is_broken_pipe(&failure) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.say(failure.to_string());
            failure.code()
        }
    }
}

fn run(cli: &Cli, printer: &Printer) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Playground(args) => return playground::run(args, printer),
        Command::Inject(args) => commands::inject::inject(args, printer)?,
        Command::Uninject(args) => commands::inject::uninject(args, printer)?,
        Command::Install(args) => commands::install(args, printer)?,
        Command::Version => printer.data(&format!("meshctl {}\n", env!("CARGO_PKG_VERSION")))?,
        Command::List | Command::Stat(_) | Command::Tap(_) | Command::Identity(_) => look(cli, printer)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Commands that look at a mesh.
fn look(cli: &Cli, printer: &Printer) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let namespace = cli.globals.namespace.as_deref();
    runtime.block_on(async {
        let cluster = Cluster::select(cli.globals.playground)?;
        match &cli.command {
            Command::List => commands::list::run(&cluster, namespace, printer).await,
            Command::Stat(args) => commands::stat::run(&cluster, namespace, args, printer).await,
            Command::Tap(args) => commands::tap::run(&cluster, namespace, args, printer).await,
            Command::Identity(args) => commands::identity::run(&cluster, namespace, args, printer).await,
            _ => Ok(()),
        }
    })
}
