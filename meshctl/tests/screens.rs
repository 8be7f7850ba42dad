//! What a person reads, as it is: help, errors and tables through a pipe, with the mesh up, half broken and gone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn meshctl(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(line.split_whitespace())
        .env("HOME", "/nonexistent")
        .env("XDG_RUNTIME_DIR", "/nonexistent")
        .env_remove("KUBECONFIG")
        .output()
        .unwrap()
}

/// Exit code, what is data and what is talk.
fn screen(line: &str) -> String {
    let output = meshctl(line);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().unwrap();
    format!("$ meshctl {line}\nexit {code}\n--- stdout\n{}--- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn help_is_read_in_one_glance() {
    // Of all commands docs/commands.md is the snapshot.
    insta::assert_snapshot!("help-check", screen("check -h"));
}

#[test]
fn as_a_plugin_of_kubectl_it_goes_by_that_name() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-mesh");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_meshctl"), &plugin).unwrap();
    let said = |line: &str| {
        let output = Command::new(&plugin).args(line.split(' ')).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(said("list -h").contains("Usage: kubectl mesh list [OPTIONS]"), "{}", said("list -h"));
    assert!(said("describe").contains("Usage: kubectl mesh describe"), "{}", said("describe"));
    assert!(said("version --client").starts_with("meshctl "), "{}", said("version --client"));
}

#[test]
fn errors_say_what_failed_and_what_to_do() {
    let lines = [
        "lst",
        "stat gizmo/web",
        "explain no-endpoint",
        "list --kubeconfig /nonexistent/config",
        "explain mtls -o junit",
        "tap --status 9xx",
        "check -f /nonexistent/web.yaml",
        "inject /nonexistent/web.yaml",
        "install --set trustDomian=example.org",
        "stat --window 0s",
    ];
    insta::assert_snapshot!("errors", lines.map(screen).join("\n"));
}

#[test]
fn pages_are_read_without_a_cluster() {
    let lines =
        ["explain denied", "explain opaque-ports", "explain proxies-current", "help exit-codes", "version --client"];
    insta::assert_snapshot!("pages", lines.map(screen).join("\n"));
}

#[test]
fn nothing_is_coloured_off_a_terminal() {
    for line in ["explain", "check -f /nonexistent", "--help", "nonsense"] {
        let output = meshctl(line);
        assert!(![output.stdout, output.stderr].concat().contains(&0x1b), "{line}");
    }
}
