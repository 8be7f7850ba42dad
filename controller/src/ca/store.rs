//! Secrets of the certificate authority in a directory, each in a file of mode 0600.
//!
//! A file is made once, whole or not at all; whoever comes second reads what the first made. It does not know what the
//! secrets are for.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Why a secret could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{act} {path}: {source}; the state directory needs a writable disk with some space left")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Others can read it.
    #[error("{0} can be read by others; restrict it: chmod 600 {0}")]
    Exposed(PathBuf),
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Store(PathBuf);

impl Store {
    /// Opens the directory, made with mode 0700 if it is not there.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let directory = directory.into();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|source| StoreError::Io { act: "make the directory", path: directory.clone(), source })?;
        Ok(Self(directory))
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Removes `name`.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.0.join(name);
        fs::remove_file(&path).map_err(io_error("remove", &path))
    }

    /// Reads `name`; none where it is not there.
    pub fn read(&self, name: &str) -> Result<Option<String>, StoreError> {
        read(&self.0.join(name))
    }

    /// Adds to the end of `name`, made if it is not there. Whoever reads it after a crash of the machine may find less.
    pub fn append(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let path = self.0.join(name);
        let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(io_error("write", &path))
    }

    /// Replaces `name` in one step.
    pub fn replace(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let path = self.0.join(name);
        let draft = self.draft(text)?;
        fs::rename(&draft, &path).map_err(|error| {
            // Best effort: the error says more than what is left behind.
            let _ = fs::remove_file(&draft);
            io_error("write", &path)(error)
        })
    }

    /// Reads `name`, made by `make` if it is not there.
    pub fn read_or_make(&self, name: &str, make: impl FnOnce() -> String) -> Result<String, StoreError> {
        let path = self.0.join(name);
        if let Some(text) = read(&path)? {
            return Ok(text);
        }
        self.create(&path, &make())?;
        read(&path)?.ok_or_else(|| io_error("read", &path)(io::ErrorKind::NotFound.into()))
    }

    /// Creates the file in one step. One that is there already stays as it is.
    fn create(&self, path: &Path, text: &str) -> Result<(), StoreError> {
        let draft = self.draft(text)?;
        let linked = match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        let removed = fs::remove_file(&draft);
        linked.and(removed).map_err(io_error("create", path))
    }

    /// A new file with this text, whole on the disk.
    fn draft(&self, text: &str) -> Result<PathBuf, StoreError> {
        let draft = self.0.join(format!(".draft-{:016x}", rand::random::<u64>()));
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
        let mut file = file.map_err(io_error("create", &draft))?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        if let Err(error) = written {
            // Best effort, as above: the disk may be full of it.
            let _ = fs::remove_file(&draft);
            return Err(io_error("write", &draft)(error));
        }
        Ok(draft)
    }
}

fn read(path: &Path) -> Result<Option<String>, StoreError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(StoreError::Exposed(path.to_owned()));
    }
    fs::read_to_string(path).map(Some).map_err(io_error("read", path))
}

fn io_error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { act, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_only_its_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state")).unwrap();
        assert_eq!(store.read_or_make("key", || "first".into()).unwrap(), "first");
        assert_eq!(store.read_or_make("key", || "second".into()).unwrap(), "first");
        store.create(&store.0.join("key"), "third").unwrap();
        assert_eq!(store.read_or_make("key", || "fourth".into()).unwrap(), "first");
        let path = store.0.join("key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&store.0).unwrap().count(), 1, "no draft is left");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(store.read_or_make("key", String::new), Err(StoreError::Exposed(_))));
    }
}
