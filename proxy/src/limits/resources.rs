//! How much of its descriptors and memory the process uses, as the kernel says: `/proc/self`, and the memory cgroup of
//! version 1 or 2. What cannot be read is no limit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::resource::{Resource, getrlimit};

/// Version 1 writes "no limit" as the largest number of whole pages; nothing real is larger than this.
const NO_LIMIT: u64 = 1 << 60;

/// Each as (used, allowed); none where nothing bounds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// File descriptors.
    pub(super) descriptors: Option<(u64, u64)>,
    /// Bytes of memory.
    pub(super) memory: Option<(u64, u64)>,
}

/// Where to look.
pub(super) struct Resources {
    memory: Memory,
}

enum Memory {
    /// The resident memory of the process against a number that somebody gave.
    Given(u64),
    Cgroup(Cgroup),
    Unbounded,
}

/// Files of a memory cgroup, and the line of `memory.stat` with the page cache that the kernel would give back first: what
/// the application's files fill must not stop the proxy (Kubernetes reckons the same way).
struct Cgroup {
    allowed: PathBuf,
    used: PathBuf,
    stat: PathBuf,
    cache: &'static str,
}

impl Resources {
    /// Against `memory` bytes, or where none are given, what the cgroup allows.
    pub(super) fn new(memory: Option<u64>) -> Self {
        let of_cgroup = || {
            let own = fs::read_to_string("/proc/self/cgroup").ok()?;
            Cgroup::find(Path::new("/sys/fs/cgroup"), &own)
        };
        let memory = match memory {
            Some(bytes) => Memory::Given(bytes),
            None => of_cgroup().map_or(Memory::Unbounded, Memory::Cgroup),
        };
        Self { memory }
    }

    pub(super) fn usage(&self) -> Usage {
        let memory = match &self.memory {
            Memory::Given(allowed) => resident().map(|used| (used, *allowed)),
            Memory::Cgroup(cgroup) => cgroup.usage(),
            Memory::Unbounded => None,
        };
        Usage { descriptors: descriptors(), memory }
    }
}

impl Cgroup {
    /// The memory cgroup that `own` (the text of `/proc/self/cgroup`) names below `mount`. In a container the path may be the
    /// host's, with the own group mounted at the top.
    fn find(mount: &Path, own: &str) -> Option<Self> {
        let groups = own.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?.trim_start_matches('/')))
        });
        let candidates = groups.filter_map(|(controllers, path)| match controllers {
            "" => Some((mount.to_owned(), path, ["memory.max", "memory.current"], "inactive_file ")),
            _ if controllers.split(',').any(|name| name == "memory") => Some((
                mount.join("memory"),
                path,
                ["memory.limit_in_bytes", "memory.usage_in_bytes"],
                "total_inactive_file ",
            )),
            _ => None,
        });
        candidates
            .flat_map(|(root, path, files, cache)| [root.join(path), root].map(|group| (group, files, cache)))
            .find(|(group, [allowed, _], _)| group.join(allowed).is_file())
            .map(|(group, [allowed, used], cache)| Self {
                allowed: group.join(allowed),
                used: group.join(used),
                stat: group.join("memory.stat"),
                cache,
            })
    }

    fn usage(&self) -> Option<(u64, u64)> {
        let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        // `max` is no number, and no limit.
        let allowed = number(&self.allowed).filter(|allowed| *allowed < NO_LIMIT)?;
        let stat = fs::read_to_string(&self.stat).unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix(self.cache)?.trim().parse().ok()).unwrap_or(0);
        Some((number(&self.used)?.saturating_sub(cache), allowed))
    }
}

fn descriptors() -> Option<(u64, u64)> {
    let (allowed, _hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    // Since Linux 6.2 the size of the directory is the number of its entries; before, it is 0.
    let used = match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        entries => entries,
    };
    Some((used, allowed))
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(directory).expect("a directory");
        for (name, text) in files {
            fs::write(directory.join(name), text).expect("a file");
        }
    }

    #[test]
    fn memory_of_a_cgroup_is_what_cannot_be_given_back_in_either_version() {
        let v1 = "9:name=systemd:/\n4:cpu,memory:/pod/proxy\n0::/\n";
        let v2 = "0::/pod/proxy\n";
        let v1_files = [
            ("memory.limit_in_bytes", "1000\n"),
            ("memory.usage_in_bytes", "900\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 300\n"),
        ];
        let v2_files =
            [("memory.max", "1000\n"), ("memory.current", "900\n"), ("memory.stat", "anon 5\ninactive_file 300\n")];
        // The own group below the mount, or mounted as its top.
        for (own, place, files) in [
            (v1, "memory/pod/proxy", &v1_files),
            (v1, "memory", &v1_files),
            (v2, "pod/proxy", &v2_files),
            (v2, ".", &v2_files),
        ] {
            let mount = tempfile::tempdir().expect("a directory");
            write(&mount.path().join(place), files);
            let usage = Cgroup::find(mount.path(), own).expect("is found").usage();
            assert_eq!(usage, Some((600, 1000)), "{place} of {own:?}");
        }
    }

    #[test]
    fn no_limit_is_none_in_either_version() {
        for (own, place, allowed, text) in [
            ("4:memory:/\n", "memory", "memory.limit_in_bytes", "9223372036854771712\n"),
            ("0::/\n", ".", "memory.max", "max\n"),
        ] {
            let mount = tempfile::tempdir().expect("a directory");
            write(&mount.path().join(place), &[(allowed, text)]);
            assert_eq!(Cgroup::find(mount.path(), own).expect("is found").usage(), None, "{own:?}");
        }
        assert!(Cgroup::find(Path::new("/nonexistent"), "0::/\n").is_none());
        assert!(Cgroup::find(Path::new("/nonexistent"), "nonsense").is_none());
    }

    #[test]
    fn the_process_itself_is_seen() {
        let usage = Resources::new(Some(1)).usage();
        let ((used, allowed), (resident, given)) = (usage.descriptors.expect("read"), usage.memory.expect("read"));
        assert!(used >= 3 && used <= allowed, "{used} of {allowed}");
        assert!(resident > 100 * 1024 && given == 1, "{resident}");
    }
}
