//! The invariants of docs/architecture.md that a compiler does not check, read from the sources themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_e2e::{
    code_map,
    sources::{self, Source, root},
};

/// Longest source file, in lines; longer ones hold two things.
const MAX_LINES: usize = 500;

/// Where the code map begins in docs/architecture.md; it goes on to the end.
const MAP: &str = "## Code map\n";

#[test]
fn the_proxy_never_links_kube() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "mesh-proxy", "--edges", "normal", "--prefix", "none", "--offline", "--locked"])
        .current_dir(root())
        .output()
        .expect("run cargo");
    assert!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("crate names are text");
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains("mesh-proto") && crates.contains("rustls"), "this is no tree of the proxy: {tree}");
    let unwanted: Vec<_> =
        crates.iter().filter(|name| ["kube", "k8s", "gateway-api"].iter().any(|part| name.starts_with(part))).collect();
    assert!(unwanted.is_empty(), "the proxy links {unwanted:?}; who brings it: cargo tree -p mesh-proxy -i NAME");
}

#[test]
fn only_runtime_tls_names_a_crypto_provider() {
    check_product(|path, code| {
        let named = code.lines().position(|line| line.contains("aws_lc_rs") || line.contains("CryptoProvider"));
        let line = named.filter(|_| path != Path::new("runtime/src/tls.rs"))?;
        Some(format!("line {} names a crypto provider: use mesh_runtime::tls", line + 1))
    });
}

/// `compile`, `decide`, the rules of the redirect and the evaluator are functions of their arguments.
#[test]
fn the_pure_middle_does_no_io() {
    let pure = [
        "controller/src/compile",
        "controller/src/index",
        "injector/src/decide.rs",
        "injector/src/settings.rs",
        "injector/src/sidecar.rs",
        "injector/src/patch.rs",
        "injector/src/uninject.rs",
        "proto/src/inbound.rs",
        "proto/src/outbound.rs",
        "proxy/src/detect.rs",
        "proxy/src/detect/http1.rs",
        "proxy/src/http/headers.rs",
        "proxy/src/link.rs",
        "proxy/src/redirect/rules.rs",
    ];
    let doing = ["tokio::", "kube::Client", "std::fs", "std::net::Tcp", "SystemTime::now", "Instant::now", "std::env"];
    let mut seen = BTreeSet::new();
    check_product(|path, code| {
        let start = pure.iter().find(|start| path.to_string_lossy().starts_with(**start))?;
        seen.insert(*start);
        let done = doing.iter().find(|done| code.contains(**done))?;
        Some(format!("is pure and uses {done}: do it in the caller and pass the value"))
    });
    let missing: Vec<_> = pure.iter().filter(|start| !seen.contains(**start)).collect();
    assert!(missing.is_empty(), "no such files any more, change this list: {missing:?}");
}

#[test]
fn every_name_of_ours_is_written_once() {
    check_product(|path, code| {
        if path == Path::new("proto/src/names.rs") {
            return None;
        }
        let line = code.lines().position(|line| {
            // What the compiler reads while building cannot be a constant.
            let at_build = line.contains("option_env!");
            !at_build
                && !line.trim_start().starts_with("//")
                && (line.contains("\"meshctl.dev/") || line.contains("\"MESH_"))
        })?;
        Some(format!("line {} writes a name of ours: take it from mesh_proto::names", line + 1))
    });
}

#[test]
fn no_source_file_is_too_long() {
    check_sources(|_, text| {
        let lines = text.lines().count();
        (lines > MAX_LINES).then(|| format!("has {lines} lines, at most {MAX_LINES}: split it"))
    });
}

#[test]
fn every_source_file_begins_by_saying_what_it_is() {
    check_sources(|_, text| {
        let header: usize = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .map(|line| line.trim_matches(['/', '!', ' ']).len())
            .sum();
        (header < 12)
            .then(|| "does not begin with `//!` and what it is, who calls it, what it does not know".to_owned())
    });
}

#[test]
fn every_path_in_the_documentation_exists() {
    let mut missing = Vec::new();
    let mut checked = 0;
    for page in ["docs/architecture.md", "docs/life-of-a-request.md", "docs/life-of-a-change.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        for path in quoted(&text).filter(|quoted| is_path(quoted)) {
            checked += 1;
            if !root().join(path).exists() {
                missing.push(format!("{page}: {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "named and not there:\n{}", missing.join("\n"));
    assert!(checked > 50, "only {checked} paths found: does this test still read the pages rightly?");
}

#[test]
fn the_code_map_says_what_the_modules_say() {
    let page = root().join("docs/architecture.md");
    let text = fs::read_to_string(&page).expect("docs/architecture.md");
    let (before, written) = text.split_once(MAP).expect("docs/architecture.md has a code map");
    let map = code_map::render();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, format!("{before}{MAP}{map}")).expect("write docs/architecture.md");
        return;
    }
    let written: BTreeSet<&str> = written.lines().collect();
    let missing: Vec<_> = map.lines().filter(|line| !written.contains(line)).collect();
    let map: BTreeSet<&str> = map.lines().collect();
    let wrong: Vec<_> = written.iter().filter(|line| !map.contains(*line)).collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "docs/architecture.md lacks {missing:#?}\nand has {wrong:#?}\nwrite it anew: just docs (UPDATE_DOCS=1 cargo test -p mesh-e2e --test architecture)"
    );
}

/// Runs `rule` on every hand-written source file (path from the root, whole text) and reports all that break it.
fn check_sources(mut rule: impl FnMut(&Path, &str) -> Option<String>) {
    let sources = sources::all();
    assert!(sources.len() > 40, "only {} sources found: does this test still look in the right places?", sources.len());
    let broken: Vec<_> = sources
        .iter()
        .filter_map(|Source { path, text }| Some(format!("{}: {}", path.display(), rule(path, text)?)))
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// As [`check_sources`], on what is compiled into the product: without tests, which stand last in a file or in a module
/// of their own.
fn check_product(mut rule: impl FnMut(&Path, &str) -> Option<String>) {
    let tests = test_modules();
    check_sources(|path, text| {
        if tests.iter().any(|test| path == test || path.starts_with(test.with_extension(""))) {
            return None;
        }
        let code = text.split_once("#[cfg(test)]\nmod tests {").map_or(text, |(code, _)| code);
        rule(path, code)
    });
}

/// Files that are compiled for tests only (with all below them): `#[cfg(test)] mod NAME;` in their parent.
fn test_modules() -> BTreeSet<PathBuf> {
    let mut modules = BTreeSet::new();
    for Source { path, text } in sources::all() {
        for declared in text.split("#[cfg(test)]\n").skip(1) {
            let line = declared.lines().next().unwrap_or_default();
            if let Some(name) =
                line.trim_start_matches("pub(crate) ").strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'))
            {
                let is_root = path.ends_with("lib.rs") || path.ends_with("main.rs");
                let folder = if is_root { path.with_file_name("") } else { path.with_extension("") };
                modules.insert(folder.join(format!("{name}.rs")));
            }
        }
    }
    modules
}

/// What stands between single backticks, outside code blocks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.lines()).flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Whether a quotation means a file or folder of ours: it begins with a top-level name and has no blank.
fn is_path(quoted: &str) -> bool {
    let first = quoted.split('/').next().unwrap_or_default();
    let ours = ["proto", "runtime", "proxy", "controller", "injector", "meshctl", "deploy", "e2e", "docs", ".ci"];
    quoted.contains('/') && ours.contains(&first) && !quoted.contains([' ', '*', '{', ':'])
}
