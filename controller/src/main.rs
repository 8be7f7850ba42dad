//! The `mesh-controller` binary: command line -> [`mesh_controller`].

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};
use mesh_controller::{Args, CaArgs, MintArgs};

/// Discovery, policy and identity of the mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-controller", version = mesh_runtime::build_info::line())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    // What these are is said at their arguments.
    Run(Box<Args>),
    Ca(CaArgs),
    /// Make join tokens, by which pods outside Kubernetes prove who they are.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Mint(MintArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where even standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(mesh_controller::run(*args))
        }
        Command::Ca(args) => {
            writeln!(std::io::stdout(), "{}", mesh_controller::rotate(&args)?)?;
            Ok(())
        }
        Command::Token(TokenCommand::Mint(args)) => {
            writeln!(std::io::stdout(), "{}", mesh_controller::mint(&args)?)?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn help_says_of_each_command_what_it_does() {
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            let about = command.get_about().unwrap().to_string();
            assert!(about.contains(' ') && !about.contains('`'), "{}: {about}", command.get_name());
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
