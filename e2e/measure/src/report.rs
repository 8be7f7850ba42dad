//! What was measured, for people and as JSON.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;

use crate::{Figures, Missing, Samples};

/// Every number and its bar.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    rows: Vec<Row>,
    /// Where contestants were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<Figures>,
    /// What could not be measured of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<Missing>,
}

/// Where it was measured; empty where the system does not tell.
#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
}

/// One number.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    what: &'static str,
    unit: &'static str,
    value: f64,
    /// Not to be exceeded; none where the number is for information.
    bar: Option<f64>,
    kept: Option<bool>,
    samples: usize,
}

impl Report {
    /// Without numbers yet, of this machine.
    pub fn here() -> Self {
        Self { machine: Machine::this(), rows: Vec::new(), figures: None, missing: Vec::new() }
    }

    /// A number that must not exceed `bar`.
    pub fn promised(&mut self, what: &'static str, unit: &'static str, value: f64, bar: f64, samples: usize) {
        self.rows.push(Row { what, unit, value, bar: Some(bar), kept: Some(value <= bar), samples });
    }

    /// A number for information.
    pub fn told(&mut self, what: &'static str, unit: &'static str, value: f64, samples: usize) {
        self.rows.push(Row { what, unit, value, bar: None, kept: None, samples });
    }

    /// The usual rows of a latency in milliseconds, of which the 99th percentile is promised.
    pub fn latency(&mut self, [p50, p99, most]: [&'static str; 3], samples: &Samples, bar: f64) {
        self.told(p50, "ms", samples.median(), samples.count());
        self.promised(p99, "ms", samples.percentile(99), bar, samples.count());
        self.told(most, "ms", samples.most(), samples.count());
    }

    /// Also what contestants were compared in; it is printed by itself.
    pub fn compared(&mut self, figures: Figures) {
        self.missing = figures.missing().to_vec();
        self.figures = Some(figures);
    }

    /// On standard output, as a table.
    ///
    /// # Errors
    /// Where that cannot be written to.
    pub fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let Machine { processor, cores, kernel } = &self.machine;
        writeln!(out, "{processor}, {cores} cores, Linux {kernel}")?;
        let width = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
        writeln!(out, "{:width$} {:>9} {:4} {:>9} {:>8}  VERDICT", "WHAT", "VALUE", "UNIT", "BAR", "SAMPLES")?;
        for Row { what, unit, value, bar, kept, samples } in &self.rows {
            let bar = bar.map_or("-".to_owned(), |bar| format!("{bar:.0}"));
            let verdict = match kept {
                Some(true) => "kept",
                Some(false) => "MISSED",
                None => "-",
            };
            writeln!(out, "{what:width$} {value:9.2} {unit:4} {bar:>9} {samples:8}  {verdict}")?;
        }
        Ok(())
    }

    /// As JSON.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write(self, path)
    }
}

impl Machine {
    fn this() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let processors = text("/proc/cpuinfo");
        let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            processor: model.map(|(_, name)| name.to_owned()).unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// Writes a report as JSON, and the directory it goes to.
///
/// # Errors
/// Where the file cannot be written.
pub fn write(report: &impl Serialize, path: &Path) -> anyhow::Result<()> {
    let written = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(path, serde_json::to_string_pretty(report)? + "\n")
    };
    written().with_context(|| format!("write the report {}", path.display()))
}

/// Where reports go that are not told where: `target`, or wherever this program was built.
///
/// # Errors
/// Where the kernel does not say which program this is.
pub fn build_directory() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    Ok(own.ancestors().nth(2).unwrap_or(&own).to_owned())
}

/// Says why there is no report.
pub fn complain(error: &anyhow::Error) {
    // Nothing is left to do where even standard error is closed.
    let _ = writeln!(io::stderr(), "error: {error:#}");
}

/// Says how far it is, to whoever watches: standard output is for what was measured.
pub fn tell(progress: &str) {
    let _ = writeln!(io::stderr(), "{progress}");
}
