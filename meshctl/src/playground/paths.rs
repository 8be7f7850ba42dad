//! Where the playground keeps the only things it has outside its namespaces: one directory with a socket.
//!
//! `$XDG_RUNTIME_DIR/meshctl-playground`, or `/tmp/meshctl-UID` where no runtime directory is set. Both must belong to
//! this user and be closed to others, else somebody else could answer for the playground.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use nix::unistd::geteuid;

/// The playground's directory on the machine.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// Of the calling user, whether it exists or not.
    pub(crate) fn of_this_user() -> anyhow::Result<Self> {
        match env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
            Some(dir) => {
                let dir = PathBuf::from(dir);
                ensure!(
                    dir.is_absolute(),
                    "XDG_RUNTIME_DIR is {}, not an absolute path; set it right or unset it",
                    dir.display()
                );
                verify(&dir, false).with_context(|| "XDG_RUNTIME_DIR cannot be used; set it right or unset it")?;
                Ok(Self { path: dir.join("meshctl-playground") })
            }
            None => Ok(Self { path: env::temp_dir().join(format!("meshctl-{}", geteuid())) }),
        }
    }

    /// The directory that a parent process made and verified.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Makes it, closed to others.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("create {}", self.path.display())),
        }
        verify(&self.path, true)?;
        match fs::DirBuilder::new().mode(0o700).create(self.state()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("create {}", self.state().display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes it; that it is gone already is fine.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Mount point of the private state: empty on the machine, a tmpfs inside.
    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state")
    }
}

/// A directory (no link) of this user; with `closed`, without any access for others.
fn verify(path: &Path, closed: bool) -> anyhow::Result<()> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
    let me = geteuid().as_raw();
    if !metadata.is_dir() {
        bail!("{} is not a directory; remove it", path.display());
    }
    if metadata.uid() != me {
        bail!("{} belongs to user {}, not to you ({me})", path.display(), metadata.uid());
    }
    let forbidden = if closed { 0o077 } else { 0o022 };
    if metadata.mode() & forbidden != 0 {
        bail!("{} is open to others (mode {:o}); chmod 700 it", path.display(), metadata.mode() & 0o777);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = RuntimeDir::at(temp.path().join("playground"));
        dir.create().unwrap();
        dir.create().expect("twice is fine");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = dir.create().unwrap_err().to_string();
        assert!(error.contains("open to others (mode 755)"), "{error}");
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let link = temp.path().join("playground");
        std::os::unix::fs::symlink("/", &link).unwrap();
        let error = RuntimeDir::at(link).create().unwrap_err().to_string();
        assert!(error.contains("not a directory"), "{error}");
    }

    #[test]
    fn removing_leaves_nothing_and_may_be_repeated() {
        let temp = tempfile::tempdir().unwrap();
        let dir = RuntimeDir::at(temp.path().join("playground"));
        dir.create().unwrap();
        fs::write(dir.socket(), "").unwrap();
        dir.remove().unwrap();
        dir.remove().unwrap();
        assert!(!dir.path().exists());
    }
}
