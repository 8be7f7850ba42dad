//! How soon a change is in force: from the moment a manifest is in its place to the first request that goes the new way, in
//! each of two proxies that ask all the time.

use std::{net::Ipv4Addr, path::Path, sync::mpsc, thread, time::Duration};

use anyhow::Context as _;
use mesh_measure::{Report, Samples};
use mesh_testbed::{
    Member, Mesh, Settings, manifests,
    member::Pod,
    talk::Http,
    wait::{DEADLINE, until},
};
use tokio::time::Instant;

use crate::footprint::of_status;

/// Milliseconds, 99 of 100.
const IN_FORCE: f64 = 200.0;
/// Between two requests of one proxy: what a measurement is too high by, at most.
const PAUSE: Duration = Duration::from_millis(1);
/// Services of a cluster of good size, and pods of each.
const CROWD: (u16, u8) = (1000, 10);
/// Services per file.
const PER_FILE: u16 = 100;
/// MiB of a controller that has read them all.
const CONTROLLER: f64 = 150.0;
/// The Service whose endpoints change.
const BY_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The Service whose route changes.
const BY_ROUTE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 2);

pub(crate) fn measure(proxy: &Path, changes: u32, report: &mut Report) -> anyhow::Result<()> {
    let mesh = Mesh::start(Settings::new(proxy))?;
    let services = [
        ("by-endpoint", ("app", "none"), BY_ENDPOINT),
        ("by-route", ("app", "none"), BY_ROUTE),
        ("web-a", ("pod", "a"), Ipv4Addr::new(10, 96, 0, 3)),
        ("web-b", ("pod", "b"), Ipv4Addr::new(10, 96, 0, 4)),
    ];
    for (name, label, ip) in services {
        mesh.control.apply(&format!("service-{name}.yaml"), &manifests::service(name, label, ip))?;
    }
    let pods = [Pod::new("a", "web", 1), Pod::new("b", "web", 2)];
    let _servers = (mesh.member(&pods[0])?, mesh.member(&pods[1])?);
    let clients = [mesh.member(&Pod::new("one", "client", 3))?, mesh.member(&Pod::new("two", "client", 4))?];

    let endpoints = |to: &str| {
        let ip = pods.iter().find(|pod| pod.name == to).map(Pod::ip).context("no such pod")?;
        mesh.control.apply("endpoints.yaml", &manifests::endpoints("by-endpoint", ip))
    };
    let measured = toggle(&clients, BY_ENDPOINT, changes, endpoints).context("endpoints")?;
    report.latency(
        ["endpoint to in force, median", "endpoint to in force, p99", "endpoint, slowest"],
        &measured,
        IN_FORCE,
    );

    let routes =
        |to: &str| mesh.control.apply("route.yaml", &manifests::route("by-route", &[], &[(&format!("web-{to}"), 1)]));
    let measured = toggle(&clients, BY_ROUTE, changes, routes).context("routes")?;
    report.latency(["route to in force, median", "route to in force, p99", "route, slowest"], &measured, IN_FORCE);

    crowd(&mesh)?;
    let measured = toggle(&clients, BY_ENDPOINT, changes, endpoints).context("endpoints among many")?;
    report.latency(
        ["among 10,000 endpoints, median", "among 10,000 endpoints, p99", "among 10,000 endpoints, slowest"],
        &measured,
        IN_FORCE,
    );
    let controller = mesh.control.pid().context("the controller has ended")?;
    report.promised("controller with them: memory (RSS)", "MiB", of_status(controller, "VmRSS:")?, CONTROLLER, 1);
    Ok(())
}

/// Puts a thousand Services with ten thousand pods beside those that are measured, and waits until they are known.
fn crowd(mesh: &Mesh) -> anyhow::Result<()> {
    let (services, pods) = CROWD;
    for first in (0..services).step_by(PER_FILE.into()) {
        let last = first + PER_FILE;
        let objects: Vec<String> = (first..last).map(|number| manifests::crowd(number, pods)).collect();
        mesh.control.apply(&format!("crowd-{first}.yaml"), &objects.join("---\n"))?;
        until("the crowd is known", || {
            let page: serde_json::Value = serde_json::from_str(&mesh.control.admin("/objects").ok()?.body).ok()?;
            page["objects"]["Pod"].as_u64().filter(|known| *known >= u64::from(last) * u64::from(pods))
        })?;
    }
    Ok(())
}

/// Makes `a` and `b` answer in turns and measures each time how long each proxy takes to follow.
fn toggle(
    clients: &[Member],
    service: Ipv4Addr,
    changes: u32,
    change: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Samples> {
    thread::scope(|scope| {
        let (seen, sightings) = mpsc::channel();
        let mut expect = Vec::new();
        for client in clients {
            let (order, orders) = mpsc::channel::<String>();
            let seen = seen.clone();
            expect.push(order);
            scope.spawn(move || client.run(move || watch(service, &orders, &seen)));
        }
        drop(seen);
        let mut latencies = Vec::new();
        // The first is not measured: it makes the connections.
        for number in 0..=changes {
            let to = if number % 2 == 0 { "a" } else { "b" };
            for order in &expect {
                order.send(to.to_owned()).context("a proxy's requests have ended")?;
            }
            let begun = Instant::now();
            change(to)?;
            for _ in clients {
                let sighting = sightings.recv_timeout(DEADLINE).with_context(|| format!("change {number} to {to}"))?;
                if number > 0 {
                    latencies.push(sighting?.duration_since(begun).as_secs_f64() * 1000.0);
                }
            }
        }
        Samples::new(latencies)
    })
}

/// For each order, asks until the ordered pod answers and reports when that was.
fn watch(service: Ipv4Addr, orders: &mpsc::Receiver<String>, seen: &mpsc::Sender<anyhow::Result<Instant>>) {
    while let Ok(wanted) = orders.recv() {
        // Nobody listens any more where the measurement has failed elsewhere.
        let _ = seen.send(follow(service, &wanted));
    }
}

fn follow(service: Ipv4Addr, wanted: &str) -> anyhow::Result<Instant> {
    let begun = Instant::now();
    let mut connection = Http::connect((service, 80).into())?;
    loop {
        let answer = connection.get("/", &[])?;
        let now = Instant::now();
        if answer.status == 200 && answer.body == wanted {
            return Ok(now);
        }
        anyhow::ensure!(now.duration_since(begun) < DEADLINE, "{answer:?} instead of {wanted}");
        thread::sleep(PAUSE);
    }
}
