//! Runs rows, each in a process of its own with a limit, and collects what they found.
//!
//! A row's process leads a process group: whatever it started ends with it, also where it hangs.

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
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::time::Instant;

use crate::{
    outcome::Findings,
    report::{Ended, Report},
    rows::{NotRun, ROWS, Row, Stage},
};

/// Begins the line with the findings.
const FOUND: &str = "found: ";
/// Begins the line with the reason for which a row was not run.
const NOT_RUN: &str = "not run: ";
/// What of a failed row's output is shown.
const SHOWN: usize = 1500;
/// Most that is kept of it.
const MOST: u64 = 8 << 20;

/// All rows, or those of CI, or those that are named.
pub(crate) fn all(own: &Path, proxy: &Path, ci: bool, only: &[String]) -> anyhow::Result<Report> {
    for id in only {
        anyhow::ensure!(ROWS.iter().any(|row| row.id == id), "no row {id}; there are: {}", ids());
    }
    let wanted = |row: &&Row| if only.is_empty() { !ci || row.in_ci } else { only.iter().any(|id| id == row.id) };
    let mut report = Report::default();
    for row in ROWS.iter().filter(wanted) {
        let begun = Instant::now();
        let mut command = Command::new(own);
        command.arg("--row").arg(row.id).arg("--proxy").arg(proxy);
        if ci {
            command.arg("--ci");
        }
        report.add(row, in_process(&mut command, row.limit)?, begun.elapsed());
        report.print_last()?;
    }
    Ok(report)
}

/// One row, in this process.
pub(crate) fn one(id: &str, proxy: PathBuf, full: bool) -> anyhow::Result<()> {
    let row = ROWS.iter().find(|row| row.id == id).with_context(|| format!("no row {id}; there are: {}", ids()))?;
    // Thousands of connections have an end here, too.
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut findings = Findings::new(full);
    let line = match (row.run)(&Stage { proxy, full }, &mut findings) {
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
