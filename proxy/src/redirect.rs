//! `mesh-proxy redirect`: makes all TCP in and out of this network namespace go through the proxy.
//!
//! Run once by the init container `mesh-redirect`, by the playground in each of its pods, and by hand to look
//! (`--print`). What is redirected is decided by [`rules`] alone; [`crate::nft`] brings it into the kernel.

mod rules;
mod settings;

use std::io::Write;

use anyhow::Context;
use clap::ArgAction;
use mesh_proto::names;

pub use rules::{TABLE, rules};
pub use settings::{BadSetting, BadSettings, Exempt, Settings};

use crate::nft;

/// Redirect all TCP of this network namespace through the proxy (IPv4 and IPv6, one nftables transaction).
///
/// Needs CAP_NET_ADMIN, no other program, and can be repeated: the last one counts. UDP and loopback are never
/// redirected.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Inbound ports that the proxy does not take over, e.g. `25,3000-3010`.
    #[arg(long, env = names::ENV_SKIP_INBOUND_PORTS, default_value = "", hide_default_value = true, value_name = "PORTS")]
    pub skip_inbound_ports: String,
    /// Outbound ports that the proxy does not take over.
    #[arg(long, env = names::ENV_SKIP_OUTBOUND_PORTS, default_value = "", hide_default_value = true, value_name = "PORTS")]
    pub skip_outbound_ports: String,
    /// Networks to which outbound connections go without the proxy, e.g. `10.0.0.0/8,fd00::/8`.
    #[arg(long, env = names::ENV_SKIP_SUBNETS, default_value = "", hide_default_value = true, value_name = "NETWORKS")]
    pub skip_subnets: String,
    /// Know the proxy's own connections by this socket mark instead of by its user id (decimal or 0x-hex).
    #[arg(long, env = names::ENV_SOCKET_MARK, default_value = "", hide_default_value = true, value_name = "MARK")]
    pub socket_mark: String,
    /// Show the rules as a script for `nft -f` and change nothing.
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "remove")]
    pub print: bool,
    /// Take the redirect away again.
    #[arg(long, action = ArgAction::SetTrue)]
    pub remove: bool,
}

/// Does what the arguments say, in the network namespace of the calling thread.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.remove {
        return nft::remove(TABLE).context("cannot remove the redirect");
    }
    let ruleset = rules(&Settings::parse(args)?);
    if args.print {
        let script = ruleset.script();
        return std::io::stdout().write_all(script.as_bytes()).context("cannot print the rules");
    }
    nft::apply(&ruleset).context("cannot set up the redirect")
}
