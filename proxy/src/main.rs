//! `mesh-proxy`: reads the command line and calls the library. Nothing else is decided here.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use mesh_proxy::cli::Command;

/// Ten percent less processor time for a request than with glibc's, and what a burst has left goes back to the system: 8 MiB
/// stay instead of 96 after 1,250 slow clients (torture row B3). Without huge pages, which cost ten MiB of an idle proxy.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
