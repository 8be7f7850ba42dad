//! The processes inside: the supervisor is PID 1, so it also inherits and reaps what others leave behind.
//!
//! One task waits for any child; whoever started a process learns of its end through [`Running`].

use std::{collections::HashMap, io, process::Child, sync::Arc};

use mesh_runtime::tasks::Tasks;
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use parking_lot::Mutex;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};

/// All processes that were started through it.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    waiting: Arc<Mutex<HashMap<Pid, oneshot::Sender<Ended>>>>,
    /// Whether any child is left, as of the last reaping.
    left: watch::Receiver<bool>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal.
    Killed(Signal),
}

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Running {
    pid: Pid,
    ended: oneshot::Receiver<Ended>,
}

impl Processes {
    /// Starts reaping.
    pub(crate) fn start(tasks: &Tasks) -> io::Result<Self> {
        let mut children = signal(SignalKind::child())?;
        let waiting: Arc<Mutex<HashMap<Pid, oneshot::Sender<Ended>>>> = Arc::default();
        let (some_left, left) = watch::channel(false);
        let table = Arc::clone(&waiting);
        tasks.spawn("reaper", async move {
            while children.recv().await.is_some() {
                some_left.send_replace(reap(&table));
            }
        });
        Ok(Self { waiting, left })
    }

    /// Starts a process. Nothing is reaped meanwhile, so its end cannot be missed.
    pub(crate) fn spawn(&self, start: impl FnOnce() -> io::Result<Child>) -> io::Result<Running> {
        let mut waiting = self.waiting.lock();
        let pid = Pid::from_raw(start()?.id().cast_signed());
        let (tell, ended) = oneshot::channel();
        waiting.insert(pid, tell);
        Ok(Running { pid, ended })
    }

    /// Sends a signal to every process but this one.
    pub(crate) fn signal_all(signal: Signal) {
        // Fails only where nobody is left.
        let _ = kill(Pid::from_raw(-1), signal);
    }

    /// Waits until no child is left.
    pub(crate) async fn all_ended(&self) {
        let mut left = self.left.clone();
        while reap(&self.waiting) && left.changed().await.is_ok() {}
    }
}

/// Collects who has ended; tells whether somebody is left.
fn reap(waiting: &Mutex<HashMap<Pid, oneshot::Sender<Ended>>>) -> bool {
    let mut waiting = waiting.lock();
    loop {
        let (pid, ended) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, Ended::Exited(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Ended::Killed(signal)),
            Ok(WaitStatus::StillAlive) => return true,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => return false,
        };
        if let Some(tell) = waiting.remove(&pid) {
            // Nobody may care any more.
            let _ = tell.send(ended);
        }
    }
}

impl Running {
    /// Sends it a signal; one that has ended needs none.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(self.pid, signal);
    }

    /// Waits for its end. May be called again after being cancelled, not after it returned.
    pub(crate) async fn ended(&mut self) -> Ended {
        (&mut self.ended).await.unwrap_or(Ended::Killed(Signal::SIGKILL))
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "ended with exit code {code}"),
            Self::Killed(signal) => write!(f, "was ended by {signal}"),
        }
    }
}
