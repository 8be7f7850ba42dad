//! What a row has found: numbers, each beside its bar, and whether they come up to it.
//!
//! Filled by the rows ([`crate::rows`]), judged here and nowhere else, read by [`crate::report`]. It crosses from the row's
//! process to the runner's as JSON.

use serde::{Deserialize, Serialize};

/// All that one row has measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Findings {
    checks: Vec<Check>,
    /// What must never happen and did: bytes altered and called a success, an attack let in, a crash.
    broken: Vec<String>,
    /// Whether times and shares of the processor are judged; on a busy machine they are only told.
    timed: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Check {
    what: String,
    value: f64,
    /// None: told, not judged.
    bar: Option<Bar>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

/// How a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every bar is met.
    Pass,
    /// None is missed by more than twice, and nothing happened that never must.
    Half,
    Fail,
}

impl Findings {
    pub(crate) fn new(timed: bool) -> Self {
        Self { timed, ..Self::default() }
    }

    pub(crate) fn at_most(&mut self, what: impl Into<String>, value: f64, bar: f64) {
        self.checks.push(Check { what: what.into(), value, bar: Some(Bar::AtMost(bar)) });
    }

    pub(crate) fn at_least(&mut self, what: impl Into<String>, value: f64, bar: f64) {
        self.checks.push(Check { what: what.into(), value, bar: Some(Bar::AtLeast(bar)) });
    }

    /// As [`Findings::at_most`], of what depends on the machine: judged in the full programme alone.
    pub(crate) fn timed_at_most(&mut self, what: impl Into<String>, value: f64, bar: f64) {
        let bar = self.timed.then_some(Bar::AtMost(bar));
        self.checks.push(Check { what: what.into(), value, bar });
    }

    /// As [`Findings::at_least`], of what depends on the machine: judged in the full programme alone.
    pub(crate) fn timed_at_least(&mut self, what: impl Into<String>, value: f64, bar: f64) {
        let bar = self.timed.then_some(Bar::AtLeast(bar));
        self.checks.push(Check { what: what.into(), value, bar });
    }

    /// A count of what must not happen.
    pub(crate) fn none(&mut self, what: impl Into<String>, count: usize) {
        self.at_most(what, count as f64, 0.0);
    }

    /// A count of what must never happen: one is enough to void the whole group of rows.
    pub(crate) fn never(&mut self, what: &str, count: usize) {
        if count > 0 {
            self.broken.push(format!("{what}: {count}"));
        }
        self.none(what, count);
    }

    pub(crate) fn told(&mut self, what: impl Into<String>, value: f64) {
        self.checks.push(Check { what: what.into(), value, bar: None });
    }

    /// Whether numbers that depend on the machine are judged.
    pub(crate) fn is_timed(&self) -> bool {
        self.timed
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let judged = || self.checks.iter().filter(|check| check.bar.is_some());
        if judged().count() == 0 || !self.broken.is_empty() {
            return Verdict::Fail;
        }
        if judged().all(|check| check.is_met(1.0)) {
            Verdict::Pass
        } else if judged().all(|check| check.is_met(2.0)) {
            Verdict::Half
        } else {
            Verdict::Fail
        }
    }

    pub(crate) fn broken(&self) -> &[String] {
        &self.broken
    }

    /// All of it in words; what misses its bar comes first, and is marked.
    pub(crate) fn text(&self) -> String {
        let (met, missed): (Vec<_>, Vec<_>) = self.checks.iter().partition(|check| check.is_met(1.0));
        let missed = missed.iter().map(|check| format!("MISSED {}", check.text()));
        missed.chain(met.iter().map(|check| check.text())).collect::<Vec<_>>().join("; ")
    }
}

impl Check {
    fn is_met(&self, slack: f64) -> bool {
        match self.bar {
            Some(Bar::AtMost(bar)) => self.value <= bar * slack,
            Some(Bar::AtLeast(bar)) => self.value >= bar / slack,
            None => true,
        }
    }

    fn text(&self) -> String {
        let bar = match self.bar {
            Some(Bar::AtMost(bar)) => format!(" (≤ {})", number(bar)),
            Some(Bar::AtLeast(bar)) => format!(" (≥ {})", number(bar)),
            None => String::new(),
        };
        format!("{} {}{bar}", self.what, number(self.value))
    }
}

fn number(value: f64) -> String {
    let digits = if value.fract() == 0.0 || value.abs() >= 1000.0 { 0 } else { 2 };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_passes_by_its_numbers_alone() {
        type Fill = fn(&mut Findings);
        let of = |fill: Fill| {
            let mut findings = Findings::new(true);
            fill(&mut findings);
            findings.verdict()
        };
        let cases: [(Fill, Verdict); 9] = [
            (|_| {}, Verdict::Fail),
            (|f| f.told("a", 1.0), Verdict::Fail),
            (|f| f.at_most("a", 1.0, 1.0), Verdict::Pass),
            (|f| f.at_most("a", 1.5, 1.0), Verdict::Half),
            (|f| f.at_least("a", 0.4, 1.0), Verdict::Fail),
            (|f| f.none("a", 1), Verdict::Fail),
            (|f| f.at_most("a", f64::NAN, 1.0), Verdict::Fail),
            (|f| f.never("a", 0), Verdict::Pass),
            (
                |f| {
                    f.at_most("a", 1.0, 1.0);
                    f.never("b", 2);
                },
                Verdict::Fail,
            ),
        ];
        for (number, (fill, expected)) in cases.into_iter().enumerate() {
            assert_eq!(of(fill), expected, "case {number}");
        }
    }

    #[test]
    fn what_depends_on_the_machine_is_judged_in_the_full_programme_alone() {
        for (timed, expected) in [(true, Verdict::Fail), (false, Verdict::Pass)] {
            let mut findings = Findings::new(timed);
            findings.none("errors", 0);
            findings.timed_at_most("p99 ms", 500.0, 50.0);
            assert_eq!(findings.verdict(), expected, "{}", findings.text());
        }
    }
}
