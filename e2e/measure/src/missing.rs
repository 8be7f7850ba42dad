//! What could not be measured: [`crate::Figures`] are without it, and the report says so.

use serde::Serialize;

/// One measurement of one contestant in one round.
#[derive(Debug, Clone, Serialize)]
pub struct Missing {
    /// Whose it is.
    pub contestant: &'static str,
    /// What was measured.
    pub what: &'static str,
    /// Figures that would have come of it, those that others compute with it too.
    #[serde(skip)]
    pub figures: Vec<&'static str>,
    /// In which round.
    pub round: u8,
    /// Why it failed.
    pub why: String,
}

impl Missing {
    /// Which one it is.
    pub(crate) fn named(&self) -> String {
        format!("{}, {}, round {}", self.contestant, self.what, self.round)
    }
}
