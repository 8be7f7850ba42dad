//! What the kernel reports of a directory, and whether a file is whole: nobody is in the middle of writing it.
//!
//! A file that is read between two writes may end at a document's end and look as if objects were gone. So a file that
//! is being written in place is left alone until it is closed, or quiet for long. Called by [`super`]; it reads no file.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// A burst of changes is read once it has been quiet for this long: an editor writes, renames and deletes in one go.
pub(super) const QUIET: Duration = Duration::from_millis(10);
/// Longest that an unbroken burst delays a scan.
const LONGEST_BURST: Duration = Duration::from_millis(50);
/// A file that is still open, but was not written for this long, is read as it is: its end may have been missed.
const QUIET_WHILE_OPEN: Duration = Duration::from_secs(2);
/// A file that is written without end is read as it is after this long.
const LONGEST_WRITE: Duration = Duration::from_secs(10);

/// What has been reported since the last scan.
#[derive(Default)]
pub(super) struct Changes {
    happened: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    touched: HashSet<PathBuf>,
    /// Written and not closed since, with the time of the last write.
    open: HashMap<PathBuf, Instant>,
}

impl Changes {
    /// Takes in what the kernel reports; called on a thread of the watcher.
    pub(super) fn report(&self, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) => {
                let mut state = self.state.lock();
                match event.kind {
                    EventKind::Access(AccessKind::Close(AccessMode::Write))
                    | EventKind::Modify(ModifyKind::Name(_))
                    | EventKind::Remove(_) => {
                        for path in &event.paths {
                            state.open.remove(path);
                        }
                    }
                    // Reading is what we do ourselves.
                    EventKind::Access(_) => return,
                    EventKind::Modify(ModifyKind::Data(_)) => {
                        let now = Instant::now();
                        state.open.extend(event.paths.iter().map(|path| (path.clone(), now)));
                    }
                    _ => {}
                }
                state.touched.extend(event.paths);
            }
            Err(error) => tracing::warn!(%error, "watch of the manifest directory"),
        }
        self.happened.notify_one();
    }

    /// Waits for a report.
    pub(super) async fn happened(&self) {
        self.happened.notified().await;
    }

    /// Waits for the end of a burst.
    pub(super) async fn settle(&self) {
        let settled = async { while tokio::time::timeout(QUIET, self.happened()).await.is_ok() {} };
        // A burst without end is read in parts.
        let _ = tokio::time::timeout(LONGEST_BURST, settled).await;
    }

    /// What was reported since the last call.
    pub(super) fn take(&self) -> HashSet<PathBuf> {
        std::mem::take(&mut self.state.lock().touched)
    }

    /// Whether a file, last written at `modified` and waited for since `waiting`, is to be read now.
    pub(super) fn is_whole(&self, path: &Path, modified: SystemTime, waiting: Instant) -> bool {
        let mut state = self.state.lock();
        let open = state.open.get(path).map(Instant::elapsed);
        // A write that was not reported yet. A time in the future says nothing.
        let young = SystemTime::now().duration_since(modified).is_ok_and(|age| age < QUIET);
        let whole =
            waiting.elapsed() >= LONGEST_WRITE || (!young && open.is_none_or(|quiet| quiet >= QUIET_WHILE_OPEN));
        if whole {
            state.open.remove(path);
        }
        whole
    }

    /// Forgets the files that `there` does not name any more.
    pub(super) fn forget(&self, there: impl Fn(&Path) -> bool) {
        self.state.lock().open.retain(|path, _| there(path));
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, RenameMode};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_is_whole_once_it_is_closed_renamed_into_place_or_quiet_for_long() {
        let path = Path::new("/m/a.yaml");
        let event = |kind| Ok(notify::Event::new(kind).add_path(path.to_owned()));
        let written = || event(EventKind::Modify(ModifyKind::Data(DataChange::Any)));
        let closed = || event(EventKind::Access(AccessKind::Close(AccessMode::Write)));
        let old = SystemTime::UNIX_EPOCH;
        let start = Instant::now();
        let changes = Changes::default();
        assert!(changes.is_whole(path, old, start));
        assert!(!changes.is_whole(path, SystemTime::now(), start), "written a moment ago, and not reported yet");
        changes.report(event(EventKind::Create(CreateKind::File)));
        assert!(changes.is_whole(path, old, start), "a link has no end that would be reported");
        for end in [closed(), event(EventKind::Modify(ModifyKind::Name(RenameMode::To)))] {
            changes.report(written());
            changes.report(written());
            assert!(!changes.is_whole(path, old, start));
            changes.report(end);
            assert!(changes.is_whole(path, old, start));
        }
        changes.report(written());
        tokio::time::advance(QUIET_WHILE_OPEN).await;
        assert!(changes.is_whole(path, old, Instant::now()));
        let start = Instant::now();
        for _ in 0..9 {
            changes.report(written());
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(!changes.is_whole(path, old, start));
        }
        changes.report(written());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(changes.is_whole(path, old, start), "written without end");
    }
}
