//! What a row is, and where it is run: filled by [`crate::rows`], read by [`crate::runner`] and [`crate::report`].

use std::{fmt, path::PathBuf, time::Duration};

use crate::outcome::Findings;

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) bar: &'static str,
    /// Whether it is quick and sturdy enough for every change.
    pub(crate) in_ci: bool,
    /// When it is ended.
    pub(crate) limit: Duration,
    pub(crate) run: Run,
}

/// Measures.
type Measure = fn(&Stage, &mut Findings) -> anyhow::Result<()>;

/// With whose proxies a row is run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Run {
    /// It asks for what only ours have: a controller, certificates that are renewed, codes, names of identity, metrics.
    Ours(Measure),
    /// It is about one proxy and the wire: with ours, and with Envoy's.
    Both(Measure, Measure),
}

/// Where a row is run.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) proxy: PathBuf,
    /// Whether at full length; else shortened, for CI.
    pub(crate) full: bool,
    /// The program that is tortured in place of our proxy.
    pub(crate) envoy: Option<PathBuf>,
}

impl Stage {
    /// One of two values.
    pub(crate) fn pick<T>(&self, full: T, ci: T) -> T {
        if self.full { full } else { ci }
    }
}

/// The machine has not what a row needs.
#[derive(Debug)]
pub(crate) struct NotRun(pub(crate) String);

impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotRun {}
