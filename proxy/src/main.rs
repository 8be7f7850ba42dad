//! `mesh-proxy`: reads the command line and calls the library. Nothing else is decided here.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use mesh_proxy::cli::Command;

/// The sidecar of the mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-proxy", version = mesh_runtime::build_info::line())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where even standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
