//! mesh-injector: the mutating admission webhook. The library does everything.

use clap::Parser;
use mesh_injector::config::Args;

/// Puts the mesh's sidecar into pods as they are created
#[derive(Parser)]
#[command(name = "mesh-injector", version = mesh_runtime::build_info::line())]
enum Cli {
    /// Serve the webhook until SIGTERM
    Run(Args),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Cli::Run(args) = Cli::parse();
    mesh_injector::app::main(args).await
}
