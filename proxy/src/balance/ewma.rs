//! The load of one endpoint: a latency estimate that jumps up with a slow answer and decays slowly, times what is in flight.
//!
//! Peak EWMA as in Finagle and Linkerd. Single-threaded; the caller brings the clock.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use tokio::time::Instant;

/// Time for an old observation to lose two thirds of its weight (Linkerd's default).
const DECAY: Duration = Duration::from_secs(10);
/// Assumed of an endpoint that has not answered yet while something is in flight to it: enough not to send everything to
/// a newcomer (Linkerd's default).
const FIRST: Duration = Duration::from_millis(30);

/// Load of one endpoint.
pub(crate) struct Load {
    latency: RefCell<Latency>,
    pending: Cell<u32>,
}

/// Smoothed latency.
#[derive(Debug, Clone, Copy)]
struct Latency {
    seconds: f64,
    at: Option<Instant>,
}

impl Load {
    /// Of an endpoint that nothing is known about.
    pub(crate) fn new() -> Self {
        Self { latency: RefCell::new(Latency { seconds: FIRST.as_secs_f64(), at: None }), pending: Cell::new(0) }
    }

    /// The number that is compared: expected seconds of waiting. An endpoint that was never asked is best of all until
    /// something is in flight to it (as in Finagle): where others answer faster than [`FIRST`], it would never be asked.
    pub(crate) fn estimate(&self, now: Instant) -> f64 {
        let latency = *self.latency.borrow();
        let pending = self.pending.get();
        if latency.at.is_none() && pending == 0 {
            return 0.0;
        }
        latency.decayed(now) * f64::from(pending + 1)
    }

    /// The latency estimate, decayed until `now`.
    pub(crate) fn latency(&self, now: Instant) -> Duration {
        Duration::from_secs_f64(self.latency.borrow().decayed(now))
    }

    /// How much is in flight.
    pub(crate) fn pending(&self) -> u32 {
        self.pending.get()
    }

    /// Records that an answer began (or a failure was known) after `latency`.
    pub(crate) fn observe(&self, latency: Duration, now: Instant) {
        let mut current = self.latency.borrow_mut();
        *current = current.with(latency.as_secs_f64(), now);
    }

    /// One more in flight; [`Load::end`] takes it back.
    pub(crate) fn begin(&self) {
        self.pending.set(self.pending.get() + 1);
    }

    /// One less in flight.
    pub(crate) fn end(&self) {
        self.pending.set(self.pending.get().saturating_sub(1));
    }

    /// One more in flight until the guard is dropped.
    pub(crate) fn pending_guard(&self) -> Pending<'_> {
        self.begin();
        Pending(self)
    }
}

/// One in flight.
pub(crate) struct Pending<'a>(&'a Load);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Latency {
    fn with(self, seconds: f64, now: Instant) -> Self {
        let Some(at) = self.at else {
            return Self { seconds, at: Some(now) };
        };
        // A peak counts at once; better values win over slowly.
        if seconds >= self.seconds {
            return Self { seconds, at: Some(now) };
        }
        let weight = weight(now.saturating_duration_since(at));
        Self { seconds: self.seconds * weight + seconds * (1.0 - weight), at: Some(now) }
    }

    /// An endpoint that is not asked must become attractive again: its estimate decays towards zero.
    fn decayed(self, now: Instant) -> f64 {
        self.at.map_or(self.seconds, |at| self.seconds * weight(now.saturating_duration_since(at)))
    }
}

/// What is left of an observation of that age.
fn weight(age: Duration) -> f64 {
    (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_newcomer_is_asked_at_once_and_one_at_a_time_until_it_has_answered() {
        let now = Instant::now();
        let (quick, newcomer) = (Load::new(), Load::new());
        quick.observe(ms(1), now);
        assert!(newcomer.estimate(now) < quick.estimate(now));
        let first = newcomer.pending_guard();
        assert!(newcomer.estimate(now) > quick.estimate(now));
        newcomer.observe(ms(2), now);
        drop(first);
        assert!((newcomer.estimate(now) - 0.002).abs() < 1e-9);
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let start = Instant::now();
        let load = Load::new();
        load.observe(ms(10), start);
        assert!((load.estimate(start) - 0.010).abs() < 1e-9);
        load.observe(ms(500), start + ms(1));
        assert!((load.estimate(start + ms(1)) - 0.5).abs() < 1e-9);
        load.observe(ms(10), start + ms(101));
        let after = load.estimate(start + ms(101));
        assert!(after > 0.49 && after < 0.5, "{after}");
        assert!(load.estimate(start + ms(10_101)) < 0.19);
    }

    #[test]
    fn what_is_in_flight_multiplies() {
        let now = Instant::now();
        let load = Load::new();
        load.observe(ms(10), now);
        load.begin();
        load.begin();
        assert!((load.estimate(now) - 0.030).abs() < 1e-9);
        load.end();
        load.end();
        load.end();
        assert_eq!(load.pending.get(), 0);
    }
}
