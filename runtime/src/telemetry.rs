//! The log: one line per event on standard error, its filter, and changing the filter while running.
//!
//! [`init`] is called once, first thing in main; [`crate::admin`] changes the filter. Values from the network end up
//! in log fields, so the writer escapes every control character: no peer can forge a line or drive a terminal. It
//! knows nothing of spans for tracing requests: the data path has none.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::{fmt, reload};

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: time, level, module, text, fields.
    #[default]
    Plain,
    /// For machines: one JSON object per line.
    Json,
}

/// Changes the log filter of the process; clones share it.
#[derive(Clone, Debug)]
pub struct LogHandle {
    shared: Arc<Shared>,
}

/// Why a log filter was not taken; the one in force stays.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadFilter {
    /// Nothing between the commas.
    #[error("log filter {0:?} has an empty part; write a level or module=level, e.g. `info,mesh_proxy=debug`")]
    Empty(String),
    /// A word that is no level: as a module name alone it would silence everything else.
    #[error("log filter part {0:?} is no level (off, error, warn, info, debug, trace); for a module write `{0}=debug`")]
    NotALevel(String),
    /// The part behind `=` is no level.
    #[error("log filter part {part:?}: {level:?} is no level (off, error, warn, info, debug, trace)")]
    BadLevel {
        /// The whole part.
        part: String,
        /// What stands where the level should.
        level: String,
    },
    /// A module name with other characters than letters, digits, `_` and `:`.
    #[error("log filter part {0:?} names no module; write it like `mesh_proxy::outbound=debug`")]
    BadModule(String),
    /// A filter is for a person to write; this one is longer than [`MAX_FILTER`].
    #[error("log filter has {0} bytes, at most {MAX_FILTER} are taken")]
    TooLong(usize),
    /// The log of the process was taken by another library.
    #[error("the process has another log already; call telemetry::init before anything else that sets one")]
    Taken,
    /// The log has ended (only where a test ends it).
    #[error("the log has ended")]
    Ended,
}

/// Longest filter taken, in bytes.
pub const MAX_FILTER: usize = 1024;

/// Starts the log of the process on standard error. A later call in the same process (tests) changes only the filter
/// and returns the same handle.
pub fn init(filter: &str, format: Format) -> Result<LogHandle, BadFilter> {
    static LOG: OnceLock<Result<LogHandle, ()>> = OnceLock::new();
    parse(filter)?;
    let log = LOG.get_or_init(|| {
        let (subscriber, handle) = build(filter, format, io::stderr).map_err(|_| ())?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| ())?;
        Ok(handle)
    });
    let handle = log.as_ref().map_err(|()| BadFilter::Taken)?;
    if handle.current() != filter {
        handle.set(filter)?;
    }
    Ok(handle.clone())
}

/// Whether a filter would be taken: for those who pass it on to another process.
pub fn check(filter: &str) -> Result<(), BadFilter> {
    parse(filter).map(drop)
}

impl LogHandle {
    /// Puts another filter in force, at once and for all threads. A filter is a list of `level` and `module=level`.
    pub fn set(&self, filter: &str) -> Result<(), BadFilter> {
        let targets = parse(filter)?;
        // Held over both, so that `current` tells the truth when two set at once.
        let mut current = self.shared.current.lock();
        self.shared.reload.reload(targets).map_err(|_| BadFilter::Ended)?;
        filter.trim().clone_into(&mut current);
        Ok(())
    }

    /// The filter in force, as it was written.
    pub fn current(&self) -> String {
        self.shared.current.lock().clone()
    }
}

#[derive(Debug)]
struct Shared {
    reload: reload::Handle<Targets, Registry>,
    current: Mutex<String>,
}

/// Our filters are [`Targets`], not `EnvFilter`: no regular expressions from outside, and a callsite that is off
/// costs a load. Its own parser takes a misspelt level for a module and then silences all else, so we look first.
fn parse(filter: &str) -> Result<Targets, BadFilter> {
    if filter.len() > MAX_FILTER {
        return Err(BadFilter::TooLong(filter.len()));
    }
    let mut targets = Targets::new();
    for part in filter.split(',').map(str::trim) {
        if part.is_empty() {
            return Err(BadFilter::Empty(filter.to_owned()));
        }
        targets = match part.split_once('=') {
            None => {
                let level = level(part).ok_or_else(|| BadFilter::NotALevel(part.to_owned()))?;
                targets.with_default(level)
            }
            Some((module, written)) => {
                let of_module = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                if module.is_empty() || !module.chars().all(of_module) {
                    return Err(BadFilter::BadModule(part.to_owned()));
                }
                let level = level(written)
                    .ok_or_else(|| BadFilter::BadLevel { part: part.to_owned(), level: written.to_owned() })?;
                targets.with_target(module, level)
            }
        };
    }
    Ok(targets)
}

/// By name alone: `LevelFilter` would also read numbers and the empty text.
fn level(name: &str) -> Option<LevelFilter> {
    name.bytes().all(|byte| byte.is_ascii_alphabetic()).then(|| name.parse().ok())?.filter(|_| !name.is_empty())
}

fn build<W>(
    filter: &str,
    format: Format,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + use<W>, LogHandle), BadFilter>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (targets, handle) = reload::Layer::new(parse(filter)?);
    let lines = fmt::layer().with_ansi(false).with_writer(OneLine(writer));
    let lines = match format {
        Format::Plain => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let handle =
        LogHandle { shared: Arc::new(Shared { reload: handle, current: Mutex::new(filter.trim().to_owned()) }) };
    Ok((tracing_subscriber::registry().with(targets).with(lines), handle))
}

/// Wraps a writer so that what is written at once, which is one event, becomes one line.
struct OneLine<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLine<W> {
    type Writer = OneLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(self.0.make_writer())
    }
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match escape(event) {
            None => self.0.write_all(event)?,
            Some(line) => self.0.write_all(line.as_bytes())?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The event with every control character inside it escaped, or `None` where there is nothing to escape.
fn escape(event: &[u8]) -> Option<String> {
    let text = event.strip_suffix(b"\n").unwrap_or(event);
    let text = std::str::from_utf8(text).ok()?;
    if !text.chars().any(forges) {
        return None;
    }
    let mut line = String::with_capacity(event.len() + 32);
    for c in text.chars() {
        if forges(c) {
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    Some(line)
}

/// Control characters, line ends of Unicode, and those that turn the direction of what follows on a screen.
fn forges(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;
    use tracing::{debug, info};

    use super::*;

    #[test]
    fn a_filter_takes_levels_and_modules_and_refuses_what_would_silence_by_mistake() {
        for good in ["info", "off", "warn,mesh_proxy=debug", " info , a::b=trace ", "WARN"] {
            parse(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        let bad = [
            ("", BadFilter::Empty(String::new())),
            ("info,", BadFilter::Empty("info,".to_owned())),
            ("inof", BadFilter::NotALevel("inof".to_owned())),
            ("3", BadFilter::NotALevel("3".to_owned())),
            ("=info", BadFilter::BadModule("=info".to_owned())),
            ("[span{a=b}]=info", BadFilter::BadModule("[span{a=b}]=info".to_owned())),
            ("a=loud", BadFilter::BadLevel { part: "a=loud".to_owned(), level: "loud".to_owned() }),
            ("a=", BadFilter::BadLevel { part: "a=".to_owned(), level: String::new() }),
        ];
        for (filter, why) in bad {
            assert_eq!(parse(filter).unwrap_err(), why, "{filter:?}");
        }
        assert_eq!(parse(&"x".repeat(1025)).unwrap_err(), BadFilter::TooLong(1025));
    }

    #[test]
    fn a_reloaded_filter_is_in_force_at_once_and_a_bad_one_changes_nothing() {
        let written = Written::default();
        let (subscriber, log) = build("info", Format::Plain, written.maker()).unwrap();
        with_default(subscriber, || {
            debug!("one");
            log.set("warn,mesh_runtime=debug").unwrap();
            debug!("two");
            log.set("loud").unwrap_err();
            debug!("three");
            log.set("info").unwrap();
            debug!("four");
            info!("five");
        });
        let lines = written.lines();
        let last_words: Vec<_> = lines.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(last_words, ["two", "three", "five"]);
        assert_eq!(log.current(), "info");
    }

    #[test]
    fn a_value_cannot_forge_a_line_in_either_format() {
        let evil = "x\r\n2026 ERROR forged\u{1b}[31m\u{85}\u{2028}\u{202e}\0";
        for format in [Format::Plain, Format::Json] {
            let written = Written::default();
            let (subscriber, _log) = build("info", format, written.maker()).unwrap();
            with_default(subscriber, || info!(peer = evil, shown = %evil, "{evil}"));
            let text = written.text();
            assert_eq!(text.matches('\n').count(), 1, "{format:?}: {text:?}");
            assert!(text.ends_with('\n'));
            assert!(!text.trim_end_matches('\n').chars().any(forges), "{format:?}: {text:?}");
            assert!(text.contains("forged"), "the value itself is kept: {text:?}");
        }
    }

    #[test]
    fn json_lines_are_json_with_fields_at_the_top() {
        let written = Written::default();
        let (subscriber, _log) = build("info", Format::Json, written.maker()).unwrap();
        with_default(subscriber, || info!(port = 4143, "bound"));
        let line = written.text();
        assert!(line.starts_with('{') && line.ends_with("}\n"), "{line}");
        assert!(line.contains(r#""port":4143"#) && line.contains(r#""message":"bound""#), "{line}");
    }

    #[test]
    fn init_twice_keeps_the_log_and_changes_the_filter() {
        let first = init("info", Format::Plain).unwrap();
        let second = init("warn", Format::Json).unwrap();
        assert_eq!(first.current(), "warn");
        assert_eq!(second.current(), "warn");
        assert!(init("nonsense!", Format::Plain).is_err());
        assert_eq!(first.current(), "warn");
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        fn maker(&self) -> impl for<'a> MakeWriter<'a> + Send + Sync + 'static + use<> {
            let shared = self.clone();
            move || shared.clone()
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }

        fn lines(&self) -> Vec<String> {
            self.text().lines().map(str::to_owned).collect()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
