//! `mesh-proxy`: reads the command line and calls the library. Nothing else is decided here.

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

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Redirect(args) => redirect::run(&args),
    }
}
