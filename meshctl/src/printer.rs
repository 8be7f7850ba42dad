//! What people and programs read: data on stdout, talk on stderr.
//!
//! Colour and live progress only on a terminal that wants them (`NO_COLOR`, `TERM=dumb`, `--color`). A reader that goes
//! away (`| head`) is no error. The one place of the crate that writes to stdout.

pub(crate) mod fit;
pub(crate) mod table;

use std::{
    cell::Cell,
    io::{self, IsTerminal as _, Write as _},
};

use clap::ValueEnum as _;
use serde::Serialize;
use serde_json::Value;

use self::table::Tone;
use crate::{
    cli::{Color, Globals, Output},
    explain,
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
    talk_color: bool,
    fail_empty: bool,
}

/// A list as JSON: `{"apiVersion":…,"kind":…,"items":[…]}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a, T> {
    api_version: &'static str,
    kind: &'a str,
    items: &'a [T],
}

/// Forms that a list has.
const LIST_FORMS: &[Output] = &[Output::Table, Output::Wide, Output::Json, Output::Ndjson, Output::Yaml, Output::Name];

impl Printer {
    pub(crate) fn new(globals: &Globals) -> Self {
        let color = |is_terminal: bool| match globals.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && may_color(),
        };
        Self {
            output: globals.output,
            headers: !globals.no_headers,
            color: color(io::stdout().is_terminal()),
            talk_color: color(io::stderr().is_terminal()),
            fail_empty: globals.fail_empty,
        }
    }

    /// Prints `items` in the form that was asked for. `kind` names the JSON list; `table` makes the row cells.
    pub(crate) fn list<T: Serialize>(
        &self,
        kind: &str,
        items: &[T],
        table: impl FnOnce(bool) -> table::Table,
    ) -> Result<(), Failure> {
        self.only(LIST_FORMS)?;
        match self.output {
            Output::Ndjson => items.iter().try_for_each(|item| self.line(item)),
            Output::Name => items.iter().try_for_each(|item| {
                let value = serde_json::to_value(item).map_err(|error| internal(&error))?;
                self.data(&format!("{}\n", table::clean(&name(&value).unwrap_or_default())))
            }),
            Output::Json | Output::Yaml => self.document(&List { api_version: API_VERSION, kind, items }),
            // Headers over nothing are noise.
            _ if items.is_empty() => Ok(()),
            Output::Wide => self.data(&table(true).render(self.headers, self.color)),
            _ => self.table(&table(false)),
        }
    }

    /// Prints a table: whole through a pipe, so that no line wraps on a terminal.
    pub(crate) fn table(&self, table: &table::Table) -> Result<(), Failure> {
        let Some(width) = self.width() else { return self.data(&table.render(self.headers, self.color)) };
        let rendered = table.render_within(width, self.headers, self.color);
        self.data(&rendered.text)?;
        if !rendered.left_out.is_empty() {
            self.say(format!("no room for {}: -o wide shows all", rendered.left_out.join(", ")));
        }
        Ok(())
    }

    /// Prints a document that names its version and kind itself, as JSON, or as YAML where that was asked for.
    pub(crate) fn document<T: Serialize>(&self, document: &T) -> Result<(), Failure> {
        let text = if self.output == Output::Yaml {
            serde_saphyr::to_string(document).map_err(|error| internal(&error))?
        } else {
            serde_json::to_string_pretty(document).map_err(|error| internal(&error))?
        };
        self.data(&format!("{}\n", text.trim_end()))
    }

    /// Refuses a form that a list does not have, before anybody is asked anything.
    pub(crate) fn only_lists(&self) -> Result<(), Failure> {
        self.only(LIST_FORMS)
    }

    /// Refuses a form that the command does not have.
    pub(crate) fn only(&self, forms: &[Output]) -> Result<(), Failure> {
        if forms.contains(&self.output) {
            return Ok(());
        }
        let word =
            |form: &Output| form.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let forms: Vec<String> = forms.iter().map(word).collect();
        let message = format!("this command has no output form {:?}", word(&self.output));
        Err(Failure::new(Exit::Usage, message).fix(format!("-o {}", forms.join("|"))))
    }

    /// Says why there is nothing to show: success, unless `--fail-empty` makes it a failure.
    pub(crate) fn nothing(&self, why: impl Into<String>) -> Result<(), Failure> {
        let why = why.into();
        if self.fail_empty {
            return Err(Failure::new(Exit::NotFound, why));
        }
        self.say(why);
        Ok(())
    }

    /// Tells why the command failed.
    pub(crate) fn fail(&self, failure: &Failure) {
        // Whoever pressed Ctrl-C knows, and so does whoever has read a report.
        if failure.exit != Exit::Interrupted && !failure.message.is_empty() {
            let text = failure.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            self.say(self.sentence(Tone::Bad, "error:", text));
        }
    }

    /// Tells of something that did not go well, and the command goes on.
    pub(crate) fn warn(&self, text: impl AsRef<str>) {
        self.say(self.sentence(Tone::Warn, "warning:", text.as_ref()));
    }

    /// Talk that must not be missed: on a terminal its first line, which is prose, is set to the width. What follows is to
    /// be copied, or a log.
    fn sentence(&self, tone: Tone, word: &str, text: &str) -> String {
        let (first, rest) =
            text.split_once('\n').map_or((text, String::new()), |(first, rest)| (first, format!("\n{rest}")));
        let whole = format!("{word} {first}");
        let set = match talk_width() {
            Some(width) if whole.chars().count() > width => {
                let lines = explain::wrap(&whole, width.saturating_sub(2), "");
                lines.trim_end().replace('\n', "\n  ")
            }
            _ => whole,
        };
        let word_again = if self.talk_color { format!("\x1b[1m{}", tone.paint(word)) } else { word.to_owned() };
        format!("{word_again}{}{rest}", set.strip_prefix(word).unwrap_or(&set))
    }

    /// Says what is waited for, until what is returned is dropped: on a terminal that can take it back.
    pub(crate) fn waiting(&self, text: &str) -> Waiting {
        let shown = can_redraw();
        if shown {
            let width = talk_width().unwrap_or(80);
            let _ = write!(io::stderr(), "{}", fit::middle(text, width.saturating_sub(1)));
        }
        Waiting { shown: Cell::new(shown) }
    }

    pub(crate) fn talk_color(&self) -> bool {
        self.talk_color
    }

    /// Columns that a line of data may have: those of the terminal, unless everything is asked for; none through a pipe,
    /// where all is whole.
    pub(crate) fn width(&self) -> Option<usize> {
        terminal_width().filter(|_| self.output != Output::Wide)
    }

    /// Columns that prose is set to: the terminal's up to 100, 80 elsewhere.
    pub(crate) fn text_width(&self) -> usize {
        terminal_width().unwrap_or(80).clamp(40, 100)
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

/// Words on a terminal that are taken back when this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    shown: Cell<bool>,
}

impl Waiting {
    /// Takes them back, if that was not done.
    pub(crate) fn end(&self) {
        if self.shown.replace(false) {
            let _ = write!(io::stderr(), "{CLEAR_LINE}");
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}

/// To the line's begin, and nothing on it.
pub(crate) const CLEAR_LINE: &str = "\r\x1b[K";

/// Whether talk goes to a terminal on which a line can be written again.
pub(crate) fn can_redraw() -> bool {
    io::stderr().is_terminal() && !is_dumb()
}

/// Whether the environment lets a terminal be coloured.
pub(crate) fn may_color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && !is_dumb()
}

/// A terminal that takes no orders, or none at all.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

/// Columns of the terminal that stderr is.
fn talk_width() -> Option<usize> {
    let (terminal_size::Width(columns), _) = terminal_size::terminal_size_of(io::stderr())?;
    (columns > 20).then_some(usize::from(columns))
}

/// Columns of the terminal that stdout is.
fn terminal_width() -> Option<usize> {
    let (terminal_size::Width(columns), _) = terminal_size::terminal_size_of(io::stdout())?;
    (columns > 0).then_some(usize::from(columns))
}

const BROKEN_PIPE: &str = "broken pipe";

/// Whether a failure only says that the reader of stdout went away.
pub(crate) fn is_broken_pipe(failure: &Failure) -> bool {
    failure.message == BROKEN_PIPE
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Bad, format!("print it: {error}"))
}

/// `KIND/NAME` of an item, from the fields that our lists name things by.
fn name(item: &Value) -> Option<String> {
    let text = |field: &str| item.get(field).and_then(Value::as_str);
    let of_kind = || Some(format!("{}/{}", text("kind")?.to_ascii_lowercase(), text("name")?));
    // Only a pod has addresses.
    text("pod")
        .or_else(|| text("name").filter(|_| item.get("ips").is_some()))
        .map(|pod| format!("pod/{pod}"))
        .or_else(|| text("workload").map(str::to_owned))
        .or_else(of_kind)
        .or_else(|| text("name").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_have_the_names_that_other_commands_take() {
        for (item, expected) in [
            (json!({"namespace": "shop", "workload": "deployment/web", "pods": 1}), Some("deployment/web")),
            (json!({"namespace": "shop", "pod": "web-1"}), Some("pod/web-1")),
            (json!({"name": "web-1", "ips": [], "workload": "deployment/web"}), Some("pod/web-1")),
            (json!({"kind": "Service", "name": "web"}), Some("service/web")),
            (json!({"name": "mtls"}), Some("mtls")),
            (json!(1), None),
        ] {
            assert_eq!(name(&item).as_deref(), expected, "{item}");
        }
    }
}
