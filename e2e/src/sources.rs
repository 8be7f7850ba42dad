//! The sources of the workspace as values, for tests that read them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Crates that make up the product, and those that test it, in the order a reader should meet them.
pub const CRATES: &[&str] = &[
    "proto",
    "runtime",
    "proxy",
    "controller",
    "injector",
    "meshctl",
    "e2e/netlab",
    "e2e/testbed",
    "e2e/measure",
    "e2e/bench",
    "e2e/torture",
    "e2e/shop",
    "e2e/cluster-tests",
    "e2e/cluster-bench",
    "e2e",
];

/// One hand-written source file.
#[derive(Debug, Clone)]
pub struct Source {
    /// From the root of the workspace.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    let e2e = Path::new(env!("CARGO_MANIFEST_DIR"));
    e2e.parent().expect("invariant: e2e lies below the root").to_owned()
}

/// Every `.rs` file under `src` of a crate but the generated ones: `lib.rs` and `main.rs` first, then each module before those below
/// it.
///
/// # Panics
/// When the sources cannot be read: a test has nothing to say then.
pub fn of_crate(name: &str) -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    let mut folders = vec![root.join(name).join("src")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() && !path.ends_with("generated") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a readable source");
                let path = path.strip_prefix(&root).expect("invariant: found below the root").to_owned();
                sources.push(Source { path, text });
            }
        }
    }
    sources.sort_by_key(|source| (is_below_root(&source.path), source.path.with_extension("")));
    sources
}

/// Every hand-written source file of every crate.
pub fn all() -> Vec<Source> {
    CRATES.iter().flat_map(|name| of_crate(name)).collect()
}

fn is_below_root(path: &Path) -> bool {
    !path.ends_with("src/lib.rs") && !path.ends_with("src/main.rs")
}
