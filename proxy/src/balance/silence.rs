//! Whether an endpoint answers attempts to connect at all. One that does not costs every request the connect timeout, so that
//! it is then tried once in a while, and everybody else is told at once: fail fast.
//!
//! Single-threaded; the caller brings the clock. `pool` reports what came of attempts, `balance` leaves out who is silent.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// One attempt without an answer may be a lost packet; after this many in a row the endpoint is silent.
const SILENT_AFTER: u32 = 2;
/// A silent endpoint is tried so often. The connect timeout, so that one attempt follows the other.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The silence of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    unanswered: Cell<u32>,
    /// When it was last tried.
    tried: Cell<Option<Instant>>,
}

impl Silence {
    /// Whether an attempt would be too soon.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.unanswered.get() >= SILENT_AFTER
            && self.tried.get().is_some_and(|tried| now.saturating_duration_since(tried) < TRY_EVERY)
    }

    /// Whether the endpoint may be tried now; who is told so does it.
    pub(crate) fn may_try(&self, now: Instant) -> bool {
        let may = !self.holds(now);
        if may {
            self.tried.set(Some(now));
        }
        may
    }

    /// It did not answer in time.
    pub(crate) fn unanswered(&self, now: Instant) {
        self.unanswered.set(self.unanswered.get().saturating_add(1));
        self.tried.set(Some(now));
    }

    /// It answered, if only to refuse.
    pub(crate) fn broken(&self) {
        self.unanswered.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_two_attempts_in_a_row_without_an_answer_there_is_one_a_second() {
        let (silence, start) = (Silence::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert!(silence.may_try(at(0)) && silence.may_try(at(0)), "nothing is known against it");
        silence.unanswered(at(1000));
        assert!(silence.may_try(at(1000)), "it may have been one lost packet");
        silence.unanswered(at(2000));
        assert!(silence.holds(at(2999)) && !silence.may_try(at(2999)));
        assert!(silence.may_try(at(3000)), "one may try");
        assert!(!silence.may_try(at(3000)), "and the others need not wait for what comes of it");
        silence.broken();
        assert!(silence.may_try(at(3100)) && silence.may_try(at(3100)));
        silence.unanswered(at(4000));
        assert!(silence.may_try(at(4000)), "counted from the beginning");
    }
}
