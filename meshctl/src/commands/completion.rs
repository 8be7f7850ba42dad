//! `meshctl completion SHELL`: the script that makes a shell ask this program what could come next.
//!
//! The answers are [`crate::complete`]'s; the script itself knows no command, so that it never grows old.

use clap_complete::env::{Bash, EnvCompleter, Fish, Powershell, Zsh};

use crate::{
    cli::Shell,
    failure::{Exit, Failure},
    printer::Printer,
};

/// The variable by which a shell asks.
pub(crate) const VARIABLE: &str = "MESHCTL_COMPLETE";

pub(crate) fn run(shell: Shell, printer: &Printer) -> Result<(), Failure> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        Shell::Power => &Powershell,
    };
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, "meshctl", "meshctl", "meshctl", &mut script)
        .map_err(|error| Failure::new(Exit::Bad, format!("write the script: {error}")))?;
    printer.data(&String::from_utf8_lossy(&script))
}
