//! `meshctl playground`: starts the keeper, tells the person how it goes, and ends everything on Ctrl-C.
//!
//! It stays outside of all namespaces and knows nothing of pods: the supervisor's news tell it what to say.

use std::{
    io::{self, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use nix::{sys::signal::kill, unistd::Pid};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{keeper, paths::RuntimeDir, progress::News};
use crate::{
    cluster::playground::Client,
    failure::{Exit, Failure},
    printer::{self, Printer, table::Tone},
    roles::Role,
};

/// Tells the keeper to end with the process of this number.
pub(super) const WITH_PARENT: &str = "--with-parent=";
/// Why there is no second one.
pub(super) const ALREADY_RUNNING: &str =
    "a playground is already running; `meshctl playground status` shows it, `meshctl playground stop` ends it";

/// What helps where the runtime directory cannot be made.
const ELSEWHERE: &str = "make room and rights there, or name another directory of yours: XDG_RUNTIME_DIR=DIR";

/// Runs until the playground ends, or with `detach` until it is ready.
pub(crate) fn run(detach: bool, printer: &Printer) -> Result<(), Failure> {
    let dir = RuntimeDir::of_this_user()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let client = Client::at(dir.socket());
    if runtime.block_on(client.text("/v1/status")).is_ok() {
        return Err(Failure::from(anyhow::anyhow!(ALREADY_RUNNING)));
    }
    // A full disk, a directory that is read-only or somebody else's.
    dir.create().map_err(|error| Failure::from(error).fix(ELSEWHERE))?;
    let (mut keeper, news) = start_keeper(&dir, detach)?;
    let screen = Screen::new(printer);
    let outcome = runtime.block_on(watch(&client, news, detach, &screen));
    match outcome {
        Ok(Watched::Ready) => return Ok(()),
        Ok(Watched::Ended) => {}
        // It may not listen to anything else yet.
        Ok(Watched::Unasked) | Err(_) => end(&keeper),
    }
    let _ = keeper.wait();
    // What a keeper that was ended early has not removed.
    keeper::clean(&dir).with_context(|| format!("remove {}", dir.path().display()))?;
    match outcome {
        Ok(Watched::Unasked) => {
            screen.say("stopped; nothing is left");
            Err(Failure::new(Exit::Interrupted, "interrupted"))
        }
        outcome => Ok(outcome.map(drop)?),
    }
}

/// How watching a start ended without failure.
enum Watched {
    /// It runs and is left alone.
    Ready,
    /// It ran and has ended.
    Ended,
    /// It is to end, and was not ready to be told so.
    Unasked,
}

/// Asks the keeper to end everything; one that has ended needs no asking.
fn end(keeper: &Child) {
    if let Ok(pid) = i32::try_from(keeper.id()) {
        let _ = kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
}

/// The keeper, and the pipe that it and everything it starts print into.
fn start_keeper(dir: &RuntimeDir, detach: bool) -> anyhow::Result<(Child, OwnedFd)> {
    let (reader, writer) = io::pipe().context("make a pipe")?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(Role::PlaygroundKeeper.name())
        .arg(dir.path())
        .args((!detach).then(|| format!("{WITH_PARENT}{}", std::process::id())))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let child = command.spawn().context("start meshctl again as the playground's keeper")?;
    Ok((child, reader.into()))
}

async fn watch(client: &Client, pipe: OwnedFd, detach: bool, screen: &Screen<'_>) -> anyhow::Result<Watched> {
    let pipe = pipe::Receiver::from_owned_fd(pipe).context("read the keeper's pipe")?;
    let mut lines = BufReader::new(pipe).lines();
    let mut interrupts =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let (mut stopping, mut ready) = (false, false);
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line.context("read the keeper's pipe")?,
            () = any(&mut interrupts) => {
                if stopping || !ready || client.stop().await.is_err() {
                    return Ok(Watched::Unasked);
                }
                stopping = true;
                screen.under_way("stopping");
                continue;
            }
        };
        let Some(line) = line else { break };
        match News::read(&line) {
            Some(News::Begun { what }) => screen.under_way(&what),
            Some(News::Done { what, .. }) => screen.done(&what),
            Some(News::Ready { millis }) => {
                ready = true;
                screen.ready(millis, detach);
                if detach {
                    return Ok(Watched::Ready);
                }
            }
            // The rest is the keeper's, whose end is waited for.
            Some(News::Stopped) => {
                screen.say("stopped; nothing is left");
                return Ok(Watched::Ended);
            }
            Some(News::Failed { message }) => {
                drain(&mut lines, screen).await;
                screen.clear();
                bail!("{message}");
            }
            None => screen.say(&line),
        }
    }
    screen.clear();
    if stopping {
        return Ok(Watched::Ended);
    }
    if client.text("/v1/status").await.is_ok() {
        bail!("lost the playground's pipe; it still runs: `meshctl playground stop` ends it");
    }
    bail!("the playground ended by itself; `meshctl playground` starts it again")
}

/// What still comes before the end.
async fn drain(lines: &mut Lines<BufReader<pipe::Receiver>>, screen: &Screen<'_>) {
    while let Ok(Some(line)) = lines.next_line().await {
        if News::read(&line).is_none() {
            screen.say(&line);
        }
    }
}

async fn any(signals: &mut [Signal; 3]) {
    let [interrupt, terminate, hangup] = signals;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Standard error, for a person or a log.
struct Screen<'a> {
    printer: &'a Printer,
    /// Whether a line can be written again: what is under way becomes what is done.
    redraws: bool,
}

impl<'a> Screen<'a> {
    fn new(printer: &'a Printer) -> Self {
        Self { printer, redraws: printer::can_redraw() }
    }

    fn say(&self, line: &str) {
        self.clear();
        self.printer.say(line);
    }

    fn under_way(&self, what: &str) {
        if self.redraws {
            self.clear();
            let what = what.split(':').next().unwrap_or(what);
            let _ = write!(io::stderr(), "   {what}…");
        }
    }

    /// Also of what the terminal itself wrote there, as `^C`.
    fn clear(&self) {
        if self.redraws {
            let _ = write!(io::stderr(), "{}", printer::CLEAR_LINE);
        }
    }

    fn done(&self, what: &str) {
        if !self.redraws {
            return self.say(what);
        }
        let tick = if self.printer.talk_color() { Tone::Good.paint("✓") } else { "✓".to_owned() };
        self.say(&format!(" {tick} {what}"));
    }

    fn ready(&self, millis: u64, detach: bool) {
        // As it was typed, so that what is proposed can be, too.
        let program = std::env::args().next().unwrap_or_else(|| "meshctl".to_owned());
        let (seconds, tenths) = (millis / 1000, millis % 1000 / 100);
        self.say(&format!("ready in {seconds}.{tenths} s; one part of the shop is broken: find it"));
        for command in ["list --playground", "stat --playground", "tap --playground --status 5xx"] {
            self.say(&format!("  {program} {command}"));
        }
        let end = if detach { format!("{program} playground stop ends it") } else { "Ctrl-C ends it".to_owned() };
        self.say(&end);
    }
}
