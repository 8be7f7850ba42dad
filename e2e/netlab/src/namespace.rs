//! One network namespace, optionally with its own mounts, held open by file descriptors.
//!
//! A namespace is a property of a thread, so everything here happens on a short-lived thread of its own: the caller's
//! thread never moves. Sockets opened inside stay inside, also when they are used elsewhere afterwards. Knows nothing
//! of links and addresses (see [`crate::lab`]).

use std::fs::File;
use std::io;
use std::panic::resume_unwind;
use std::process::{Child, Command};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::userns::keep_mounts_to_ourselves;

/// A network namespace, and the mount namespace that belongs to it if it has one. It lives as long as this value, or
/// a process or socket inside it.
#[derive(Debug)]
pub struct Namespace {
    net: File,
    mounts: Option<File>,
}

impl Namespace {
    /// A new, empty network namespace (loopback is down, see [`crate::Lab::pod`]).
    pub fn create() -> io::Result<Self> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::here(false)
        })?
    }

    /// As [`Namespace::create`], with its own copy of the mounts, which `prepare` may change: for example bind-mount
    /// another `/etc/hosts`.
    pub fn create_with_mounts(prepare: impl FnOnce() -> io::Result<()> + Send) -> io::Result<Self> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
            keep_mounts_to_ourselves()?;
            prepare()?;
            Self::here(true)
        })?
    }

    /// The network namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::here(false)
    }

    /// The network and mount namespaces of a running process.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Ok(Self {
            net: File::open(format!("/proc/{pid}/ns/net"))?,
            mounts: Some(File::open(format!("/proc/{pid}/ns/mnt"))?),
        })
    }

    /// Runs `f` inside and returns its value; a panic of `f` continues in the caller. Blocks the calling thread: async
    /// callers keep `f` short (open or connect a socket) or use `spawn_blocking`.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| {
            self.join()?;
            Ok(f())
        })?
    }

    /// Starts a process inside. Where the namespace has its own mounts, the program's path and working directory are
    /// those of the new mount tree, and the working directory is `/` unless the command sets one.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn())?
    }

    /// The open descriptor of the network namespace, to move links into it.
    pub(crate) fn net(&self) -> &File {
        &self.net
    }

    fn here(mounts: bool) -> io::Result<Self> {
        Ok(Self {
            net: File::open("/proc/thread-self/ns/net")?,
            mounts: mounts.then(|| File::open("/proc/thread-self/ns/mnt")).transpose()?,
        })
    }

    /// Moves the calling thread inside.
    fn join(&self) -> io::Result<()> {
        if let Some(mounts) = &self.mounts {
            // A thread that shares root and working directory with others may not change its mount namespace.
            unshare(CloneFlags::CLONE_FS)?;
            setns(mounts, CloneFlags::CLONE_NEWNS)?;
        }
        setns(&self.net, CloneFlags::CLONE_NEWNET)?;
        Ok(())
    }
}

/// Runs `f` on a thread that nothing else uses, so that what it does to the thread's namespaces ends with it.
fn on_own_thread<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, f)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
