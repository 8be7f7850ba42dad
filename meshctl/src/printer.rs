//! What people and programs read: data on stdout, talk on stderr.
//!
//! Colour and live progress only on a terminal that wants them (`NO_COLOR`, `TERM=dumb`, `--color`). A reader that goes
//! away (`| head`) is no error. The one place of the crate that writes to stdout.

pub(crate) mod table;

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::{
    cli::{Color, Output},
    failure::{Exit, Failure},
};

/// Version of every JSON document of ours; fields are only ever added within one.
pub(crate) const API_VERSION: &str = "cli.meshctl.dev/v1";

/// Where a command's words go.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    pub(crate) output: Output,
    pub(crate) headers: bool,
    color: bool,
}

/// A list as JSON: `{"apiVersion":…,"kind":…,"items":[…]}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a, T> {
    api_version: &'static str,
    kind: &'a str,
    items: &'a [T],
}

impl Printer {
    pub(crate) fn new(output: Output, headers: bool, color: Color) -> Self {
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none()
                    && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
            }
        };
        Self { output, headers, color }
    }

    /// Prints `items` in the form that was asked for. `kind` names the JSON list; `table` makes the row cells.
    pub(crate) fn list<T: Serialize>(
        &self,
        kind: &str,
        items: &[T],
        table: impl FnOnce(bool) -> table::Table,
    ) -> Result<(), Failure> {
        match self.output {
            Output::Table | Output::Wide => {
                self.data(&table(self.output == Output::Wide).render(self.headers, self.color))
            }
            Output::Json => {
                let list = List { api_version: API_VERSION, kind, items };
                let text = serde_json::to_string_pretty(&list).map_err(|error| internal(&error))?;
                self.data(&format!("{text}\n"))
            }
            Output::Ndjson => items.iter().try_for_each(|item| self.line(item)),
        }
    }

    /// Prints one item of a stream as a line of JSON.
    pub(crate) fn line<T: Serialize>(&self, item: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(item).map_err(|error| internal(&error))?;
        self.data(&format!("{text}\n"))
    }

    /// Prints data as it is.
    #[expect(clippy::unused_self, reason = "whoever prints was given a printer")]
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            // The reader has seen enough: that is success, and the end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::new(Exit::Bad, BROKEN_PIPE)),
            Err(error) => Err(Failure::new(Exit::Bad, format!("write to stdout: {error}"))),
            Ok(()) => Ok(()),
        }
    }

    /// Says something to the person, not the program.
    #[expect(clippy::unused_self, reason = "whoever talks was given a printer")]
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        // Nobody left to tell is no reason to fail.
        let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
    }

    pub(crate) fn color(&self) -> bool {
        self.color
    }
}

const BROKEN_PIPE: &str = "broken pipe";

/// Whether a failure only says that the reader of stdout went away.
pub(crate) fn is_broken_pipe(failure: &Failure) -> bool {
    failure.message == BROKEN_PIPE
}

fn internal(error: &serde_json::Error) -> Failure {
    Failure::new(Exit::Bad, format!("print as JSON: {error}"))
}
