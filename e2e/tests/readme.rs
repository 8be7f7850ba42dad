//! The README and the tutorial, run as written on this machine: the README's first command until the playground is
//! ready, every command of the tour, and the end, after which nothing may be left; then all of the tutorial's, which
//! the word `tutorial` asks for alone.
//!
//! Run by `.ci/run readme` and not by `cargo test`, since the first command builds a release.

#![expect(clippy::print_stdout, reason = "it tells what it does")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command as Process, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use mesh_e2e::readme::{Command, commands};

/// A release from nothing takes minutes on two cores.
const BUILD: Duration = Duration::from_mins(45);
/// A command of the tour ends within seconds.
const COMMAND: Duration = Duration::from_mins(1);
const TUTORIAL: &str = "docs/tutorial.md";

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("e2e is in the project")?;
    let runtime = tempfile::tempdir()?;
    let session = Session { root: root.to_owned(), runtime: runtime.path().to_owned() };
    let mut passed = 0;
    if !std::env::args().any(|word| word == "tutorial") {
        passed += session.readme()?;
    }
    passed += session.tutorial()?;
    println!("{passed} passed, 0 failed");
    Ok(())
}

struct Session {
    root: PathBuf,
    runtime: PathBuf,
}

/// A command that fails leaves no playground on the machine.
impl Drop for Session {
    fn drop(&mut self) {
        // An error where none runs, as after every run that passed.
        let _ = self.shell("target/release/meshctl playground stop").output();
    }
}

impl Session {
    fn readme(&self) -> anyhow::Result<usize> {
        let page = fs::read_to_string(self.root.join("README.md"))?;
        let first = commands(&page, Some("Try it"));
        let tour = commands(&page, Some("Tour"));
        ensure!(first.len() == 1, "README.md: one command under \"Try it\", there are {}", first.len());
        ensure!(tour.len() >= 5, "README.md: a tour of five commands or more, there are {}", tour.len());
        let mut playground = self.playground(&first[0])?;
        for command in &tour {
            self.check("README.md", command)?;
        }
        let status = playground.wait()?;
        ensure!(status.success(), "the playground ended with {status} when it was stopped");
        self.nothing_is_left()?;
        Ok(1 + tour.len())
    }

    /// It builds as its first command and ends its playground as its last.
    fn tutorial(&self) -> anyhow::Result<usize> {
        let commands = commands(&fs::read_to_string(self.root.join(TUTORIAL))?, None);
        ensure!(commands.len() >= 10, "{TUTORIAL}: ten commands or more, there are {}", commands.len());
        for command in &commands {
            self.check(TUTORIAL, command)?;
        }
        self.nothing_is_left()?;
        Ok(commands.len())
    }

    fn shell(&self, text: &str) -> Process {
        let mut process = Process::new("bash");
        process.args(["-euo", "pipefail", "-c", text]).current_dir(&self.root).env("XDG_RUNTIME_DIR", &self.runtime);
        // A person's terminal says where the build goes; only cargo's own default is what the README assumes.
        process.env_remove("CARGO_TARGET_DIR");
        process
    }

    /// Starts the first command and waits until it says that it is ready.
    fn playground(&self, first: &Command) -> anyhow::Result<Child> {
        println!("$ {}", first.text);
        let mut child = self.shell(&format!("exec {}", first.text)).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("piped")?;
        let (lines, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                println!("  {line}");
                let _ = lines.send(line);
            }
        });
        loop {
            let line = said.recv_timeout(BUILD).context("the playground said nothing more and is not ready")?;
            if line.contains("ready in") {
                return Ok(child);
            }
        }
    }

    /// Runs a command and compares what it prints with what the page says: the same first line (the columns), or for
    /// JSON the same fields.
    fn check(&self, page: &str, command: &Command) -> anyhow::Result<()> {
        println!("$ {}", command.text);
        let limit = if command.text.starts_with("cargo ") { BUILD } else { COMMAND };
        let text = format!("timeout {} bash -euo pipefail -c {}", limit.as_secs(), quote(&command.text));
        let output = self.shell(&text).output()?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        print!("{stdout}{stderr}");
        let place = format!("{page}:{}: {}", command.line, command.text);
        ensure!(output.status.success(), "{place}: {}", output.status);
        let Some(shown) = command.output.first() else { return Ok(()) };
        let Some(real) = stdout.lines().next() else { bail!("{place}: it printed nothing") };
        match (fields(shown), fields(real)) {
            (Some(shown), Some(real)) => {
                ensure!(shown == real, "{place}: fields {shown:?} on the page, {real:?} in truth");
            }
            _ => {
                let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
                let columns = shown.split_whitespace().all(|word| word.to_uppercase() == word);
                ensure!(!columns || words(shown) == words(real), "{place}: {shown:?} on the page, {real:?} in truth");
            }
        }
        Ok(())
    }

    fn nothing_is_left(&self) -> anyhow::Result<()> {
        let files: Vec<_> = fs::read_dir(&self.runtime)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
        ensure!(files.is_empty(), "files are left: {files:?}");
        let ours = self.runtime.to_string_lossy().into_owned();
        for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
            // A process of another user, or one that ends meanwhile, is none of ours.
            let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
            let is_ours = String::from_utf8_lossy(&environment).contains(&ours);
            let is_self = entry.file_name().to_string_lossy() == std::process::id().to_string();
            ensure!(!is_ours || is_self, "process {} is left", entry.path().display());
        }
        Ok(())
    }
}

/// The fields of a JSON object, none for other text.
fn fields(line: &str) -> Option<BTreeSet<String>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    Some(object.keys().cloned().collect())
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
