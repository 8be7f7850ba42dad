//! How a command ends: the exit code, and an error that names the thing, the reason and the fix.
//!
//! Every command returns [`Failure`]; only `main` turns it into text and an exit code. The code does not depend on `-o`.

use std::{fmt, process::ExitCode};

/// Exit codes (documented in `meshctl help`). Zero is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The thing asked about is bad, or the act did not succeed.
    Bad = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The cluster or playground cannot be reached, or refuses.
    Unreachable = 3,
    /// A deadline passed.
    TimedOut = 4,
    /// The named thing does not exist.
    NotFound = 6,
}

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What failed and why; fits after "error: ".
    pub(crate) message: String,
    /// What to run or change next.
    pub(crate) fix: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), fix: None }
    }

    #[must_use]
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.fix {
            Some(fix) => write!(f, "\n  fix: {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Anything unforeseen: exit code 1, the whole chain of causes in one line.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<crate::cluster::ClusterError>() {
            Ok(error) => error.into(),
            Err(error) => Self::new(Exit::Bad, format!("{error:#}")),
        }
    }
}

impl From<crate::cluster::ClusterError> for Failure {
    fn from(error: crate::cluster::ClusterError) -> Self {
        Self::new(Exit::Unreachable, error.to_string())
    }
}
