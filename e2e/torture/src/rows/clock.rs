//! F11: the clock of one process jumps, while the others' go on.
//!
//! The kernel has one clock for all, so libfaketime changes what one process reads of it (`CLOCK_REALTIME` alone); a file says by
//! how much, so that the clock can jump while the process runs.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use mesh_proto::outcome::Outcome;
use mesh_testbed::{Settings, member::Pod, until};
use tokio::time::Instant;

use crate::{
    load::{self, Load},
    oracle::backend::{BYTES, HTTP},
    outcome::Findings,
    raw,
    rig::{Plan, Rig},
    row::{NotRun, Stage},
};

/// Where the library is, if not in a usual place.
const LIBRARY: &str = "LIBFAKETIME";
const USUAL: &str = "/usr/lib";
const NAME: &str = "faketime/libfaketimeMT.so.1";
/// How long the library may go by an offset that has been replaced.
const TAKES: Duration = Duration::from_millis(1500);
/// How soon all is as before.
const HEALED: f64 = 10.0;
/// Last number of the address of a pod that comes while the controller's clock is wrong.
const LATECOMER: u8 = 9;

/// A clock that can be set.
#[derive(Debug)]
struct Clock {
    file: tempfile::NamedTempFile,
    library: String,
}

impl Clock {
    fn new(library: &Path) -> anyhow::Result<Self> {
        let clock = Self { file: tempfile::NamedTempFile::new()?, library: library.display().to_string() };
        clock.write("+0")?;
        Ok(clock)
    }

    /// What makes a process go by it.
    fn environment(&self) -> [(&str, &str); 5] {
        [
            ("LD_PRELOAD", &self.library),
            ("FAKETIME_TIMESTAMP_FILE", self.file.path().to_str().unwrap_or_default()),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    /// Sets it so much off (as libfaketime writes it), and waits until that has come through.
    fn jump(&self, offset: &str) -> anyhow::Result<()> {
        self.write(offset)?;
        thread::sleep(TAKES);
        Ok(())
    }

    fn write(&self, offset: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.file.path(), format!("{offset}\n"))?)
    }
}

pub(crate) fn jumps(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let library = library()?;
    of_a_proxy(stage, &library, findings)?;
    of_the_controller(stage, &library, findings)
}

/// Of the server's proxy: each exchange of bytes is a handshake of its own, in which each side looks at its clock.
fn of_a_proxy(stage: &Stage, library: &Path, findings: &mut Findings) -> anyhow::Result<()> {
    let clock = Clock::new(library)?;
    let rig = Rig::start(&Plan { server_environment: &clock.environment(), ..Plan::new(stage) })?;
    let start = rig.server().gauge("process_start_time_seconds", &[])?;
    let carried = || rig.client.run(|| raw::carries(Rig::web(BYTES))).unwrap_or(false);
    let length = stage.pick(Duration::from_secs(5), Duration::from_secs(2));
    let count = || {
        let (begun, mut good, mut bad) = (Instant::now(), 0, 0);
        while begun.elapsed() < length {
            *(if carried() { &mut good } else { &mut bad }) += 1;
            thread::sleep(Duration::from_millis(100));
        }
        (good, bad)
    };
    until("a connection is carried", || carried().then_some(()))?;
    let mut slowest = Duration::ZERO;
    // What it has is good for a day from now, and was from 20 s before.
    for (offset, good_still) in [("+20s", true), ("-20s", true), ("+10m", true), ("-10m", false), ("+25h", false)] {
        clock.jump(offset)?;
        if !good_still {
            // The library looks into the file now and then; from the first refusal on there is no other verdict.
            until("a connection is refused", || (!carried()).then_some(()))?;
        }
        let (good, bad) = count();
        if good_still {
            findings.none(format!("refused of {} at {offset}", good + bad), bad);
        } else {
            findings.never(&format!("let in at {offset}"), good);
            findings.at_least(format!("refused at {offset}"), bad as f64, 1.0);
        }
        let back = Instant::now();
        clock.write("+0")?;
        until("connections are carried again", || carried().then_some(()))?;
        slowest = slowest.max(back.elapsed());
    }
    findings.timed_at_most("s until it is as before", slowest.as_secs_f64(), HEALED);
    let told = rig.server().count("mesh_error_total", &[&code(Outcome::ClientCertificateInvalid)])?;
    findings.at_least("refused with a code", told as f64, 1.0);
    let now = rig.server().gauge("process_start_time_seconds", &[])?;
    findings.none("restarts", usize::from((now - start).abs() > 0.5));
    findings.never("panics", rig.server().log().matches("panicked").count());
    Ok(())
}

/// Of the controller, and with it of the authority: who is in the mesh stays in it, who comes is let in when the clock is right.
fn of_the_controller(stage: &Stage, library: &Path, findings: &mut Findings) -> anyhow::Result<()> {
    let clock = Clock::new(library)?;
    let environment = clock.environment().map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let settings = Settings { control_environment: environment, ..Plan::new(stage).settings };
    let rig = Rig::start(&Plan { settings, ..Plan::new(stage) })?;
    let loads = [Load { fresh: true, ..Load::new(Rig::web(HTTP), 2, 50.0) }];
    let length = stage.pick(Duration::from_secs(5), Duration::from_secs(2));
    let offsets = ["+20s", "-20s", "-10m", "+25h"];
    let (healed, tally) = load::during(&rig.client, &rig.oracle, &loads, |_| {
        let mut healed = Vec::new();
        for (host, offset) in (LATECOMER..).zip(offsets) {
            clock.jump(offset)?;
            let name = format!("late{host}");
            let late = rig.mesh.unready_member(&Pod::new(&name, "late", host))?;
            thread::sleep(length);
            let came = late.is_ready();
            let back = Instant::now();
            clock.write("+0")?;
            late.until_ready()?;
            healed.push((offset, came, if came { Duration::ZERO } else { back.elapsed() }, late.log()));
        }
        Ok(healed)
    })?;
    for (offset, came, after, log) in &healed {
        let small = offset.ends_with("20s");
        if small {
            findings.none(format!("a new pod kept out at {offset}"), usize::from(!came));
        } else if !came {
            let reason = log.lines().any(|line| line.contains("no certificate was obtained") && line.contains("code="));
            findings.none(format!("no reason in the log at {offset}"), usize::from(!reason));
        }
        findings.told(format!("a new pod let in at {offset}"), f64::from(u8::from(*came)));
        findings.timed_at_most(format!("s until it is in after {offset}"), after.as_secs_f64(), HEALED);
    }
    findings.none(format!("errors of {} meanwhile{}", tally.all(), tally.examples()), tally.failed);
    findings.never("wrong answers", tally.wrong);
    Ok(())
}

/// As a label of a metric.
fn code(outcome: Outcome) -> String {
    format!(r#"code="{}""#, outcome.code())
}

fn library() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os(LIBRARY) {
        return Ok(named.into());
    }
    let usual = Path::new(USUAL);
    let places = fs::read_dir(usual).with_context(|| format!("look into {USUAL}"))?.flatten().map(|entry| entry.path());
    let found =
        places.chain([usual.into(), "/usr/lib64".into()]).map(|place| place.join(NAME)).find(|file| file.is_file());
    let fix = format!("needs libfaketime (apt-get install libfaketime), or {LIBRARY} to name it");
    found.ok_or_else(|| NotRun(fix).into())
}
