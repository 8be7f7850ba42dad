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

const BROKEN: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: \"\", kind: Service, name: web}]
  rules: [{backendRefs: [{name: wbe, port: 80}]}]
";

#[test]
fn check_of_files_has_one_exit_code_whatever_the_form() {
    let unreadable = BROKEN.replace("name: wbe, port: 80", "name: wbe, port: http");
    for form in ["table", "wide", "short", "json", "ndjson", "yaml", "junit"] {
        for (input, arguments, code) in [
            (SHOP, &["--fail-on", "warning"][..], 0),
            (BROKEN, &[], 0),
            (BROKEN, &["--fail-on", "warning"], 5),
            (&unreadable, &[], 1),
        ] {
            let output = meshctl(&[&["check", "-f", "-", "-o", form], arguments].concat(), input);
            assert_eq!(output.status.code(), Some(code), "-o {form}: {}", text(&output.stdout));
            assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "-o {form}: {}", text(&output.stderr));
        }
    }
    let report = meshctl(&["check", "-f", "-"], BROKEN);
    let report = text(&report.stdout);
    assert!(report.contains("standard input:6: HTTPRoute default/web: rules[0].backendRefs[0]"), "{report}");
    assert!(report.contains("fix: ") && report.contains("why: meshctl explain route-backends-exist"), "{report}");
}

#[test]
fn explain_knows_its_names_and_what_was_meant() {
    for name in ["denied", "503", "mtls", "pods-meshed", "restart-needed", "opaque-ports", "exit-codes"] {
        let output = meshctl(&["explain", name], "");
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        assert!(text(&output.stdout).lines().count() <= 30, "{name}");
    }
    let typo = meshctl(&["explain", "no-endpoint"], "");
    assert_eq!(typo.status.code(), Some(6));
    assert!(text(&typo.stderr).contains("did you mean no-endpoints?"), "{}", text(&typo.stderr));
    assert_eq!(meshctl(&["help", "exit-codes"], "").stdout, meshctl(&["explain", "exit-codes"], "").stdout);
}

#[test]
fn completion_is_a_script_for_each_shell_and_answers_it() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = meshctl(&["completion", shell], "");
        assert!(script.status.success() && text(&script.stdout).contains("MESHCTL_COMPLETE"), "{shell}");
    }
    let asked = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["--", "meshctl", "explain", "no-end"])
        .env("MESHCTL_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "2")
        .output()
        .unwrap();
    assert_eq!(text(&asked.stdout).trim(), "no-endpoints", "{}", text(&asked.stderr));
}

#[test]
fn install_prints_the_same_bytes_twice_and_takes_values() {
    let first = meshctl(&["install"], "");
    assert!(first.status.success());
    assert_eq!(text(&first.stderr), "", "a pipe into kubectl is not talked into");
    assert_eq!(first.stdout, meshctl(&["install"], "").stdout);
    let other = meshctl(&["install", "--set", "trustDomain=example.org"], "");
    assert!(text(&other.stdout).contains("--trust-domain=example.org"));
    let typo = meshctl(&["install", "--set", "trustdomain=example.org"], "");
    assert_eq!(typo.status.code(), Some(2));
    assert!(text(&typo.stderr).contains("did you mean \"trustDomain\"?"), "{}", text(&typo.stderr));
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
