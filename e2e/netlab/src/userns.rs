//! The user namespace that everything else lives in: it gives an ordinary user all capabilities over the network and
//! mounts made inside it, and none outside.
//!
//! Called first thing in `main`, while the process has one thread (the kernel refuses later). It decides nothing about
//! pods.

use std::{fs, io};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::links::{self, LinkError};

/// What to separate beside users, network and mounts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Isolation {
    /// Also a PID namespace: the next child becomes its init (pid 1), and the kernel ends everything inside with it.
    /// The child calls [`mount_proc`] before anything looks at `/proc`.
    pub pids: bool,
}

/// Why the namespaces could not be made; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// The kernel or a security module refused.
    #[error("create a user namespace: {0}; {hint}", hint = hint(*.0))]
    Refused(nix::Error),
    /// The user namespace exists, but gives no rights inside it.
    #[error("map user {uid} in the new user namespace ({file}): {source}; {hint}", hint = hint(nix::Error::EPERM))]
    Map {
        /// File under `/proc/self` that was not accepted.
        file: &'static str,
        /// User id outside the namespace.
        uid: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Network, mount or PID namespace refused inside the user namespace.
    #[error("create network and mount namespaces inside the user namespace: {0}; {hint}", hint = hint(*.0))]
    Inner(nix::Error),
    /// The mount tree could not be made private or `/proc` not be mounted.
    #[error("mount {what} in the new mount namespace: {source}")]
    Mount {
        /// What was mounted.
        what: &'static str,
        /// The kernel's answer.
        source: nix::Error,
    },
    /// The loopback interface of the new network namespace did not come up.
    #[error("set up loopback in the new network namespace: {0}")]
    Loopback(#[from] LinkError),
}

/// Moves this process into a new user namespace as its uid 0, with a new, empty network namespace (loopback up) and
/// its own copy of the mounts. Only one user and group exist inside, whoever calls, so that root meets the same
/// limits as everybody else.
pub fn enter(isolation: Isolation) -> Result<(), UserNamespaceError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(UserNamespaceError::Refused)?;
    // Without `deny` an unprivileged process may not map a group.
    let maps = [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))];
    for (file, content) in maps {
        fs::write(format!("/proc/self/{file}"), content).map_err(|source| UserNamespaceError::Map {
            file,
            uid,
            source,
        })?;
    }

    let mut inner = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    inner.set(CloneFlags::CLONE_NEWPID, isolation.pids);
    unshare(inner).map_err(UserNamespaceError::Inner)?;
    keep_mounts_to_ourselves().map_err(|source| UserNamespaceError::Mount { what: "/ (private)", source })?;
    links::loopback_up()?;
    Ok(())
}

/// Mounts the `/proc` of this process's PID namespace over the inherited one. The kernel refuses (EPERM) where parts of
/// the inherited one are hidden, as container runtimes do; then `/proc/self` still works, but process numbers under
/// `/proc` are those outside.
pub fn mount_proc() -> Result<(), UserNamespaceError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)
        .map_err(|source| UserNamespaceError::Mount { what: "/proc", source })
}

/// Stops mount events from travelling between this mount namespace and the one it was copied from.
pub(crate) fn keep_mounts_to_ourselves() -> nix::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// The fix a person can apply, from the kernel's answer.
fn hint(errno: nix::Error) -> &'static str {
    match errno {
        nix::Error::EINVAL => {
            "this process already has threads (call this first in main) or the kernel has no user namespaces"
        }
        nix::Error::ENOSPC | nix::Error::EUSERS => {
            "the limit is reached: raise it with `sudo sysctl user.max_user_namespaces=10000`"
        }
        nix::Error::EPERM | nix::Error::EACCES => {
            "this system forbids them to ordinary users: allow them with \
             `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu) or \
             `sudo sysctl kernel.unprivileged_userns_clone=1` (Debian); in a container also seccomp must allow `unshare`"
        }
        _ => "see user_namespaces(7)",
    }
}
