//! The commands beside `run`: they work on the state directory and end.

use std::time::Duration;

use mesh_proto::identity::Identity;

use crate::{
    app::whole,
    ca::{
        files,
        store::Store,
        token::{self, Minter},
    },
    config::{CaArgs, CaStep, MintArgs},
};

/// `mesh-controller token mint`: a join token.
pub fn mint(args: &MintArgs) -> anyhow::Result<String> {
    let identity = Identity::new(&args.trust_domain, &args.namespace, &args.service_account)?;
    let pod = token::Pod { namespace: args.namespace.clone(), name: args.pod.clone(), uid: args.uid.clone() };
    let minter = Minter::open(&Store::open(&args.state_dir).map_err(whole)?).map_err(whole)?;
    Ok(minter.mint(&identity, pod, Duration::from_secs(args.life))?)
}

/// `mesh-controller ca`: one step of a rotation; what to do next.
pub fn rotate(args: &CaArgs) -> anyhow::Result<&'static str> {
    let store = Store::open(&args.state_dir).map_err(whole)?;
    match args.step {
        CaStep::AddRoot => {
            files::add_root(&store, &args.trust_domain).map_err(whole)?;
            Ok(
                "the new root is trusted; when every proxy knows it (meshctl identity --all: ROOTS 2): mesh-controller ca switch-issuer",
            )
        }
        CaStep::SwitchIssuer => {
            files::switch_issuer(&store, &args.trust_domain).map_err(whole)?;
            Ok(
                "the new root signs; when every proxy has renewed its certificate (after the life of one): mesh-controller ca drop-roots",
            )
        }
        CaStep::DropRoots => {
            files::drop_roots(&store).map_err(whole)?;
            Ok("only the new root is trusted")
        }
    }
}
