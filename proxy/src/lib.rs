//! mesh-proxy: the sidecar, as a library that `mesh-proxy` and `meshctl` (for the playground) run.

pub mod nft;
pub mod redirect;
