//! The sidecar proxy: takes over the TCP traffic of a pod and gives it the mesh.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`], [`app`] | the command line, and the whole proxy part by part |
//! | [`config`] | what the injector says, parsed |
//! | [`controller`] | a connection to the controller |
//! | [`identity`], [`trust`] | the certificate and its renewal; the roots of trust |
//! | [`tls`] | credentials, and who a peer is |
//! | [`policy`] | what the controller has told us |
//! | [`observers`], [`access_log`], [`trace`], [`tap`], [`inspect`] | live traffic for whoever watches; open connections and loads for whoever asks |
//! | [`admin`], [`probe`] | the admin port, and the application's probes behind it |
//! | [`control_metrics`], [`families`] | what is counted of all this, and the list of it |
//! | [`limits`] | what the process may hold at once |
//! | [`drain`] | the end of a proxy's life |
//! | [`redirect`] | what TCP is redirected to the proxy: the mesh's rules, and the command that sets them up |
//! | [`nft`] | nftables, as values and over netlink; knows nothing of the mesh |

pub mod access_log;
pub mod admin;
pub mod app;
mod balance;
mod buffer;
pub mod cli;
pub mod config;
mod connect;
mod connections;
pub mod control_metrics;
pub mod controller;
mod copy;
pub mod detect;
mod dial;
pub mod drain;
pub mod error;
pub mod families;
mod http;
pub mod identity;
mod inbound;
pub mod inspect;
pub mod limits;
mod link;
pub mod listen;
pub mod metrics;
pub mod mux;
pub mod nft;
pub mod observers;
mod outbound;
pub mod policy;
mod pool;
pub mod probe;
mod record;
pub mod redirect;
mod stream;
pub mod tap;
pub mod tls;
pub mod trace;
pub mod trust;
pub mod worker;

pub use self::http::call::fuzzing as calls;
