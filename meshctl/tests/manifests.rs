//! The commands that work on files alone, through the real binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
};

fn meshctl(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const SHOP: &str = include_str!("../../deploy/demo/shop.yaml");

#[test]
fn inject_then_uninject_gives_back_the_input() {
    let injected = meshctl(&["inject", "-"], SHOP);
    assert!(injected.status.success(), "{}", text(&injected.stderr));
    assert!(text(&injected.stdout).contains("name: mesh-proxy"));
    assert!(text(&injected.stderr).contains("deployment/web-v1 injected"));
    assert!(text(&injected.stderr).contains("deployment/visitor skipped"), "it opts out");
    let back = meshctl(&["uninject", "-"], text(&injected.stdout));
    assert_eq!(text(&back.stdout), SHOP);
}

#[test]
fn inject_of_a_folder_takes_every_manifest_in_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("b.yaml"), SHOP).unwrap();
    fs::write(folder.path().join("a.yml"), "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n").unwrap();
    fs::write(folder.path().join("notes.txt"), "not yaml: [").unwrap();
    let output = meshctl(&["inject", folder.path().to_str().unwrap()], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("kind: ConfigMap\n"));
    assert!(text(&output.stdout).contains("---\n# The demo shop"));
}

#[test]
fn check_says_by_its_exit_code_whether_anything_would_change() {
    let unmeshed = meshctl(&["inject", "--check", "-"], SHOP);
    assert_eq!((unmeshed.status.code(), text(&unmeshed.stdout)), (Some(1), ""));
    let injected = meshctl(&["inject", "-"], SHOP);
    let meshed = meshctl(&["inject", "--check", "-"], text(&injected.stdout));
    assert_eq!(meshed.status.code(), Some(0), "{}", text(&meshed.stderr));
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    let broken = meshctl(&["inject", "-"], "kind: Pod\nmetadata: {name: [\n");
    assert_eq!(broken.status.code(), Some(1));
    assert!(broken.stdout.is_empty(), "nothing half-edited");
    assert!(text(&broken.stderr).contains("standard input:"), "{}", text(&broken.stderr));
    let absent = meshctl(&["inject", "/does/not/exist.yaml"], "");
    assert_eq!(absent.status.code(), Some(6));
    assert!(text(&absent.stderr).contains("/does/not/exist.yaml"));
}

#[test]
fn install_prints_the_same_bytes_twice_and_takes_values() {
    let first = meshctl(&["install"], "");
    assert!(first.status.success());
    assert!(text(&first.stderr).contains("cannot watch an API server yet"), "what does not work is said");
    assert_eq!(first.stdout, meshctl(&["install"], "").stdout);
    let other = meshctl(&["install", "--set", "trustDomain=example.org"], "");
    assert!(text(&other.stdout).contains("--trust-domain=example.org"));
    let typo = meshctl(&["install", "--set", "trustdomain=example.org"], "");
    assert_eq!(typo.status.code(), Some(2));
    assert!(text(&typo.stderr).contains("did you mean \"trustDomain\"?"), "{}", text(&typo.stderr));
}

#[test]
fn commands_that_need_a_cluster_say_what_to_do_without_one() {
    for command in [&["list"][..], &["stat"], &["tap"], &["identity", "--all"]] {
        let output = meshctl(command, "");
        assert_eq!(output.status.code(), Some(3), "{command:?}");
        assert!(text(&output.stderr).contains("--playground"), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_meshctl")).arg("install").stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn usage_errors_exit_with_two() {
    for args in [&["tap", "--status", "9xx"][..], &["stat", "gizmo/web"], &["nonsense"], &["identity"]] {
        assert_eq!(meshctl(args, "").status.code(), Some(2), "{args:?}");
    }
}
