//! A page of `docs/`, followed command by command by a reader with `meshctl` in the PATH.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use mesh_e2e::{
    readme::{self, commands},
    sources,
};

use crate::program::meshctl_path;

/// What a command is about that says nothing when all is well.
const SILENT: [&str; 2] = [" > ", "ln -s"];

/// Types every command of the page, each in a shell of its own, in a new folder with `deploy` in it. `helm` is not everywhere,
/// and is not typed.
///
/// # Errors
/// Where a command ended otherwise than the page has it, with what it said.
pub fn follow(page: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::symlink(sources::root().join("deploy"), folder.path().join("deploy"))?;
    fs::create_dir_all(folder.path().join(".local/bin"))?;
    for command in of(page, None)?.iter().filter(|command| !command.text.starts_with("helm ")) {
        let said = type_in(folder.path(), page, command)?;
        let is_silent = SILENT.iter().any(|part| command.text.contains(part));
        ensure!(!said.trim().is_empty() || is_silent, "{page}:{}: it says nothing", command.line);
    }
    Ok(())
}

/// The commands of the page, or of the part of it that has this heading.
///
/// # Errors
/// Where there are none.
pub fn of(page: &str, title: Option<&str>) -> anyhow::Result<Vec<readme::Command>> {
    let text = fs::read_to_string(sources::root().join(page))?;
    let commands = commands(&text, title);
    ensure!(!commands.is_empty(), "{page} has no command below {title:?}");
    Ok(commands)
}

/// Types one command of the page, and tells all that was said.
///
/// # Errors
/// Where it ended otherwise than the page has it, with what it said.
pub fn type_in(folder: &Path, page: &str, command: &readme::Command) -> anyhow::Result<String> {
    let meshctl = meshctl_path()?;
    let paths = [PathBuf::from(meshctl.parent().context("it is in a folder")?)];
    let path = env::join_paths(paths.into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())))?;
    let output = Command::new("bash")
        .args(["-uo", "pipefail", "-c", &command.text])
        .current_dir(folder)
        .env("PATH", &path)
        .env("HOME", folder)
        .stdin(Stdio::null())
        .output()?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if output.status.code() != Some(expected(&command.text)) {
        bail!("{page}:{}: {} ended with {}\n{said}", command.line, command.text, output.status);
    }
    Ok(said)
}

/// `diff` says by its exit code that there is a difference, and that is what is shown.
fn expected(command: &str) -> i32 {
    i32::from(command.contains("| diff "))
}
