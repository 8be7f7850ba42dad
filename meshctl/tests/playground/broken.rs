//! A playground of which a part hangs, on terminals and through a pipe: every command answers within its deadline with what
//! it knows, ends with the code of the contract, and says what to do.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use tokio::time::Instant;

use crate::{
    mask,
    support::{Playground, text},
    terminal::Terminal,
};

/// The longest that one question may take, for this test.
const LIMIT: Duration = Duration::from_secs(4);
/// A command asks twice at most; the rest is for a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn every_command_answers_while_a_proxy_hangs() {
    let playground = Playground::new();
    playground.ok("playground --detach");
    whole(&playground);
    shown(&playground, "tap", "tap deploy/orders --playground --from deploy/web-v1 --status 201 -c 1", mask::tap);
    shown(&playground, "status", "playground status", mask::status);
    without_a_controller(&playground);

    // Not ended, so that nothing starts it again: it accepts connections and says nothing.
    let hangs = playground.inside().proxy_of("web");
    kill(hangs, Signal::SIGSTOP).unwrap();
    // Command, exit code, what is known all the same, and what is said of the rest.
    for (line, exit, known, said) in [
        ("list", 0, "deployment/web", ""),
        ("version", 0, "proxies      0.1.0 (6 pods)", ""),
        ("stat --window 1s", 4, "deployment/web-v1", "1 of 6 proxies did not answer"),
        ("stat deploy/web --window 1s", 4, "unknown", "did not answer within 4s"),
        ("identity --all", 4, "sa/stock", "1 of 6 proxies did not answer"),
        ("identity deploy/web", 4, "", "did not answer within 4s"),
        ("describe deploy/web", 0, "does not say what is in force", ""),
        ("connections", 4, "shop/web:80", "1 of 6 proxies did not answer"),
        ("diagnostics endpoints", 4, "shop/web:80", "1 of 6 proxies did not answer"),
        ("diagnostics proxy-metrics", 4, "# pod shop/stock", "1 of 6 proxies did not answer"),
        ("diagnostics config deploy/web", 4, "", "did not answer within 4s"),
        ("check", 1, "[proxies-answer]", ""),
        ("tap --to deploy/web-v1 -c 1", 0, "shop/web-v1", ""),
        ("tap deploy/web", 4, "", "the proxy did not answer within 4s"),
    ] {
        let asked = Instant::now();
        let output = playground.meshctl(&format!("{line} --playground --request-timeout {}s", LIMIT.as_secs()));
        let (data, talk) = (text(&output.stdout), text(&output.stderr));
        assert!(asked.elapsed() < DEADLINE, "{line} took {:?}", asked.elapsed());
        assert_eq!(output.status.code(), Some(exit), "{line}: {data}\n{talk}");
        assert!(data.contains(known) && talk.contains(said), "{line}: {data}\n{talk}");
        if exit != 0 {
            assert!((data + &talk).contains("fix: "), "{line}: {talk}");
        }
        let errors = talk.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, usize::from(!said.is_empty()), "{line}: {talk}");
    }
    let check = playground.meshctl("check --playground --request-timeout 4s -o short");
    assert!(text(&check.stdout).contains("fix: meshctl playground logs web-"), "{}", text(&check.stdout));
    kill(hangs, Signal::SIGCONT).unwrap();

    playground.ok("check --playground --wait -o short");
    playground.ok("playground stop");
}

/// What a person and a program see of it, with what differs from run to run masked.
fn shown(playground: &Playground, name: &str, line: &str, mask: fn(&str) -> String) {
    let mut all = format!("$ meshctl {line}\n");
    for columns in [80, 200] {
        let seen = Terminal::start(playground.command(line), columns).end();
        all += &format!("--- {columns} columns, exit {}\n{}\n", seen.exit, mask(&seen.text));
    }
    let output = playground.meshctl(line);
    let (data, talk) = (mask(&text(&output.stdout)), mask(&text(&output.stderr)));
    all += &format!("--- a pipe, exit {}\n{data}\n--- talk\n{talk}", output.status.code().unwrap());
    insta::assert_snapshot!(name, all);
}

/// What is asked of proxies needs no controller: it hangs, until its liveness probe ends it, and nobody notices.
fn without_a_controller(playground: &Playground) {
    let inside = playground.inside();
    for line in [
        "list",
        "tap -c 1",
        "stat --window 1s",
        "identity --all",
        "connections",
        "diagnostics endpoints",
        "diagnostics proxy-metrics deploy/web-v1",
        "diagnostics config deploy/web-v1",
    ] {
        // One that was started again in between, too.
        inside.signal("mesh-controller run", Signal::SIGSTOP);
        let output = playground.meshctl(&format!("{line} --playground --request-timeout 60s"));
        assert!(output.status.success() && !output.stdout.is_empty(), "{line}: {}", text(&output.stderr));
    }
    inside.signal("mesh-controller run", Signal::SIGCONT);
    playground.ok("check --playground --wait --timeout 5m -o short");
}

/// Nothing wraps on a terminal, and colours are only there.
fn whole(playground: &Playground) {
    for line in [
        "list --playground",
        "stat --playground --window 2s",
        "tap --playground -c 20",
        "check --playground --wait",
        "identity --all --playground",
        "connections --playground",
        "describe ns/shop --playground",
        "diagnostics endpoints --playground",
        "version --playground",
        "playground status",
    ] {
        for columns in [80, 200] {
            let seen = Terminal::start(playground.command(line), columns).end();
            assert_eq!(seen.exit, 0, "{line}: {}", seen.text);
            assert!(seen.broken.is_empty(), "{line} on {columns} columns: {:#?}", seen.broken);
            let first = seen.text.lines().next().unwrap();
            assert!(columns == 80 || !seen.text.contains("no room for"), "{line}: {first}");
        }
        let output = playground.command(line).env("TERM", "xterm").output().unwrap();
        assert!(![output.stdout, output.stderr].concat().contains(&0x1b), "{line}");
    }
}
