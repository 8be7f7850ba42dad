//! `meshctl playground`: starts the keeper, tells the person how it goes, and ends everything on Ctrl-C.
//!
//! It stays outside of all namespaces and knows nothing of pods: the supervisor's news tell it what to say.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{paths::RuntimeDir, progress::News};
use crate::{cluster::playground::Client, roles::Role};

/// Tells the keeper to end with the process of this number.
pub(super) const WITH_PARENT: &str = "--with-parent=";
/// Why there is no second one.
pub(super) const ALREADY_RUNNING: &str =
    "a playground is already running; `meshctl playground status` shows it, `meshctl playground stop` ends it";

/// Runs until the playground ends, or with `detach` until it is ready.
pub(crate) fn run(detach: bool) -> anyhow::Result<()> {
    let dir = RuntimeDir::of_this_user()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = Client::at(dir.socket());
    if runtime.block_on(client.text("/v1/status")).is_ok() {
        bail!(ALREADY_RUNNING);
    }
    dir.create()?;
    let (mut keeper, news) = start_keeper(&dir, detach)?;
    let outcome = runtime.block_on(async { watch(&client, news, detach).await });
    match outcome {
        Ok(Watched::Ready) => return Ok(()),
        Ok(Watched::Ended) | Err(_) => {
            let _ = keeper.wait();
        }
    }
    outcome.map(drop)
}

/// How watching a start ended without failure.
enum Watched {
    /// It runs and is left alone.
    Ready,
    /// It ran and has ended.
    Ended,
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

async fn watch(client: &Client, pipe: OwnedFd, detach: bool) -> anyhow::Result<Watched> {
    let pipe = pipe::Receiver::from_owned_fd(pipe).context("read the keeper's pipe")?;
    let mut lines = BufReader::new(pipe).lines();
    let mut interrupts =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let screen = Screen { ticks: io::stderr().is_terminal() };
    let mut stopping = false;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line.context("read the keeper's pipe")?,
            () = any(&mut interrupts) => {
                if stopping {
                    bail!("interrupted twice; what is left ends with this process");
                }
                stopping = true;
                screen.say("stopping…");
                // Not listening yet: the keeper ends with this process.
                client.stop().await.context("interrupted before the playground could be asked to stop")?;
                continue;
            }
        };
        let Some(line) = line else { break };
        match News::read(&line) {
            Some(News::Done { what, .. }) => screen.done(&what),
            Some(News::Ready { millis }) => {
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
                drain(&mut lines, &screen).await;
                bail!("{message}");
            }
            None => screen.say(&line),
        }
    }
    if stopping {
        return Ok(Watched::Ended);
    }
    if client.text("/v1/status").await.is_ok() {
        bail!("lost the playground's pipe; it still runs: `meshctl playground stop` ends it");
    }
    bail!("the playground ended by itself")
}

/// What still comes before the end.
async fn drain(lines: &mut Lines<BufReader<pipe::Receiver>>, screen: &Screen) {
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
struct Screen {
    ticks: bool,
}

impl Screen {
    fn say(&self, line: &str) {
        let _ = writeln!(io::stderr(), "{line}");
    }

    fn done(&self, what: &str) {
        if self.ticks { self.say(&format!(" \x1b[32m✓\x1b[0m {what}")) } else { self.say(what) }
    }

    fn ready(&self, millis: u64, detach: bool) {
        self.say(&format!(
            "ready in {}.{} s; one part of the shop is broken: find it",
            millis / 1000,
            millis % 1000 / 100
        ));
        self.say("  meshctl list --playground");
        self.say("  meshctl stat --playground");
        self.say("  meshctl tap --playground --status 5xx");
        self.say(if detach { "meshctl playground stop ends it" } else { "Ctrl-C ends it" });
    }
}
