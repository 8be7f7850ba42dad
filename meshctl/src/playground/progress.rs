//! What the supervisor tells the launcher while it starts: one JSON object a line, through a pipe.

use std::{io::Write as _, time::Duration};

use serde::{Deserialize, Serialize};

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum News {
    /// A stage has begun, in the words for the person.
    Begun {
        /// What is under way.
        what: String,
    },
    /// A stage is done, in the words for the person, with the milliseconds since the start.
    Done {
        /// What is done.
        what: String,
        /// Since the start.
        millis: u64,
    },
    /// Everything runs and is ready.
    Ready {
        /// Since the start.
        millis: u64,
    },
    /// Somebody asked for the end, and everything has ended.
    Stopped,
    /// It cannot start, or cannot go on. One line with what to do, then perhaps lines of the culprit's log.
    Failed {
        /// The text.
        message: String,
    },
}

impl News {
    /// Writes it for the launcher. A launcher that is gone (`--detach` has returned) needs no news.
    pub(crate) fn tell(&self) {
        let Ok(mut line) = serde_json::to_vec(self) else { return };
        line.push(b'\n');
        let _ = std::io::stdout().lock().write_all(&line);
    }

    /// Reads a line; `None` for anything else, which is shown as it is.
    pub(crate) fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// A stage that will be finished.
    pub(crate) fn begun(what: impl Into<String>) -> Self {
        Self::Begun { what: what.into() }
    }

    /// A finished stage.
    pub(crate) fn done(what: impl Into<String>, since_start: Duration) -> Self {
        Self::Done { what: what.into(), millis: millis(since_start) }
    }

    /// The end of the start.
    pub(crate) fn ready(since_start: Duration) -> Self {
        Self::Ready { millis: millis(since_start) }
    }

    /// A failure with all its causes.
    pub(crate) fn failed(error: &anyhow::Error) -> Self {
        Self::Failed { message: format!("{error:#}") }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_survive_the_pipe_and_other_lines_are_no_news() {
        let news = News::done("network: 7 pods\nin one line", Duration::from_millis(12));
        let line = serde_json::to_string(&news).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(News::read(&line), Some(news));
        assert_eq!(News::read("thread 'main' panicked"), None);
    }
}
