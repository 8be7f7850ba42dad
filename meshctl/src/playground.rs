//! `meshctl playground`: the real controller, injector and proxies with the demo shop, on one Linux machine without
//! cluster, container runtime or root (design §8, contracts §10).
//!
//! | process | module | holds |
//! |---|---|---|
//! | `meshctl playground` | [`launch`] | checks, progress for the person, Ctrl-C |
//! | keeper | [`keeper`] | makes the namespaces; removes the runtime directory whatever happens |
//! | supervisor (PID 1 inside) | [`supervisor`] | API server and kubelet in small; its death ends everything |
//! | pods' containers | `roles` | this same file as controller, injector, proxy, shop |
//!
//! [`commands`] are the subcommands that talk to a running playground, through [`control`].

mod addresses;
mod admission;
mod commands;
mod control;
mod dns;
mod env;
mod expand;
pub(crate) mod keeper;
mod kubelet;
mod launch;
mod logs;
mod mounts;
mod network;
mod objects;
pub(crate) mod paths;
mod probe;
mod processes;
mod progress;
mod select;
mod status;
mod store;
pub(crate) mod supervisor;
mod tokens;

use std::{ffi::OsString, process::ExitCode};

use clap::Subcommand;

use crate::{failure::Failure, printer::Printer, resource::Resource};

/// `meshctl playground`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Return when everything is ready; `meshctl playground stop` ends it
    #[arg(long)]
    detach: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// End the playground and wait until nothing of it is left
    Stop,
    /// Show its pods: what runs, how often it was started again, and its addresses
    Status,
    /// Run a program of this machine inside a pod, e.g. `exec deploy/load -- curl -s http://web/`
    Exec {
        /// POD, pod/NAME or deploy/NAME
        pod: Resource,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Show what the containers of a pod printed last
    Logs {
        /// POD, pod/NAME or deploy/NAME
        pod: Resource,
        /// Only this container
        #[arg(short, long)]
        container: Option<String>,
    },
}

/// Runs the command. The process has one thread, and keeps to it: `exec` joins namespaces.
pub(crate) fn run(args: &Args, printer: &Printer) -> Result<ExitCode, Failure> {
    let ask = |done: &dyn Fn(&tokio::runtime::Runtime) -> Result<(), Failure>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        done(&runtime.map_err(anyhow::Error::from)?).map(|()| ExitCode::SUCCESS)
    };
    match &args.command {
        None => launch::run(args.detach, printer).map(|()| ExitCode::SUCCESS),
        Some(Command::Stop) => ask(&|runtime| runtime.block_on(commands::stop(printer))),
        Some(Command::Status) => ask(&|runtime| runtime.block_on(status::run(printer))),
        Some(Command::Logs { pod, container }) => {
            ask(&|runtime| runtime.block_on(commands::logs(pod, container.as_deref(), printer)))
        }
        Some(Command::Exec { pod, command }) => commands::exec(pod, command),
    }
}
