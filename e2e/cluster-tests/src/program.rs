//! `kubectl` and `meshctl` as programs: arguments in, what they said out, within a deadline.
//!
//! Knows nothing of what they are asked.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

/// How often is looked at what nobody announces, and how long is waited in between: everything comes about within minutes on
/// a busy machine with two cores, or not at all.
const LOOKS: u32 = 1200;
const PAUSE: Duration = Duration::from_millis(200);

/// What a program said.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; None: ended by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a success.
    ///
    /// # Errors
    /// With everything that it said, where it failed.
    pub fn ok(self) -> anyhow::Result<String> {
        ensure!(self.code == Some(0), "{self}");
        Ok(self.stdout)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$ {}\nexit code {:?}\n{}{}", self.command, self.code, self.stdout, self.stderr)
    }
}

/// Runs `kubectl`, found in the PATH, against the cluster of `KUBECONFIG`.
///
/// # Errors
/// Where it cannot be run; an exit code is no error.
pub fn kubectl(arguments: &[&str], stdin: &str) -> anyhow::Result<Output> {
    run("kubectl".into(), arguments, stdin)
}

/// Runs the `meshctl` under test: that of `MESHCTL`, or the one that was built beside this test.
///
/// # Errors
/// Where it cannot be run; an exit code is no error.
pub fn meshctl(arguments: &[&str], stdin: &str) -> anyhow::Result<Output> {
    run(meshctl_path()?, arguments, stdin)
}

/// Where that is.
///
/// # Errors
/// Where it is not built.
pub fn meshctl_path() -> anyhow::Result<PathBuf> {
    let path = match std::env::var_os("MESHCTL") {
        Some(path) => PathBuf::from(path),
        // target/debug/deps/it-… and target/debug/meshctl
        None => std::env::current_exe()?.ancestors().nth(2).context("a test is in a folder")?.join("meshctl"),
    };
    ensure!(path.exists(), "{} is not there: cargo build --package meshctl", path.display());
    Ok(path)
}

fn run(program: PathBuf, arguments: &[&str], stdin: &str) -> anyhow::Result<Output> {
    ensure!(std::env::var_os("KUBECONFIG").is_some(), "KUBECONFIG is not set: run these tests with `just e2e`");
    let command = format!("{} {}", program.display(), arguments.join(" "));
    let mut child = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| command.clone())?;
    // Neither says anything before it has read everything.
    if let Some(mut pipe) = child.stdin.take() {
        let written = pipe.write_all(stdin.as_bytes());
        // One that failed before it read tells why by its exit code.
        drop(written);
    }
    let output = child.wait_with_output()?;
    Ok(Output {
        command,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Looks until there is something to see. For what `kubectl wait` cannot wait for.
///
/// # Errors
/// With what the last look saw, after four minutes or more.
pub fn until<T>(what: &str, mut look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut seen = look();
    for _ in 0..LOOKS {
        if seen.is_ok() {
            break;
        }
        std::thread::sleep(PAUSE);
        seen = look();
    }
    seen.with_context(|| format!("{what}: it never came"))
}
