//! The end of the real proxy: signals, the command of its preStop hook, the deadline.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use mesh_proto::{
    admin::{DRAINED, LET_GO},
    names,
};
use mesh_testbed::{
    Member,
    member::Pod,
    talk::{Http, Lines, get},
    until,
};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::{Duration, Instant};

use crate::{WEB, http, lines, mesh, settings};

/// Clients that ask all the time.
const CLIENTS: usize = 4;
/// Requests before and after the drain, at least.
const ENOUGH: u64 = 200;

fn draining(member: &Member) -> anyhow::Result<()> {
    until("the drain has begun", || {
        let page: serde_json::Value = serde_json::from_str(&member.admin("/config").ok()?.body).ok()?;
        (page["draining"] == true).then_some(())
    })
}

/// Asks for as long as it may; a connection that is to be closed is replaced by another one.
fn ask_on(client: &Member, stop: &AtomicBool, asked: &AtomicU64) -> io::Result<()> {
    client.run(|| {
        let mut connection = Http::connect(http(WEB))?;
        while !stop.load(Ordering::Relaxed) {
            let answer = connection.get("/", &[])?;
            if answer.status != 200 {
                return Err(io::Error::other(format!("{answer:?}")));
            }
            asked.fetch_add(1, Ordering::Relaxed);
            if answer.header("connection").is_some_and(|value| value == "close") {
                connection = Http::connect(http(WEB))?;
            }
        }
        Ok(())
    })?
}

pub(crate) fn no_request_is_lost_when_a_pod_under_load_ends() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let mut ending = mesh.member(&Pod::new("a", "web", 1))?;
    let _staying = mesh.member(&Pod::new("b", "web", 2))?;
    let client = mesh.member(&Pod::new("client", "client", 3))?;
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let enough =
        |what: &str, since: u64| until(what, || (asked.load(Ordering::Relaxed) >= since + ENOUGH).then_some(()));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| ask_on(&client, &stop, &asked))).collect();
        let mut end = || -> anyhow::Result<()> {
            enough("requests flow", 0)?;
            // As the kubelet and the endpoints' controller do it: the hooks of sidecar and application and the change of the
            // endpoints at once, then the application would end, and the sidecar's signal is last.
            let said = std::thread::scope(|scope| {
                let hook = scope.spawn(|| ending.admin(&format!("{DRAINED}?wait=60")));
                ending.drain()?;
                enough("requests flow while it drains", asked.load(Ordering::Relaxed))?;
                let gone = Pod::new("a", "web", 1).manifest(false);
                mesh.control.apply("pod-a.yaml", &gone)?;
                anyhow::Ok(hook.join().expect("it does not panic")?)
            })?;
            assert_eq!((said.status, said.body.as_str()), (200, LET_GO));
            let served = ending.count("request_total", &["direction=\"inbound\""])?;
            enough("requests flow to the other", asked.load(Ordering::Relaxed))?;
            assert_eq!(
                ending.count("request_total", &["direction=\"inbound\""])?,
                served,
                "the application could have ended"
            );
            ending.signal(Signal::SIGTERM)?;
            anyhow::ensure!(ending.ended()?.success(), "{}", ending.log());
            enough("requests flow without it", asked.load(Ordering::Relaxed))
        };
        let ended = end();
        stop.store(true, Ordering::Relaxed);
        for asking in clients {
            asking.join().expect("a client does not panic")?;
        }
        ended
    })?;
    anyhow::ensure!(!ending.log().contains("cut off"), "{}", ending.log());
    Ok(())
}

pub(crate) fn an_application_waits_for_the_acknowledgements_of_its_clients_for_as_long_as_it_may() -> anyhow::Result<()>
{
    let mesh = mesh(settings())?;
    let ending = mesh.member(&Pod::new("a", "web", 1))?;
    let _staying = mesh.member(&Pod::new("b", "web", 2))?;
    let client = mesh.member(&Pod::new("client", "client", 3))?;
    assert_eq!(client.run(|| get(http(WEB), "/", &[]))??.status, 200);
    let drained = |wait: u8| anyhow::Ok(ending.admin(&format!("{DRAINED}?wait={wait}"))?.body);
    let held = |by: serde_json::Value| {
        until("the controller has said who holds it", || {
            let page: serde_json::Value = serde_json::from_str(&ending.admin("/config").ok()?.body).ok()?;
            (page["holding"] == by).then_some(())
        })
    };
    ending.drain()?;
    held(json!({"offered": true, "clients": 0}))?;
    assert_eq!(drained(2)?, "some clients have not let go\n", "a Service leads here, though nobody comes");
    // Its proxy reads nothing, and so it acknowledges nothing.
    client.signal(Signal::SIGSTOP)?;
    mesh.control.apply("pod-a.yaml", &Pod::new("a", "web", 1).manifest(false))?;
    held(json!({"offered": false, "clients": 1}))?;
    assert_eq!(drained(2)?, "some clients have not let go\n", "one has not acknowledged");
    client.signal(Signal::SIGCONT)?;
    assert_eq!(drained(60)?, LET_GO);
    held(json!({"offered": false, "clients": 0}))?;
    let metrics = mesh.control.admin("/metrics")?.body;
    for line in ["mesh_controller_drains_total 1", "mesh_controller_let_go_seconds_count 1"] {
        anyhow::ensure!(metrics.contains(line), "{line} not in\n{metrics}");
    }
    Ok(())
}

pub(crate) fn where_no_drain_begins_the_hook_of_an_application_is_answered_all_the_same() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let pod = mesh.member(&Pod::new("a", "web", 1))?;
    let begun = Instant::now();
    let said = pod.admin(&format!("{DRAINED}?wait=3600"))?;
    assert_eq!((said.status, said.body.as_str()), (200, "no drain has begun\n"));
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
    Ok(())
}

pub(crate) fn a_draining_proxy_serves_on_until_its_clients_let_go() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let _server = mesh.member(&Pod::new("a", "web", 1))?;
    let mut client = mesh.member(&Pod::new("client", "client", 2))?;
    let mut kept = client.run(|| Http::connect(http(WEB)))??;
    assert_eq!(kept.get("/", &[])?.status, 200);
    let (mut idle, _) = client.run(|| Lines::connect(lines(WEB)))??;
    client.signal(Signal::SIGTERM)?;
    draining(&client)?;

    let answer = kept.get("/", &[]);
    // Idle for longer than a drain leaves it, on a slow machine: then it is closed, and not broken.
    if let Ok(answer) = answer {
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    let fresh = client.run(|| get(http(WEB), "/", &[]))??;
    assert_eq!((fresh.status, fresh.header("connection")), (200, Some("close")), "whoever comes now is served, too");
    assert_eq!(idle.ask("still")?, "still");
    assert_eq!(client.admin("/live")?.status, 200);
    drop(idle);
    anyhow::ensure!(client.ended()?.success(), "{}", client.log());
    Ok(())
}

pub(crate) fn at_the_deadline_and_at_a_second_signal_what_is_left_is_cut() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let _server = mesh.member(&Pod::new("a", "web", 1))?;
    for (name, host, seconds) in [("short", 2, "1"), ("long", 3, "3600")] {
        let environment = [(names::ENV_DRAIN_SECONDS, seconds)];
        let mut client = mesh.member(&Pod { environment: &environment, ..Pod::new(name, "client", host) })?;
        let (mut idle, _) = client.run(|| Lines::connect(lines(WEB)))??;
        let begun = Instant::now();
        // The hook's command begins it; the signal that follows does not begin it anew.
        client.drain()?;
        if name == "long" {
            draining(&client)?;
            assert_eq!(idle.ask("still")?, "still");
        }
        client.signal(Signal::SIGTERM)?;
        if name == "long" {
            assert_eq!(idle.ask("and still")?, "and still");
            until("the first signal is seen", || client.log().contains("draining").then_some(()))?;
            client.signal(Signal::SIGTERM)?;
        }
        anyhow::ensure!(client.ended()?.success(), "{}", client.log());
        assert!(begun.elapsed() < Duration::from_secs(30), "{name}: {:?}", begun.elapsed());
        let cut = idle.ask("too late").expect_err("it was cut");
        assert!(matches!(cut.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{name}: {cut:?}");
    }
    Ok(())
}
