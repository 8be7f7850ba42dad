//! A watched directory of ordinary Kubernetes manifests.
//!
//! Every change of the directory leads to a scan that reads what changed and sends the difference between what the
//! files say now and what was sent before. A file that cannot be read as a whole keeps in force what it said last; one
//! that is being written is read when it is closed.
//! Used by the playground, by machines outside Kubernetes and by tests. It does not know what the objects mean.

mod changes;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, btree_map::Entry},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{sync::mpsc, time::Instant};

use self::changes::{Changes, QUIET};
use super::{
    Event, Object, ObjectRef,
    manifest::{self, Format, Manifest, Mistake},
};
use crate::problems::Problems;

/// The kernel loses the files that appear in a new directory before it is watched; this finds them.
const BACKSTOP: Duration = Duration::from_secs(15);
/// Largest file that is read.
const LARGEST_FILE: u64 = 16 << 20;

/// Why a directory cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// It is not there, or not readable.
    #[error("read the directory {path}: {source}; --source dir:PATH names the manifests")]
    Read {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The kernel refuses to watch it.
    #[error("watch the directory {path}: {source}{}", way_out(source))]
    Watch {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: notify::Error,
    },
}

/// What the kernel's limits ask for.
fn way_out(error: &notify::Error) -> &'static str {
    match error.kind {
        notify::ErrorKind::MaxFilesWatch => "; raise it: sysctl -w fs.inotify.max_user_watches=1048576",
        _ => "",
    }
}

/// Whether only something below the directory cannot be read.
fn is_about_a_part(error: &notify::Error, root: &Path) -> bool {
    let denied = matches!(&error.kind, notify::ErrorKind::Io(error) if error.kind() == io::ErrorKind::PermissionDenied);
    denied && !error.paths.is_empty() && error.paths.iter().all(|path| path != root)
}

/// The source.
pub struct Dir {
    root: PathBuf,
    changes: Arc<Changes>,
    problems: Problems,
    files: BTreeMap<PathBuf, File>,
    /// Files that changed and are not whole yet, since when.
    waiting: BTreeMap<PathBuf, Instant>,
    sent: BTreeMap<ObjectRef, Arc<Object>>,
    _watcher: RecommendedWatcher,
}

/// One file as it was read last.
#[derive(Default)]
struct File {
    stamp: Option<Stamp>,
    objects: BTreeMap<ObjectRef, Arc<Object>>,
    /// Those of `objects` that only stand for what could not be read.
    stand_ins: BTreeSet<ObjectRef>,
}

/// Tells whether a file may have changed.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn modified(self) -> SystemTime {
        let (seconds, nanoseconds) = self.modified;
        let since =
            Duration::new(u64::try_from(seconds).unwrap_or_default(), u32::try_from(nanoseconds).unwrap_or_default());
        SystemTime::UNIX_EPOCH + since
    }
}

impl Dir {
    /// Begins to watch `root`, which must exist.
    pub fn open(root: impl Into<PathBuf>, problems: Problems) -> Result<Self, DirError> {
        let root = root.into();
        fs::read_dir(&root).map_err(|source| DirError::Read { path: root.clone(), source })?;
        let changes = Arc::new(Changes::default());
        let reported = Arc::clone(&changes);
        let watch = |source| DirError::Watch { path: root.clone(), source };
        let mut watcher = notify::recommended_watcher(move |event| reported.report(event)).map_err(watch)?;
        if let Err(error) = watcher.watch(&root, RecursiveMode::Recursive) {
            if !is_about_a_part(&error, &root) {
                return Err(watch(error));
            }
            // Said by the scan, which names it; until it can be read, the backstop finds what changes beside it.
            watcher.watch(&root, RecursiveMode::NonRecursive).map_err(watch)?;
        }
        let (files, waiting, sent) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { root, changes, problems, files, waiting, sent, _watcher: watcher })
    }

    /// Sends what is there, then every change, until the receiver is gone.
    pub async fn run(mut self, events: mpsc::Sender<Event>) {
        if self.start(&events).await.is_err() {
            return;
        }
        loop {
            let wait = if self.waiting.is_empty() { BACKSTOP } else { QUIET };
            tokio::select! {
                () = self.changes.happened() => self.changes.settle().await,
                () = tokio::time::sleep(wait) => {}
                () = events.closed() => return,
            }
            if self.scan(&events).await.is_err() {
                return;
            }
        }
    }

    /// Sends everything once.
    async fn start(&mut self, events: &mpsc::Sender<Event>) -> Result<(), mpsc::error::SendError<Event>> {
        self.scan(events).await?;
        while !self.waiting.is_empty() {
            tokio::time::sleep(QUIET).await;
            self.scan(events).await?;
        }
        events.send(Event::Synced).await
    }

    /// Reads what changed and sends the difference.
    async fn scan(&mut self, events: &mpsc::Sender<Event>) -> Result<(), mpsc::error::SendError<Event>> {
        let touched = self.changes.take();
        let mut listing = Listing::default();
        listing.add(&self.root);
        if !self.root.is_dir() {
            // What a directory said that is gone as a whole, or not mounted for a moment, stays in force.
            listing.unreadable.push((self.root.clone(), "the directory is not there".to_owned()));
        }
        self.report(&listing);
        self.forget_missing(&listing);
        for path in listing.files {
            let stamp = stamp(&path);
            let known = self.files.get(&path).is_some_and(|file| file.stamp == stamp);
            let since = self.waiting.remove(&path);
            if known && since.is_none() && !touched.contains(&path) {
                continue;
            }
            let since = since.unwrap_or_else(Instant::now);
            if self.changes.is_whole(&path, stamp.map_or(SystemTime::UNIX_EPOCH, Stamp::modified), since) {
                self.read(&path, stamp).await;
            } else {
                self.waiting.insert(path, since);
            }
        }
        self.send_difference(events).await
    }

    fn report(&mut self, listing: &Listing) {
        let unreadable = listing.unreadable.iter().map(|(path, reason)| format!("{}: {reason}", path.display()));
        self.problems.set(&self.root.display().to_string(), unreadable.collect());
    }

    fn forget_missing(&mut self, listing: &Listing) {
        let found: HashSet<&PathBuf> = listing.files.iter().collect();
        let problems = &self.problems;
        self.files.retain(|path, _| {
            let hidden = listing.unreadable.iter().any(|(directory, _)| path.starts_with(directory));
            let there = hidden || found.contains(path);
            if !there {
                problems.set(&path.display().to_string(), Vec::new());
            }
            there
        });
        self.waiting.retain(|path, _| found.contains(path));
        self.changes.forget(|path| found.contains(&path.to_owned()));
    }

    async fn read(&mut self, path: &Path, stamp: Option<Stamp>) {
        let file = self.files.entry(path.to_owned()).or_default();
        file.stamp = stamp;
        let name = path.to_owned();
        // A large file takes a while, in which proxies are served.
        let read = tokio::task::spawn_blocking(move || read(&name)).await;
        let reasons = match read.unwrap_or_else(|error| Err(format!("it cannot be read: {error}"))) {
            Ok(manifest) => file.replace(manifest),
            Err(reason) => vec![Mistake::new(1, reason)],
        };
        let owner = path.display().to_string();
        let reasons = reasons.into_iter().map(|mistake| match mistake.object {
            Some(object) => format!("{owner}:{}: {object}: {}", mistake.line, mistake.reason),
            None => format!("{owner}:{}: {}", mistake.line, mistake.reason),
        });
        self.problems.set(&owner, reasons.collect());
    }

    async fn send_difference(&mut self, events: &mpsc::Sender<Event>) -> Result<(), mpsc::error::SendError<Event>> {
        let mut wanted: BTreeMap<ObjectRef, Arc<Object>> = BTreeMap::new();
        let mut twice = Vec::new();
        for (path, file) in &self.files {
            for (object_ref, object) in file.objects.iter().filter(|(object, _)| !file.stand_ins.contains(object)) {
                match wanted.entry(object_ref.clone()) {
                    Entry::Vacant(place) => {
                        place.insert(Arc::clone(object));
                    }
                    // The first by path, so that it does not depend on the order of reading.
                    Entry::Occupied(_) => {
                        let path = path.display();
                        twice.push(format!("{path}: {object_ref} is in an earlier file too; that one is in force"));
                    }
                }
            }
        }
        for file in self.files.values() {
            for (object_ref, object) in file.objects.iter().filter(|(object, _)| file.stand_ins.contains(object)) {
                wanted.entry(object_ref.clone()).or_insert_with(|| Arc::clone(object));
            }
        }
        self.problems.set(&format!("{} (objects in two files)", self.root.display()), twice);
        for object_ref in self.sent.keys().filter(|object_ref| !wanted.contains_key(object_ref)) {
            events.send(Event::Delete(object_ref.clone())).await?;
        }
        for (object_ref, object) in &wanted {
            let same = self.sent.get(object_ref).is_some_and(|sent| Arc::ptr_eq(sent, object) || sent == object);
            if !same {
                events.send(Event::Apply(Arc::clone(object))).await?;
            }
        }
        self.sent = wanted;
        Ok(())
    }
}

impl File {
    /// Takes over what the file says now; what a mistake hides stays as it was.
    fn replace(&mut self, read: Manifest) -> Vec<Mistake> {
        let before = std::mem::take(&mut self.objects);
        let stood_in = std::mem::take(&mut self.stand_ins);
        let mut mistakes = read.mistakes;
        for (line, object) in read.objects {
            match self.objects.entry(object.object_ref()) {
                Entry::Vacant(place) => {
                    place.insert(object);
                }
                Entry::Occupied(place) => {
                    let reason = "the same object is earlier in this file; that one is in force".to_owned();
                    mistakes.push(Mistake { object: Some(place.key().clone()), ..Mistake::new(line, reason) });
                }
            }
        }
        // A mistake that does not say what it hides may hide anything that the file said before.
        let anything = mistakes.iter().any(|mistake| mistake.object.is_none());
        let hidden: HashSet<&ObjectRef> = mistakes.iter().filter_map(|mistake| mistake.object.as_ref()).collect();
        for (object_ref, object) in before {
            let hidden = anything || hidden.contains(&object_ref);
            if hidden && !self.objects.contains_key(&object_ref) {
                if stood_in.contains(&object_ref) {
                    self.stand_ins.insert(object_ref.clone());
                }
                self.objects.insert(object_ref, object);
            }
        }
        for mistake in &mut mistakes {
            self.make_do(mistake);
        }
        mistakes
    }

    /// Decides what is in force in place of a document that could not be read, and says so.
    fn make_do(&mut self, mistake: &mut Mistake) {
        let Some(object_ref) = mistake.object.clone() else { return };
        let good = self.objects.contains_key(&object_ref) && !self.stand_ins.contains(&object_ref);
        if let Some(stand_in) = mistake.make_do(good) {
            self.stand_ins.insert(object_ref.clone());
            self.objects.insert(object_ref, stand_in);
        }
    }
}

/// What is below a directory.
#[derive(Default)]
struct Listing {
    /// Manifest files.
    files: Vec<PathBuf>,
    /// Directories that could not be read, and why.
    unreadable: Vec<(PathBuf, String)>,
}

impl Listing {
    /// Adds the manifest files below `directory`. Names that start with a dot are editors' files and the machinery of
    /// ConfigMap volumes; links to directories are not followed, links to files are.
    fn add(&mut self, directory: &Path) {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            // Gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.unreadable.push((directory.to_owned(), error.to_string())),
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add(&path);
            } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json") {
                self.files.push(path);
            }
        }
    }
}

/// Reads a manifest file; an error says why nothing of it can be told.
fn read(path: &Path) -> Result<Manifest, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    // A pipe would be waited for, and a device has no end.
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    if metadata.size() > LARGEST_FILE {
        return Err(format!("larger than {LARGEST_FILE} bytes: split it"));
    }
    let json = path.extension().is_some_and(|extension| extension == "json");
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    // Some editors begin a file with a mark of the byte order.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(manifest::parse(text, if json { Format::Json } else { Format::Yaml }))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    Some(Stamp { inode: metadata.ino(), size: metadata.size(), modified })
}
