//! Which build this is: for `version` commands, the `mesh_build_info` metric and the first log line.
//!
//! Knows nothing at run time: everything is fixed when the crate is compiled.

use std::sync::LazyLock;

/// Version of the workspace, e.g. `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit the binary was built from, as the build gave it in `MESH_COMMIT`; `unknown` in a plain `cargo build`.
pub const COMMIT: &str = match option_env!("MESH_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Both, as one line for people: `0.1.0 (commit 60359b7)`.
pub fn line() -> &'static str {
    static LINE: LazyLock<String> = LazyLock::new(|| format!("{VERSION} (commit {COMMIT})"));
    &LINE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_version_and_commit() {
        let line = line();
        assert!(line.starts_with(VERSION), "{line}");
        assert!(line.contains(COMMIT), "{line}");
    }
}
