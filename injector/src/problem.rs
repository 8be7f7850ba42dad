//! What is wrong at the moment with something that is tried again and again: told when it changes, not at each attempt.
//!
//! Kept by each of the loops that ask an API server. Does not know how it is told.

/// What was wrong at the last attempt.
#[derive(Debug, Default)]
pub(crate) struct Problem(Option<String>);

impl Problem {
    /// Notes what is wrong now (None: nothing); true: it was another before.
    pub(crate) fn changes(&mut self, now: Option<&str>) -> bool {
        let changes = self.0.as_deref() != now;
        if changes {
            self.0 = now.map(str::to_owned);
        }
        changes
    }
}
