//! Redirect and DNAT against a real kernel: what is in the kernel is what was meant, and connections end where the
//! rules say. Each test has a network of its own, as an ordinary user; where none can be made, the tests fail.

#[path = "netns/command.rs"]
mod command;
#[path = "netns/dnat.rs"]
mod dnat;
#[path = "netns/kernel_state.rs"]
mod kernel_state;
#[path = "netns/redirect.rs"]
mod redirect;
#[path = "netns/support.rs"]
mod support;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use mesh_netlab::userns;

#[expect(clippy::print_stderr, reason = "the harness speaks to the person who runs it")]
fn main() -> ExitCode {
    if command::is_without_rights() {
        return command::run_without_rights();
    }
    if let Err(error) = userns::enter(userns::Isolation::default()) {
        eprintln!("cannot run tests in network namespaces: {error}");
        return ExitCode::FAILURE;
    }
    let trials: Vec<Trial> =
        [kernel_state::trials(), redirect::trials(), dnat::trials(), command::trials()].into_iter().flatten().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
