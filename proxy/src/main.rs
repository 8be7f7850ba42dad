//! `mesh-proxy`: reads the command line and calls the library. Nothing else is decided here.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mesh_proxy::redirect;

/// The sidecar of the mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-proxy", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Redirect(redirect::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Redirect(args) => redirect::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where even standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
