//! Waiting for an event that nobody reports: asked again and again, with a deadline.

use std::{thread, time::Duration};

use tokio::time::Instant;

/// Far more than anything takes, on a machine that does ten other things too; only what fails waits for it.
pub const DEADLINE: Duration = Duration::from_mins(2);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(10);
/// The same, where the time it takes is measured.
const SHORT_PAUSE: Duration = Duration::from_micros(500);

/// The first answer; an error that says `what` did not happen after [`DEADLINE`].
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        anyhow::ensure!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        thread::sleep(PAUSE);
    }
}

/// How long it took from `started` until a proxy was ready; an error after [`DEADLINE`].
pub fn ready_after(started: Instant, mut is_ready: impl FnMut() -> bool) -> anyhow::Result<Duration> {
    while !is_ready() {
        anyhow::ensure!(started.elapsed() < DEADLINE, "not ready within {DEADLINE:?}");
        thread::sleep(SHORT_PAUSE);
    }
    Ok(started.elapsed())
}
