//! The hidden roles of the one file: what the playground runs in its namespaces is this program under another name.
//!
//! The programs of the mesh and the shop go by the names of their images. A role is a function from arguments to an exit
//! code and decides itself whether threads start.

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    process::ExitCode,
};

use clap::Parser;
use mesh_netlab::userns::{self, Isolation};

use crate::playground::{keeper, supervisor};

/// What this process is, other than a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Makes the playground's namespaces and cleans up behind them.
    PlaygroundKeeper,
    /// Tries to make them, and ends.
    PlaygroundProbe,
    /// First process inside them.
    PlaygroundSupervisor,
    /// The controller.
    Controller,
    /// The injector.
    Injector,
    /// The proxy.
    Proxy,
    /// The demo shop.
    Shop,
}

#[derive(Debug, Parser)]
#[command(name = "mesh-controller")]
enum ControllerCommand {
    Run(Box<mesh_controller::Args>),
}

#[derive(Debug, Parser)]
#[command(name = "mesh-injector")]
enum InjectorCommand {
    Run(Box<mesh_injector::config::Args>),
}

#[derive(Debug, Parser)]
#[command(name = "mesh-proxy")]
struct ProxyCommand {
    #[command(subcommand)]
    command: mesh_proxy::cli::Command,
}

#[derive(Debug, Parser)]
#[command(name = "mesh-shop")]
struct ShopCommand {
    #[command(flatten)]
    args: mesh_shop::Args,
}

impl Role {
    const ALL: [Self; 7] = [
        Self::PlaygroundKeeper,
        Self::PlaygroundProbe,
        Self::PlaygroundSupervisor,
        Self::Controller,
        Self::Injector,
        Self::Proxy,
        Self::Shop,
    ];

    /// Its first argument.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PlaygroundKeeper => "playground-keeper",
            Self::PlaygroundProbe => "playground-probe",
            Self::PlaygroundSupervisor => "playground-supervisor",
            Self::Controller => "mesh-controller",
            Self::Injector => "mesh-injector",
            Self::Proxy => "mesh-proxy",
            Self::Shop => "mesh-shop",
        }
    }

    /// The role that the first argument names.
    pub(crate) fn named(argument: &OsStr) -> Option<Self> {
        Self::ALL.into_iter().find(|role| argument == role.name())
    }

    /// The role that an image of this program runs as.
    pub(crate) fn of_image(program: &str) -> Option<Self> {
        [Self::Controller, Self::Injector, Self::Proxy, Self::Shop].into_iter().find(|role| program == role.name())
    }

    /// Runs it; `words` are the role's name and what follows it.
    pub(crate) fn run(self, words: Vec<OsString>) -> ExitCode {
        let done = match self {
            Self::PlaygroundKeeper => return keeper::run(&words[1..]),
            Self::PlaygroundSupervisor => return supervisor::run(&words[1..]),
            Self::PlaygroundProbe => userns::enter(Isolation { pids: true }).map_err(Into::into),
            Self::Controller => {
                let ControllerCommand::Run(args) = ControllerCommand::parse_from(words);
                block_on(mesh_controller::run(*args))
            }
            Self::Injector => {
                let InjectorCommand::Run(args) = InjectorCommand::parse_from(words);
                block_on(mesh_injector::app::main(*args))
            }
            Self::Proxy => ProxyCommand::parse_from(words).command.run(),
            Self::Shop => block_on(mesh_shop::run(ShopCommand::parse_from(words).args)),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Nobody may read it any more.
                let _ = writeln!(std::io::stderr(), "{}: {error:#}", self.name());
                ExitCode::FAILURE
            }
        }
    }
}

fn block_on(program: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_go_by_the_names_of_their_images() {
        assert_eq!(Role::named(OsStr::new("mesh-proxy")), Some(Role::Proxy));
        assert_eq!(Role::of_image("mesh-shop"), Some(Role::Shop));
        assert_eq!(Role::of_image("playground-keeper"), None);
        assert_eq!(Role::named(OsStr::new("stat")), None);
    }
}
