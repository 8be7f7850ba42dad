//! The keeper: makes the namespaces, starts the supervisor as the first process inside, and removes the runtime
//! directory when that has ended, however it ended.
//!
//! Its own death ends the supervisor, and with it everything inside (the kernel sees to both). Knows no pods.

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::Context as _;
use mesh_netlab::userns::{self, Isolation};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::{prctl, signal::Signal},
    unistd::{Pid, getppid, setsid},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    launch::{self, WITH_PARENT},
    paths::RuntimeDir,
    progress::News,
};
use crate::roles::Role;

/// `playground-keeper DIR [--with-parent=PID]`
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let Some(directory) = arguments.first() else { return ExitCode::from(2) };
    let directory = RuntimeDir::at(PathBuf::from(directory));
    // Of two starts at the same moment one is refused here, and must not remove what is the other's.
    let Ok(_lock) = lock(&directory) else {
        News::failed(&anyhow::anyhow!(launch::ALREADY_RUNNING)).tell();
        return ExitCode::FAILURE;
    };
    let parent = arguments.get(1).and_then(|argument| argument.to_str()?.strip_prefix(WITH_PARENT)?.parse().ok());
    let done = keep(&directory, parent.map(Pid::from_raw));
    let removed = directory.remove().with_context(|| format!("remove {}", directory.path().display()));
    match done.and(removed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            News::failed(&error).tell();
            ExitCode::FAILURE
        }
    }
}

/// Held for the keeper's life, and given back by the kernel however that ends.
fn lock(directory: &RuntimeDir) -> io::Result<Flock<File>> {
    let directory = File::open(directory.path())?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
}

/// Removes what a keeper left behind that was killed; whether there was anything. What a running one has is its own.
pub(super) fn clean(directory: &RuntimeDir) -> io::Result<bool> {
    match lock(directory) {
        Ok(_lock) => directory.remove().map(|()| true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock) => Ok(false),
        Err(error) => Err(error),
    }
}

fn keep(directory: &RuntimeDir, parent: Option<Pid>) -> anyhow::Result<()> {
    // The terminal's Ctrl-C is the launcher's alone: it asks the supervisor to stop.
    setsid().context("leave the terminal")?;
    userns::enter(Isolation { pids: true })?;
    if let Some(parent) = parent {
        prctl::set_pdeathsig(Signal::SIGTERM).context("follow the launcher's end")?;
        // It may have ended before.
        anyhow::ensure!(getppid() == parent, "the launcher has ended");
    }
    let supervisor = Command::new("/proc/self/exe")
        .arg(Role::PlaygroundSupervisor.name())
        .arg(directory.path())
        .stdin(Stdio::null())
        .spawn()
        .context("start meshctl again as the playground's supervisor")?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(wait(supervisor))
}

/// Waits for the supervisor; a signal (the launcher has ended, or somebody wants us gone) ends it first.
async fn wait(mut supervisor: Child) -> anyhow::Result<()> {
    let mut child = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        if let Some(status) = supervisor.try_wait().context("wait for the supervisor")? {
            anyhow::ensure!(status.success(), "the playground ended: {status}");
            return Ok(());
        }
        tokio::select! {
            _ = child.recv() => {}
            _ = terminate.recv() => supervisor.kill().context("end the supervisor")?,
            _ = interrupt.recv() => supervisor.kill().context("end the supervisor")?,
        }
    }
}
