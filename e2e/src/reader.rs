//! A reader who follows the README and the tutorial in a shell: the README's first command until the playground is
//! ready, every command of the tour, and the end, after which nothing may be left; then all of the tutorial's.
//!
//! `e2e/tests/readme.rs` reads with a release that the first command builds, `meshctl/tests/readme.rs` with the binary
//! under test. It does not know what a command should say beyond what the page shows of it.

#![expect(clippy::print_stdout, reason = "it tells what it does")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command as Process, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    readme::{Command, commands},
    sources,
};

/// A release from nothing takes minutes on two cores.
const BUILD: Duration = Duration::from_mins(45);
/// A command of the tour ends within seconds.
const COMMAND: Duration = Duration::from_mins(1);
/// Between two looks at what still runs.
const LOOK: Duration = Duration::from_millis(20);
/// So often: a minute and more.
const LOOKS: u32 = 3000;
const TUTORIAL: &str = "docs/tutorial.md";
/// Where the pages find the binary.
const BUILT: &str = "target/release/meshctl";

/// The reader, in a folder, with a place of their own for what runs.
pub struct Reader {
    folder: PathBuf,
    runtime: tempfile::TempDir,
    /// Whether `cargo` builds, or what it would have built is there.
    builds: bool,
    _folder: Option<tempfile::TempDir>,
}

/// A command that fails leaves no playground on the machine.
impl Drop for Reader {
    fn drop(&mut self) {
        // An error where none runs, as after every run that passed.
        let _ = self.shell(&format!("{BUILT} playground stop")).output();
    }
}

impl Reader {
    /// In the project's own folder; builds the release.
    pub fn in_the_project() -> anyhow::Result<Self> {
        let folder = sources::root();
        Ok(Self { folder, runtime: tempfile::tempdir()?, builds: true, _folder: None })
    }

    /// In a folder that looks like the project's after the build, with `meshctl` as what was built.
    pub fn with_binary(meshctl: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        for name in ["deploy", "docs", "README.md"] {
            symlink(sources::root().join(name), folder.path().join(name))?;
        }
        let built = folder.path().join(BUILT);
        fs::create_dir_all(built.parent().context("it has a folder")?)?;
        symlink(meshctl, built)?;
        let path = folder.path().to_owned();
        Ok(Self { folder: path, runtime: tempfile::tempdir()?, builds: false, _folder: Some(folder) })
    }

    /// Follows the README; gives how many commands it has.
    pub fn readme(&self) -> anyhow::Result<usize> {
        let page = fs::read_to_string(self.folder.join("README.md"))?;
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

    /// Follows the tutorial, which ends its playground itself; gives how many commands it has.
    pub fn tutorial(&self) -> anyhow::Result<usize> {
        let commands = commands(&fs::read_to_string(self.folder.join(TUTORIAL))?, None);
        ensure!(commands.len() >= 10, "{TUTORIAL}: ten commands or more, there are {}", commands.len());
        for command in &commands {
            self.check(TUTORIAL, command)?;
        }
        self.nothing_is_left()?;
        Ok(commands.len())
    }

    fn shell(&self, text: &str) -> Process {
        let mut process = Process::new("bash");
        let text = if self.builds { text.to_owned() } else { built(text) };
        process
            .args(["-euo", "pipefail", "-c", &text])
            .current_dir(&self.folder)
            .env("XDG_RUNTIME_DIR", self.runtime.path());
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
        if let (Some(shown), Some(real)) = (fields(shown), fields(real)) {
            ensure!(shown == real, "{place}: fields {shown:?} on the page, {real:?} in truth");
        } else {
            let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let columns = shown.split_whitespace().all(|word| word.to_uppercase() == word);
            ensure!(!columns || words(shown) == words(real), "{place}: {shown:?} on the page, {real:?} in truth");
        }
        Ok(())
    }

    fn nothing_is_left(&self) -> anyhow::Result<()> {
        let files: Vec<_> =
            fs::read_dir(self.runtime.path())?.filter_map(Result::ok).map(|entry| entry.path()).collect();
        ensure!(files.is_empty(), "files are left: {files:?}");
        // The keeper removes the files and then ends, which takes a moment more.
        let mut looks = 0;
        while let Some(process) = self.process()? {
            looks += 1;
            ensure!(looks < LOOKS, "process {} is left", process.display());
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// A process that runs here.
    fn process(&self) -> anyhow::Result<Option<PathBuf>> {
        let ours = self.runtime.path().to_string_lossy().into_owned();
        let is_ours = |process: &PathBuf| {
            // A process of another user, or one that ends meanwhile, is none of ours.
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            let is_self = process.ends_with(std::process::id().to_string());
            !is_self && String::from_utf8_lossy(&environment).contains(&ours)
        };
        Ok(fs::read_dir("/proc")?.filter_map(Result::ok).map(|entry| entry.path()).find(is_ours))
    }
}

/// A command of a page where nothing is to be built any more.
fn built(text: &str) -> String {
    text.replace("cargo run --release -p meshctl --", BUILT).replace("cargo build --release -p meshctl", "true")
}

/// The fields of a JSON object, none for other text.
fn fields(line: &str) -> Option<BTreeSet<String>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    Some(object.keys().cloned().collect())
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
