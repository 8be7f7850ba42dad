//! The `mesh-controller` binary: command line -> [`mesh_controller`].

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};
use mesh_controller::{Args, CaArgs, MintArgs};

/// Discovery, policy and identity of the mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-controller", version = mesh_runtime::build_info::VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves proxies until a signal.
    Run(Box<Args>),
    /// Replaces the root of trust, step by step and without a restart.
    Ca(CaArgs),
    /// Join tokens, the bootstrap proof outside Kubernetes.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Prints a token, good for one certificate request.
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
