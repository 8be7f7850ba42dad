//! What the kernel tells of a process from outside: memory, descriptors, processor time, whether it is still the same; and the
//! processor time of an attacker's thread.
//!
//! `/proc/PID/statm` and `/proc/PID/stat` are readable whoever asks, also of a process that may not be traced, as a proxy;
//! `/proc/PID/fd` is for whoever may trace it, and in the user namespace of a row's process that is this process.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::Context as _;

/// Of 100 in a second, on every Linux.
const TICK: Duration = Duration::from_millis(10);
/// Of memory.
const PAGE: u64 = 4096;
/// Between two looks at the memory of a process.
const PAUSE: Duration = Duration::from_millis(50);

/// Resident bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).context("the process has ended")?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    Ok(pages.context("the kernel tells no resident pages")? * PAGE)
}

/// Open descriptors.
pub(crate) fn descriptors(pid: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd")).context("the process has ended")?.count())
}

/// When it was started, in the kernel's ticks: another number is another process. An error where it has ended, though nobody may
/// have waited for it.
pub(crate) fn started(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    let fields = fields(&text).context("the kernel tells no fields")?;
    anyhow::ensure!(!["Z", "X"].contains(&fields[0]), "the process has ended");
    fields.get(19).and_then(|ticks| ticks.parse().ok()).context("the kernel tells no time of start")
}

/// Whether it is still the process that was [`started`] then.
pub(crate) fn is_still(pid: u32, start: u64) -> bool {
    started(pid).is_ok_and(|now| now == start)
}

/// Processor time of all its threads.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    of_stat(&text).context("the kernel tells no processor time")
}

/// Processor time of the calling thread, in the kernel's ticks.
pub(crate) fn own_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    of_stat(&text).unwrap_or_default()
}

/// User's and kernel's time in the line `stat` of a process or thread.
fn of_stat(text: &str) -> Option<Duration> {
    let fields = fields(text)?;
    let time = |nth: usize| fields.get(nth)?.parse::<u32>().ok();
    Some(TICK * (time(11)? + time(12)?))
}

/// What follows the name in it: the state, the parent, and on.
fn fields(text: &str) -> Option<Vec<&str>> {
    // The name may have spaces and ends with the last parenthesis.
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_ascii_whitespace().collect())
}

/// Runs `act`; also the most memory that the process had meanwhile.
pub(crate) fn peak_during<T>(pid: u32, act: impl FnOnce() -> T) -> (T, u64) {
    let (over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(resident(pid).unwrap_or_default(), Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
        });
        let result = act();
        over.store(true, Ordering::Relaxed);
        result
    });
    (result, peak.load(Ordering::Relaxed))
}
