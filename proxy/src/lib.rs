//! The sidecar proxy: takes over the TCP traffic of a pod and gives it the mesh.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | what the injector says, parsed |
//! | [`tls`] | credentials, and who a peer is |
//! | [`policy`] | what the controller has told us |
//! | [`tap`] | live traffic for whoever watches |
//! | [`drain`] | the end of a proxy's life |
//! | [`redirect`] | what TCP is redirected to the proxy: the mesh's rules, and the command that sets them up |
//! | [`nft`] | nftables, as values and over netlink; knows nothing of the mesh |

mod balance;
pub mod config;
mod connect;
mod copy;
pub mod detect;
pub mod drain;
pub mod error;
mod http;
mod inbound;
mod link;
pub mod listen;
pub mod metrics;
pub mod nft;
mod outbound;
pub mod policy;
mod pool;
mod record;
pub mod redirect;
mod stream;
pub mod tap;
pub mod tls;
pub mod worker;
