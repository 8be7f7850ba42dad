//! Starts that are seen on a terminal, that are interrupted, and that cannot be: each says one line with what to do, and
//! leaves nothing.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    recovery::{nothing_is_left, until},
    support::{Playground, parent, text},
    terminal::Terminal,
};

#[test]
fn a_start_shows_its_stages_and_ctrl_c_ends_it_with_nothing_left_on_the_screen_or_the_machine() {
    let playground = Playground::new();
    let mut terminal = Terminal::start(playground.command("playground"), 80);
    terminal.until("Ctrl-C ends it");
    let inside = playground.inside();
    kill(Pid::from_raw(terminal.pid()), Signal::SIGINT).unwrap();
    let seen = terminal.end();
    assert_eq!(seen.exit, 0, "{}", seen.text);
    assert!(seen.broken.is_empty() && seen.colored, "{:#?}", seen.broken);
    // What was under way has become what is done.
    assert!(seen.written.contains("   control plane…"), "{:?}", seen.written);
    let program = env!("CARGO_BIN_EXE_meshctl");
    let text = seen.text.replace(program, "meshctl");
    let ready = text.lines().position(|line| line.starts_with("ready in ")).unwrap();
    let lines: Vec<&str> = text.lines().enumerate().filter(|(line, _)| *line != ready).map(|(_, line)| line).collect();
    insta::assert_snapshot!("start", lines.join("\n"));
    nothing_is_left(&playground, &inside);
}

#[test]
fn a_dumb_terminal_and_a_pipe_get_plain_lines() {
    for variable in [("TERM", "dumb"), ("NO_COLOR", "1")] {
        let playground = Playground::new();
        let mut command = playground.command("playground --detach");
        command.envs([variable]);
        let seen = Terminal::start(command, 80).end();
        assert_eq!(seen.exit, 0, "{}", seen.text);
        assert!(!seen.colored && !seen.written.contains("\x1b[3"), "{:?}", seen.written);
        assert!(variable.0 != "TERM" || !seen.written.contains('\x1b'), "{:?}", seen.written);
        assert!(seen.text.contains("control plane: mesh-controller, mesh-injector"), "{}", seen.text);
    }
}

#[test]
fn a_start_that_is_interrupted_half_way_leaves_nothing() {
    // Before anything is there, while the control plane starts, and while the pods do.
    for stage in ["   network", "   control plane…", "   pods…"] {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let playground = Playground::new();
            let mut terminal = Terminal::start(playground.command("playground"), 80);
            terminal.until(stage);
            let keeper = children(terminal.pid());
            kill(Pid::from_raw(terminal.pid()), signal).unwrap();
            let seen = terminal.end();
            assert_eq!(seen.exit, 130, "{stage}: {}", seen.text);
            assert!(seen.text.ends_with("stopped; nothing is left\n"), "{stage}: {}", seen.text);
            until("no file is left", || fs::read_dir(playground.runtime()).unwrap().count() == 0);
            until("no process is left", || keeper.iter().all(|keeper| parent(*keeper).is_none()));
        }
    }
}

#[test]
fn what_a_killed_one_left_is_removed_by_stop() {
    let playground = Playground::new();
    playground.ok("playground --detach");
    let inside = playground.inside();
    let keeper = parent(playground.supervisor()).unwrap();
    kill(keeper, Signal::SIGKILL).unwrap();
    until("all processes have ended", || inside.processes().is_empty());
    let output = playground.meshctl("playground stop");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("none was running; removed "), "{}", text(&output.stderr));
    nothing_is_left(&playground, &inside);
    assert_eq!(playground.meshctl("playground stop").status.code(), Some(3));
}

#[test]
fn a_machine_that_cannot_run_it_is_told_why_and_what_to_do() {
    // In a user namespace of our own the limits and mounts are ours to set, as for any user.
    for (shell, parts) in [
        (
            "echo 0 > /proc/sys/user/max_user_namespaces",
            &["create a user namespace", "sudo sysctl user.max_user_namespaces"][..],
        ),
        (
            "mount -t tmpfs -o nr_inodes=1,mode=700 none $XDG_RUNTIME_DIR",
            &["create ", "No space left on device", "fix: "],
        ),
        ("mount -t tmpfs -o ro,mode=700 none $XDG_RUNTIME_DIR", &["create ", "Read-only file system", "fix: "]),
    ] {
        let playground = Playground::new();
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
            .arg(format!("{shell} && exec \"$0\" playground --detach"))
            .arg(env!("CARGO_BIN_EXE_meshctl"))
            .env("XDG_RUNTIME_DIR", playground.runtime())
            .output()
            .unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{shell}: {error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{shell}: {error}");
        assert_eq!(error.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{shell}: {error}");
        assert_eq!(fs::read_dir(playground.runtime()).unwrap().count(), 0, "{shell}");
    }
    let playground = Playground::new();
    fs::set_permissions(playground.runtime(), fs::Permissions::from_mode(0o777)).unwrap();
    let output = playground.meshctl("playground --detach");
    assert!(text(&output.stderr).contains("chmod 700"), "{}", text(&output.stderr));
}

/// Who a process started.
fn children(process: i32) -> Vec<Pid> {
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.map(Pid::from_raw).filter(|pid| parent(*pid) == Some(Pid::from_raw(process))).collect()
}
