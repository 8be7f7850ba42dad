//! One file, several programs: the first argument may name a hidden role of the playground; anything else is the
//! command line of a person. Nothing here starts a thread: roles that join namespaces need the only one.

mod check;
mod cli;
mod cluster;
mod commands;
mod complete;
mod explain;
mod failure;
mod filter;
mod golden;
mod install;
mod playground;
mod printer;
mod reason;
mod resource;
mod rights;
mod roles;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _};
use mesh_runtime::telemetry;

use cli::{Cli, Command};
use cluster::Cluster;
use failure::{Exit, Failure};
use printer::Printer;
use roles::Role;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(role) = words.first().and_then(|word| Role::named(word)) {
        return role.run(words);
    }
    // Ends the process where a shell asks for completions.
    clap_complete::CompleteEnv::with_factory(Cli::command).var(commands::completion::VARIABLE).complete();
    let words = help_topic(std::env::args_os());
    let matches = command(&words).color(cli::color_of(&words)).get_matches_from(words);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let printer = Printer::new(&cli.globals);
    if cli.globals.verbose
        && let Err(error) = telemetry::init("meshctl=debug", telemetry::Format::Plain)
    {
        printer.warn(error.to_string());
    }
    match run(&cli, &printer) {
        Ok(code) => code,
        // `meshctl … | head`: the reader has what it wanted.
        Err(failure) if printer::is_broken_pipe(&failure) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.fail(&failure);
            failure.code()
        }
    }
}

/// The command line, under the name by which the person calls it: a file `kubectl-NAME` is `kubectl NAME`.
fn command(words: &[OsString]) -> clap::Command {
    let file = words.first().and_then(|program| Path::new(program).file_name()).map(|name| name.to_string_lossy());
    match file.as_deref().and_then(|file| file.strip_prefix("kubectl-")) {
        Some(name) => Cli::command().bin_name(format!("kubectl {}", name.replace('_', "-"))),
        None => Cli::command(),
    }
}

/// `meshctl help TOPIC` is `meshctl explain TOPIC` where no command has that name.
fn help_topic(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.collect();
    let is_topic = |word: &OsString| {
        let text = word.to_string_lossy();
        Cli::command().find_subcommand(&*text).is_none() && explain::find(&text).is_ok()
    };
    if words.len() == 3 && words[1] == "help" && is_topic(&words[2]) {
        words[1] = "explain".into();
    }
    words
}

fn run(cli: &Cli, printer: &Printer) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Playground(args) => return playground::run(args, printer),
        Command::Inject(args) => commands::inject::inject(args, printer)?,
        Command::Uninject(args) => commands::inject::uninject(args, printer)?,
        Command::Install(args) if !args.apply => commands::install::print(args, printer)?,
        Command::Explain(args) => commands::explain::run(args.topic.as_deref(), printer)?,
        Command::Completion(args) => commands::completion::run(args.shell, printer)?,
        _ => look(cli, printer)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Commands that look at a mesh.
fn look(cli: &Cli, printer: &Printer) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    // Past its first question, tap has a last line to print.
    let ends_itself = matches!(cli.command, Command::Tap(_));
    runtime.block_on(async {
        tokio::select! {
            done = look_at(cli, printer) => done,
            _ = tokio::signal::ctrl_c(), if !ends_itself => Err(Failure::new(Exit::Interrupted, "interrupted")),
        }
    })
}

async fn look_at(cli: &Cli, printer: &Printer) -> Result<(), Failure> {
    commands::refuse_form(&cli.command, printer)?;
    if let Command::Version(args) = &cli.command {
        return commands::version::run(&cli.globals, args, printer).await;
    }
    if let Command::Check(args) = &cli.command {
        return commands::check::run(&cli.globals, args, printer).await;
    }
    let cluster = Cluster::select(&cli.globals).await?;
    let namespace = cluster.scope(&cli.globals);
    let namespace = namespace.as_deref();
    match &cli.command {
        Command::Install(args) => commands::install::apply(&cluster, args, printer).await,
        Command::Upgrade(args) => commands::upgrade::run(&cluster, args, printer).await,
        Command::Uninstall(args) => commands::uninstall::run(&cluster, args, printer).await,
        Command::Describe(args) => commands::describe::run(&cluster, namespace, args, printer).await,
        Command::List => commands::list::run(&cluster, namespace, printer).await,
        Command::Stat(args) => commands::stat::run(&cluster, namespace, args, printer).await,
        Command::Tap(args) => commands::tap::run(&cluster, namespace, args, printer).await,
        Command::Identity(args) => commands::identity::run(&cluster, namespace, args, printer).await,
        Command::Connections(args) => commands::connections::run(&cluster, namespace, args, printer).await,
        Command::Diagnostics(args) => commands::diagnostics::run(&cluster, namespace, args, printer).await,
        _ => Ok(()),
    }
}
