//! mesh-testbed: a whole mesh for tests and benchmarks, without a cluster and without root.
//!
//! The real controller and real `mesh-proxy run` processes, each in a pod of its own ([`mesh_netlab`]), with the real redirect,
//! real join tokens and a directory of manifests. Used by `proxy/tests/mesh.rs`, `e2e/bench` and `e2e/torture`; what is asked of the mesh is
//! theirs. It knows neither the proxy's nor the controller's inside: it starts programs and speaks to their sockets.
//!
//! | module | is |
//! |---|---|
//! | [`mesh`] | the network with its control pod |
//! | [`control`] | the controller's process and its directory of manifests |
//! | [`member`] | one meshed pod: applications, token, proxy, redirect |
//! | [`apps`] | the applications |
//! | [`manifests`] | objects as text |
//! | [`talk`] | clients |
//! | [`frames`] | HTTP/2 frame by frame |
//! | [`floods`] | HTTP/2 by a peer that keeps to no rule |
//! | [`hostile`] | servers that keep to no rule |
//! | [`envoy`] | Envoy in place of our proxy |
//! | [`tap`] | what a proxy's tap shows |
//! | [`wait`] | waiting for what must come to be |

pub mod apps;
pub mod control;
pub mod envoy;
pub mod floods;
pub mod frames;
pub mod hostile;
pub mod manifests;
pub mod member;
pub mod mesh;
pub mod talk;
pub mod tap;
pub mod wait;

pub use member::Member;
pub use mesh::{Mesh, Settings};
pub use mesh_controller::CaStep;
pub use wait::until;

use std::process::ExitCode;

/// First thing in `main`: moves the process into its own user namespace. `Some` where this process is a controller of a
/// testbed instead, which has ended by then.
pub fn enter() -> Option<ExitCode> {
    role().or_else(|| match mesh_netlab::userns::enter(mesh_netlab::userns::Isolation::default()) {
        Ok(()) => None,
        Err(error) => Some(exit(Err(error.into()))),
    })
}

/// The first half of [`enter`], for programs that need the machine's own network before they move: `Some` where this process is a
/// controller of a testbed, which has ended by then.
pub fn role() -> Option<ExitCode> {
    control::is_role().then(|| exit(control::role()))
}

fn exit(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program that cannot start says so to the person who runs it")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
