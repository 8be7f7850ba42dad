//! The demo shop: one small program with roles, and one planted fault for users to find.
//!
//! ```text
//! load ──HTTP/1.1──▶ web (v1, v2) ──gRPC──▶ prices
//!                       │  └──TCP, the server speaks first──▶ stock
//!                       └──HTTP/1.1──▶ orders
//! ```
//! Beside the shop, for tests: [`get`] asks once, [`echo`] says what it hears over UDP.
//! It knows nothing of the mesh: an application like any other. The playground runs it as `meshctl shop ROLE`, a cluster
//! as an image. Manifests are in `deploy/demo`.

pub mod echo;
pub mod get;
mod http;
pub mod load;
pub mod orders;
pub mod prices;
pub mod stock;
pub mod watch;
pub mod web;

use clap::{Args as ClapArgs, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// `shop ROLE`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Buys things, steadily
    Load(load::Args),
    /// Sells things: HTTP/1.1 and HTTP/2
    Web(web::Args),
    /// Counts things: a TCP protocol in which the server speaks first
    Stock(stock::Args),
    /// Says what things cost: gRPC
    Prices(prices::Args),
    /// Takes orders: HTTP/1.1 and HTTP/2
    Orders(orders::Args),
    /// Sends back every datagram: UDP
    Echo(echo::Args),
    /// Asks once and prints the answer
    Get(get::Args),
    /// Asks again and again and says when the answer changes
    Watch(watch::Args),
}

/// Runs the role until SIGTERM or SIGINT, or until it is done.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let role = async {
        match args.role {
            Role::Load(args) => load::run(args, stop.clone()).await,
            Role::Web(args) => web::Web::bind(args).await?.run(stop.clone()).await,
            Role::Stock(args) => stock::Stock::bind(args).await?.run(stop.clone()).await,
            Role::Prices(args) => prices::Prices::bind(args).await?.run(stop.clone()).await,
            Role::Orders(args) => orders::Orders::bind(args).await?.run(stop.clone()).await,
            Role::Echo(args) => echo::run(args, stop.clone()).await,
            Role::Get(args) => get::run(args).await,
            Role::Watch(args) => watch::run(args, stop.clone()).await,
        }
    };
    tokio::pin!(role);
    loop {
        tokio::select! {
            ended = &mut role => return ended,
            _ = terminate.recv() => stop.cancel(),
            _ = interrupt.recv() => stop.cancel(),
        }
    }
}
