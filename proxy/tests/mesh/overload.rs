//! What a proxy may hold is bounded: past that it refuses what is new, says so, keeps what it has, and recovers.

use std::{
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use mesh_proto::names;
use mesh_testbed::{
    Member,
    member::Pod,
    talk::{Answer, Lines, get},
    until,
};

use crate::{WEB_A, WEB_B, http, lines, mesh, settings};

fn is_overloaded(answer: &Answer) -> bool {
    answer.status == 503 && answer.header(names::HEADER_ERROR) == Some("overloaded")
}

fn refused(member: &Member, direction: &str, limit: &str) -> anyhow::Result<u64> {
    Ok(member.count("overloaded_total", &[&format!("direction=\"{direction}\""), &format!("limit=\"{limit}\"")])?)
}

pub(crate) fn connections_are_bounded_over_all_workers_and_neither_direction_starves_the_other() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let environment = [(names::ENV_MAX_CONNECTIONS, "8"), (names::ENV_WORKERS, "2")];
    let full = mesh.member(&Pod { environment: &environment, ..Pod::new("a", "web", 1) })?;
    let other = mesh.member(&Pod::new("b", "web", 2))?;
    until("a knows the way to b", || full.run(|| Lines::connect(lines(WEB_B))).ok()?.ok())?;
    until("nothing is open", || (full.gauge("proxy_connections", &[]).ok()? == 0.0).then_some(()))?;

    let mut held = full.run(|| (0..8).map_while(|_| Lines::connect(lines(WEB_B)).ok()).collect::<Vec<_>>())?;
    assert_eq!(held.len(), 6, "three quarters of 8 for one direction");
    let answer = full.run(|| get(http(WEB_B), "/", &[]))??;
    assert!(is_overloaded(&answer), "HTTP is told why: {answer:?}");
    assert!(refused(&full, "outbound", "connections")? >= 2);
    assert!(full.count("mesh_error_total", &[r#"code="overloaded""#])? >= 2);
    assert_eq!(other.run(|| get(http(WEB_A), "/", &[]))??.body, "a", "the other direction has its own share");
    for (line, _) in &mut held {
        assert_eq!(line.ask("still there")?, "still there", "what is open stays");
    }

    drop(held);
    until("there is room again", || {
        let answer = full.run(|| get(http(WEB_B), "/", &[])).ok()?.ok()?;
        (answer.body == "b").then_some(())
    })
}

pub(crate) fn connections_are_refused_when_descriptors_run_short() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let full = mesh.member(&Pod { descriptors: Some(96), ..Pod::new("a", "web", 1) })?;
    let other = mesh.member(&Pod::new("b", "web", 2))?;
    assert!((full.gauge("process_max_fds", &[])? - 96.0).abs() < 0.5);
    let (mut open, _) = until("b has a way to a", || other.run(|| Lines::connect(lines(WEB_A))).ok()?.ok())?;

    // Each takes one descriptor of the proxy, and none of its client connections.
    let admin = (Ipv4Addr::LOCALHOST, names::PORT_PROXY_ADMIN);
    let held = full.run(|| (0..60).map(|_| TcpStream::connect(admin)).collect::<Result<Vec<_>, _>>())??;
    until("a refuses its application", || full.run(|| get(http(WEB_B), "/", &[])).ok()?.ok().filter(is_overloaded))?;
    assert!(refused(&full, "outbound", "descriptors")? >= 1);
    until("a refuses others", || {
        let _ = other.run(|| get(http(WEB_A), "/", &[]));
        refused(&full, "inbound", "descriptors").ok().filter(|refused| *refused > 0)
    })?;
    assert_eq!(open.ask("still there")?, "still there", "what is open stays");
    assert!(full.is_ready());

    drop(held);
    until("it lets in again", || {
        let answer = other.run(|| get(http(WEB_A), "/", &[])).ok()?.ok()?;
        (answer.body == "a").then_some(())
    })
}

pub(crate) fn connections_and_requests_are_refused_when_memory_runs_short() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    // No process is that small.
    let environment = [(names::ENV_MEMORY_LIMIT, "65536")];
    let full = mesh.member(&Pod { environment: &environment, ..Pod::new("a", "web", 1) })?;
    let _other = mesh.member(&Pod::new("b", "web", 2))?;
    until("a refuses its application", || full.run(|| get(http(WEB_B), "/", &[])).ok()?.ok().filter(is_overloaded))?;
    assert!(refused(&full, "outbound", "memory")? >= 1);
    assert!(full.is_ready(), "it goes on");
    assert!(full.log().contains("new connections are refused"), "and says so:\n{}", full.log());
    Ok(())
}

/// Ports that a stranger tries: each would have five series.
const TRIED: u16 = 300;
/// Most series of a proxy's page.
const PAGE: usize = 1000;

pub(crate) fn a_scan_of_ports_does_not_grow_the_page_of_metrics_and_requests_are_still_counted() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let server = mesh.member(&Pod::new("a", "web", 1))?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    let stranger = mesh.outsider("stranger", 9)?;
    let ip = server.addresses().v4;
    let tried = stranger.run(|| {
        let each = (1..=TRIED).map(|port| TcpStream::connect_timeout(&(ip, port).into(), Duration::from_secs(30)));
        each.flatten().count()
    })?;
    assert_eq!(tried, usize::from(TRIED), "the proxy takes them all, to see what they are");
    let folded = || server.count("metrics_folded_total", &[]);
    until("the rest is counted as other", || (folded().ok()? > 0).then_some(()))?;

    for _ in 0..3 {
        assert_eq!(client.run(|| get(http(WEB_A), "/", &[]))??.status, 200);
    }
    until("requests are counted", || (server.count("request_total", &[]).ok()? >= 3).then_some(()))?;
    let page = server.admin("/metrics")?.body;
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < PAGE, "{series}:\n{page}");
    Ok(())
}
