//! How a command ends: the exit code, and an error that names the thing, the reason and the fix.
//!
//! Every command returns [`Failure`]; only `main` turns it into text and an exit code. The code does not depend on `-o`.

use std::{fmt, process::ExitCode};

use crate::{cluster::ClusterError, rights};

/// Exit codes (`meshctl help exit-codes`). Zero is success.
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
    /// Warnings, where `--fail-on warning` makes them count.
    Warnings = 5,
    /// The named thing does not exist, or there is no data under `--fail-empty`.
    NotFound = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// Every code but success.
    pub(crate) const ALL: [Self; 7] =
        [Self::Bad, Self::Usage, Self::Unreachable, Self::TimedOut, Self::Warnings, Self::NotFound, Self::Interrupted];

    /// What it means, for `meshctl help exit-codes`.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Bad => "what was asked about is bad (a check failed, something would change), or the act failed",
            Self::Usage => "the command line is wrong",
            Self::Unreachable => "the cluster or playground cannot be reached, or it forbids the question",
            Self::TimedOut => "a deadline passed",
            Self::Warnings => "warnings, under --fail-on warning",
            Self::NotFound => "the named thing does not exist, or nothing is there under --fail-empty",
            Self::Interrupted => "interrupted (Ctrl-C)",
        }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What failed and why; fits after "error: ". Empty where that was shown already.
    pub(crate) message: String,
    /// What to run or change next.
    pub(crate) fix: Option<String>,
    /// This user may not ask: nothing is known of what was asked about.
    pub(crate) forbidden: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), fix: None, forbidden: false }
    }

    /// For a command that has shown why already.
    pub(crate) fn told(exit: Exit) -> Self {
        Self::new(exit, String::new())
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

/// The candidate that someone who typed `given` most likely meant, if any is close.
pub(crate) fn did_you_mean<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_ascii_lowercase();
    let close = |candidate: &&str| {
        let candidate = candidate.to_ascii_lowercase();
        // As clap decides it for commands; a beginning is as good as a typo.
        let likeness = strsim::jaro_winkler(&given, &candidate);
        likeness + if given.len() > 2 && candidate.contains(given.as_str()) { 0.5 } else { 0.0 }
    };
    let best = candidates.into_iter().map(|candidate| (close(&candidate), candidate));
    best.filter(|(likeness, _)| *likeness > 0.8).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, candidate)| candidate)
}

/// Anything unforeseen: exit code 1, the whole chain of causes in one line.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<ClusterError>() {
            Ok(error) => error.into(),
            Err(error) => Self::new(Exit::Bad, format!("{error:#}")),
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        let text = error.to_string();
        match error {
            ClusterError::Kubeconfig { fix, .. } => Self::new(Exit::Unreachable, text).fix(fix.unwrap_or_else(|| {
                "--kubeconfig FILE and --context NAME say which; --playground looks at the playground".to_owned()
            })),
            ClusterError::Untrusted { .. } => Self::new(Exit::Unreachable, text).fix(
                "is it the right context? certificate-authority(-data) of its cluster must be that API server's; \
                 kubectl config view shows it",
            ),
            ClusterError::NoAnswer { .. } => Self::new(Exit::Unreachable, text)
                .fix("compare the context (kubectl config current-context); --playground looks at the playground"),
            ClusterError::Forbidden { reason, .. } => {
                Self { forbidden: true, ..Self::new(Exit::Unreachable, text) }.fix(rights::fix(&reason))
            }
            ClusterError::NotRunning(_) => Self::new(Exit::Unreachable, text).fix("meshctl playground starts one"),
            ClusterError::TimedOut { .. } => {
                Self::new(Exit::TimedOut, text).fix("--request-timeout gives it longer; -v shows what takes its time")
            }
            ClusterError::Socket { .. } | ClusterError::NotFound { .. } | ClusterError::Answer { .. } => {
                Self::new(Exit::Unreachable, text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_close_is_meant() {
        let known = ["no-endpoints", "denied", "connect-timeout", "deployment"];
        for (given, meant) in [
            ("no-endpoint", Some("no-endpoints")),
            ("Denied", Some("denied")),
            ("timeout", Some("connect-timeout")),
            ("deploymnet", Some("deployment")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(given, known), meant, "{given}");
        }
    }
}
