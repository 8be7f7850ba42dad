//! mesh-netlab: pods without a container runtime, for an ordinary user.
//!
//! `meshctl playground` (product) and every test with namespaces build their network from this: a user namespace
//! ([`userns`]), network and mount namespaces held by file descriptors ([`namespace`]), a routed network of pods
//! ([`lab`]) and processes in them ([`process`]). It knows nothing of the mesh, of nftables or of Kubernetes, and
//! needs no other program and no privilege.
//!
//! A test target with `harness = false` starts so:
//!
//! ```no_run
//! # use std::process::ExitCode;
//! fn main() -> ExitCode {
//!     if let Err(error) = mesh_netlab::userns::enter(mesh_netlab::userns::Isolation::default()) {
//!         eprintln!("cannot run tests in network namespaces: {error}");
//!         return ExitCode::FAILURE;
//!     }
//!     // now threads may start: libtest_mimic::run(…)
//!     ExitCode::SUCCESS
//! }
//! ```

pub mod lab;
mod links;
pub mod namespace;
pub mod process;
pub mod userns;

pub use lab::{Addresses, Lab, LabError, Pod};
pub use namespace::Namespace;
pub use process::Process;
