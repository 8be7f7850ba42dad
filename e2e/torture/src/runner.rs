//! Runs rows, each in a process of its own with a limit, and collects what they found.
//!
//! A row's process leads a process group: whatever it started ends with it, also where it hangs. A row that Envoy runs as well is
//! a second process after the first, with the same limit.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use mesh_testbed::envoy::Program;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::time::Instant;

use crate::{
    outcome::Findings,
    report::{Ended, Report},
    row::{NotRun, Row, Run, Stage},
    rows::ROWS,
};

/// Begins the line with the findings.
const FOUND: &str = "found: ";
/// Begins the line with the reason for which a row was not run.
const NOT_RUN: &str = "not run: ";
/// The peer's name in the report.
const ENVOY: &str = "envoy";
/// What of a failed row's output is shown.
const SHOWN: usize = 1500;
/// Most that is kept of it.
const MOST: u64 = 8 << 20;

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Programme<'a> {
    /// This program.
    pub(crate) own: PathBuf,
    pub(crate) proxy: PathBuf,
    /// The rows of CI alone, shortened.
    pub(crate) ci: bool,
    /// These rows; none: all.
    pub(crate) only: &'a [String],
    /// Whether Envoy runs beside ours.
    pub(crate) envoy: bool,
}

/// All rows, or those of CI, or those that are named.
pub(crate) fn all(programme: &Programme<'_>) -> anyhow::Result<Report> {
    let Programme { own, proxy, ci, only, envoy } = programme;
    for id in *only {
        anyhow::ensure!(ROWS.iter().any(|row| row.id == id), "no row {id}; there are: {}", ids());
    }
    let wanted = |row: &&Row| if only.is_empty() { !ci || row.in_ci } else { only.iter().any(|id| id == row.id) };
    let rows: Vec<_> = ROWS.iter().filter(wanted).collect();
    // In CI there is no network to fetch it by.
    let envoy = *envoy && !ci && rows.iter().any(|row| matches!(row.run, Run::Both(..)));
    let fetched = || mesh_measure::build_directory().and_then(|build| Program::fetch(&build));
    let envoy = envoy.then(|| fetched().map_err(|error| format!("{error:#}")));
    let mut report = Report::default();
    for row in rows {
        let run = |envoy: Option<&Path>| {
            let begun = Instant::now();
            let mut command = Command::new(own);
            command.arg("--row").arg(row.id).arg("--proxy").arg(proxy);
            command.args(ci.then_some("--ci"));
            if let Some(envoy) = envoy {
                command.arg("--envoy").arg(envoy);
            }
            anyhow::Ok((in_process(&mut command, row.limit)?, begun.elapsed()))
        };
        let (ended, took) = run(None)?;
        report.add(row, ended, took);
        if let (Some(envoy), Run::Both(..)) = (&envoy, row.run) {
            let (ended, took) = match envoy {
                Ok(program) => run(Some(program.path()))?,
                Err(why) => (Ended::NotRun(why.clone()), Duration::ZERO),
            };
            report.add_peer(ENVOY, ended, took);
        }
        report.print_last()?;
    }
    Ok(report)
}

/// One row, in this process.
pub(crate) fn one(id: &str, stage: &Stage) -> anyhow::Result<()> {
    let row = ROWS.iter().find(|row| row.id == id).with_context(|| format!("no row {id}; there are: {}", ids()))?;
    // Thousands of connections have an end here, too.
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut findings = Findings::new(stage.full);
    let measure = match (row.run, &stage.envoy) {
        (Run::Ours(measure) | Run::Both(measure, _), None) | (Run::Both(_, measure), Some(_)) => measure,
        (Run::Ours(_), Some(_)) => anyhow::bail!("Envoy does not run {id}"),
    };
    let line = match measure(stage, &mut findings) {
        Ok(()) => format!("{FOUND}{}", serde_json::to_string(&findings)?),
        Err(error) => match error.downcast_ref::<NotRun>() {
            Some(NotRun(why)) => format!("{NOT_RUN}{why}"),
            None => return Err(error.context(format!("so far: {}", findings.text()))),
        },
    };
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}

fn ids() -> String {
    ROWS.iter().map(|row| row.id).collect::<Vec<_>>().join(" ")
}

fn in_process(command: &mut Command, limit: Duration) -> anyhow::Result<Ended> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().context("start the row's process")?;
    let group = Pid::from_raw(child.id().cast_signed());
    let (output, lines) = mpsc::channel();
    let streams: [Option<Box<dyn io::Read + Send>>; 2] =
        [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
    for stream in streams.into_iter().flatten() {
        let output = output.clone();
        thread::Builder::new().name("row's output".into()).spawn(move || {
            for line in BufReader::new(stream.take(MOST)).split(b'\n').map_while(Result::ok) {
                if output.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        })?;
    }
    drop(output);
    let (until, mut heard, mut late) = (Instant::now() + limit, Vec::new(), false);
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => heard.push(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                late = true;
                break;
            }
        }
    }
    // Also what it left behind; fails where nothing is left.
    let _ = killpg(group, Signal::SIGKILL);
    child.wait()?;
    let find = |prefix: &str| heard.iter().rev().find_map(|line| line.strip_prefix(prefix));
    if let Some(found) = find(FOUND) {
        return Ok(Ended::Measured(serde_json::from_str(found).context("read the row's findings")?));
    }
    if let Some(why) = find(NOT_RUN) {
        return Ok(Ended::NotRun(why.to_owned()));
    }
    let text = heard.join(" | ");
    let tail = text.char_indices().rev().nth(SHOWN).map_or(&text[..], |(at, _)| &text[at..]);
    let why = if late { format!("not within {limit:?}: ") } else { String::new() };
    Ok(Ended::Failed(why + tail))
}
