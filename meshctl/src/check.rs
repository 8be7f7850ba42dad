//! `meshctl check`: is the mesh healthy, as far as it can be told from here?
//!
//! | step | module | |
//! |---|---|---|
//! | which checks there are | [`catalog`] | their ids never change; all that is said of one follows from it |
//! | ask everybody | [`observe`] | the only I/O |
//! | decide | [`judge`], [`lint`] for files | pure: [`observe::Observed`] in, [`Outcome`]s out |
//! | before there is a mesh | [`pre`] | asks the API server or this machine, and decides |
//! | show | [`report`] | pure |

mod catalog;
pub(crate) mod judge;
pub(crate) mod lint;
pub(crate) mod observe;
pub(crate) mod pre;
pub(crate) mod report;

use serde::Serialize;

pub(crate) use self::catalog::{Category, Check};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What is wrong with what, on one line.
    pub(crate) text: String,
    /// What to do about this one; else what [`Facts::fix`] says.
    pub(crate) fix: Option<String>,
}

impl Finding {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), fix: None }
    }

    #[must_use]
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Ok,
    /// This user may not look, so that nothing can be said.
    NotAllowed,
    Warning,
    Error,
}

/// One check with what it found; nothing is found where it is ok.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) check: Check,
    pub(crate) verdict: Verdict,
    pub(crate) findings: Vec<Finding>,
    /// What must be known of the answer, however it came out: what it does not cover.
    pub(crate) note: Option<String>,
}

impl Outcome {
    /// Ok without findings, an error with them.
    pub(crate) fn error(check: Check, findings: Vec<Finding>) -> Self {
        Self::new(check, Verdict::Error, findings)
    }

    /// Ok without findings, a warning with them.
    pub(crate) fn warning(check: Check, findings: Vec<Finding>) -> Self {
        Self::new(check, Verdict::Warning, findings)
    }

    /// Ok without findings; with them nothing is known for want of rights.
    pub(crate) fn not_allowed(check: Check, findings: Vec<Finding>) -> Self {
        let fix = "An administrator can grant it: meshctl explain rights. With less: -n NAME and --proxy.";
        let with_fix = |found: Finding| if found.fix.is_some() { found } else { found.fix(fix) };
        Self::new(check, Verdict::NotAllowed, findings.into_iter().map(with_fix).collect())
    }

    fn new(check: Check, bad: Verdict, findings: Vec<Finding>) -> Self {
        let verdict = if findings.is_empty() { Verdict::Ok } else { bad };
        Self { check, verdict, findings, note: None }
    }

    /// With what the answer does not cover.
    #[must_use]
    pub(crate) fn note(self, note: Option<String>) -> Self {
        Self { note, ..self }
    }
}
