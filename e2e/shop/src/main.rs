//! The shop as a program of its own.

use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "shop", version, about = "The demo shop, one role of it")]
struct Cli {
    #[command(flatten)]
    args: mesh_shop::Args,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    mesh_shop::run(Cli::parse().args).await
}
