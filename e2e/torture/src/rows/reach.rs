//! A7, A12: where nobody may get to, and how nobody may get past the reading of requests.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use mesh_proto::names;
use mesh_testbed::{frames, manifests, until};
use tokio::time::Instant;

use crate::{
    invariants::{self, Spent},
    load::Place as _,
    outcome::Findings,
    process,
    raw::{self, Seen, Witness},
    rig::{Plan, Rig, UNDECLARED, WITNESS},
    row::Stage,
};

const PATIENCE: Duration = Duration::from_secs(2);
/// Where an application listens on loopback alone.
const HIDDEN: u16 = 9100;

fn hidden(_: &Seen) -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nREACHED".to_vec()
}

/// Requests for what is the pod's own business.
fn private_requests() -> Vec<Vec<u8>> {
    let pages = [
        "/config",
        "/connections",
        "/endpoints",
        "/log-level",
        "/shutdown",
        "/env.json",
        "/config_dump",
        "/debug/pprof/",
    ];
    let hosts = ["localhost", "127.0.0.1:4191", "web", "evil.test"];
    let mut all: Vec<_> = pages
        .iter()
        .flat_map(|page| {
            hosts.iter().map(move |host| format!("GET {page} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
        })
        .collect();
    for page in ["/log-level", "/drain", "/shutdown"] {
        let meant = format!("{}: {}\r\n", names::HEADER_ADMIN, names::ADMIN_MEANT);
        all.push(format!(
            "POST {page} HTTP/1.1\r\nhost: localhost\r\n{meant}connection: close\r\ncontent-length: 5\r\n\r\ntrace"
        ));
    }
    for target in [
        "http://127.0.0.1:9100/",
        "http://127.0.0.1:4191/config",
        "http://localhost:4191/config",
        "http://[::1]:4191/config",
    ] {
        all.push(format!("GET {target} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"));
        let authority = target.trim_start_matches("http://").split('/').next().unwrap_or_default();
        all.push(format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n"));
        all.push(format!("GET /config HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n"));
    }
    all.into_iter().map(String::into_bytes).collect()
}

pub(crate) fn forbidden_places(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = Rig::start(&Plan::new(stage))?;
    let server = rig.server();
    let loopback = Witness::start(server, (Ipv4Addr::LOCALHOST, HIDDEN).into(), hidden)?;
    // An application that is asked for what is not there says so; what is looked for is the proxy's own word.
    let app = Witness::start(server, rig.direct(WITNESS), |_| {
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()
    })?;
    let ip = server.addresses().v4;
    let ports = [HIDDEN, names::PORT_INBOUND, names::PORT_OUTBOUND, names::PORT_PROXY_ADMIN, WITNESS];
    let mut targets: Vec<SocketAddr> = ports.iter().map(|port| (ip, *port).into()).collect();
    let mapped = ip.to_ipv6_mapped();
    targets.extend(ports.iter().map(|port| SocketAddr::from((mapped, *port))));
    targets.extend([HIDDEN, WITNESS].map(Rig::web));
    let nowhere = [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::BROADCAST];
    targets.extend(nowhere.map(|ip| SocketAddr::from((ip, 80))));
    if let Some(ip) = server.addresses().v6 {
        targets.extend(ports.iter().map(|port| SocketAddr::from((ip, *port))));
    }
    let requests = private_requests();
    let short = Duration::from_millis(if stage.full { 400 } else { 200 });
    let probe = || {
        let mut told = Vec::new();
        for target in &targets {
            for (nth, request) in requests.iter().enumerate() {
                // A place that refuses to be connected to needs no second try.
                let Ok(heard) = raw::exchange(*target, request, short) else { break };
                let text = String::from_utf8_lossy(&heard);
                let private = ["REACHED", "trustBundle", "apiVersion", names::ENV_CONTROLLER_ADDR, "latencyMs"];
                if private.iter().any(|word| text.contains(word)) {
                    told.push(format!("{target} request {nth}"));
                }
                if heard.is_empty() && target.port() != WITNESS {
                    break;
                }
            }
        }
        (told, process::own_cpu())
    };
    let tried = targets.len() * requests.len();
    let told = invariants::around(&rig, server, &Rig::victim(), findings, || {
        let (outside, cpu) = rig.outsider.enter(probe)?;
        let (meshed, cpu_) = rig.client.enter(probe)?;
        let bytes = requests.iter().map(Vec::len).sum::<usize>() * targets.len() * 2;
        Ok(([outside, meshed].concat(), Spent { cpu: cpu + cpu_, bytes: bytes as u64 }))
    })?;
    findings.told("places times requests, at most", 2.0 * tried as f64);
    let example = told.first().map(|place| format!(" ({place})")).unwrap_or_default();
    findings.never(&format!("answers with what is private{example}"), told.len());
    findings.never("bytes at the application on loopback", loopback.bytes());
    findings.told("requests at the application that is meant", app.seen().len() as f64);
    // A loop would go on by itself.
    let before = process::cpu(server.pid())?;
    thread::sleep(Duration::from_secs(2));
    let idle = process::cpu(server.pid())?.saturating_sub(before).as_secs_f64() / 2.0;
    findings.timed_at_most("% of a core afterwards", 100.0 * idle, 5.0);
    Ok(())
}

pub(crate) fn past_detection(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = Rig::start(&Plan::new(stage))?;
    let ok = |_: &Seen| b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec();
    let declared = Witness::start(rig.server(), rig.direct(WITNESS), ok)?;
    let undeclared = Witness::start(rig.server(), rig.direct(UNDECLARED), ok)?;
    // A rule about requests on the port that declares nothing: there, too, every request has to be read.
    rig.mesh.control.apply("route.yaml", &route(UNDECLARED))?;
    let plain = "GET /plain HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
    until("the route is in force", || {
        let asked = rig.client.run(|| raw::exchange(Rig::web(UNDECLARED), plain.as_bytes(), PATIENCE)).ok()?.ok()?;
        (raw::statuses(&asked) == [404] || raw::statuses(&asked) == [500]).then_some(())
    })?;
    let before = undeclared.bytes();
    let hello = [&[22, 3, 1, 0, 4, 1, 0, 0, 0][..], &[0; 32]].concat();
    let request = b"GET /plain HTTP/1.1\r\nhost: web\r\n\r\n";
    let h2 = [frames::opening(), frames::frame(frames::HEADERS, 5, 1, b"\x82\x86\x84\x41\x03web")].concat();
    let attempts: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("silence, then HTTP", vec![], request.to_vec()),
        ("P, a pause, then POST", b"P".to_vec(), b"OST /plain HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("P, a pause, then nothing of HTTP", b"P".to_vec(), b"ING\r\n".to_vec()),
        ("half a preface", b"PRI * HTTP/2".to_vec(), b"garbage".to_vec()),
        ("bytes, then HTTP", b"\0\x01\x02\r\n".to_vec(), request.to_vec()),
        ("an empty line, then HTTP", b"\r\n\r\n".to_vec(), request.to_vec()),
        ("a lower-case method", b"get ".to_vec(), b"/plain HTTP/1.1\r\nhost: web\r\n\r\n".to_vec()),
        ("HTTP/0.9", b"GET /plain\r\n".to_vec(), vec![]),
        ("a request line without end", b"GET /plain".to_vec(), vec![]),
        ("TLS inside, then HTTP", hello.clone(), request.to_vec()),
        ("TLS inside", hello, vec![]),
        ("h2 to a port of HTTP/1", h2, vec![]),
        ("a banner", b"SSH-2.0-x\r\n".to_vec(), request.to_vec()),
        ("a change to h2c", b"GET /plain HTTP/1.1\r\nhost: web\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n".to_vec(), frames::opening()),
    ];
    // Longer than a proxy waits for the rest of what shows the protocol.
    let pause = Duration::from_millis(stage.pick(12_000, 1500));
    let late = Instant::now();
    let attack = |address: SocketAddr| {
        thread::scope(|scope| {
            for (_, first, second) in &attempts {
                scope.spawn(|| rig.client.enter(|| twice(address, first, pause, second)));
            }
        });
    };
    invariants::around(&rig, &rig.client, &Rig::victim(), findings, || {
        attack(Rig::web(UNDECLARED));
        attack(Rig::web(WITNESS));
        thread::scope(|scope| {
            for (_, first, second) in &attempts {
                scope.spawn(|| rig.outsider.enter(|| twice(rig.direct(WITNESS), first, pause, second)));
            }
        });
        Ok(((), Spent { cpu: process::own_cpu(), bytes: 10_000 }))
    })?;
    findings.told("attempts", 3.0 * attempts.len() as f64);
    findings.told("s", late.elapsed().as_secs_f64());
    // The route sends every request nowhere: whatever arrived came past it.
    findings.never("bytes past the rule about requests", undeclared.bytes() - before);
    // What speaks HTTP/2 is read, too, and carried as HTTP/2; this application does not speak it.
    let odd: Vec<_> = declared.odd().into_iter().filter(|odd| !odd.contains("PRI * HTTP/2.0")).collect();
    let example = odd.first().map(|odd| format!(" ({odd})")).unwrap_or_default();
    findings.never(&format!("streams on a port of HTTP that were no requests{example}"), odd.len());
    findings.told("requests that were read, and carried", declared.seen().len() as f64);
    Ok(())
}

/// Says one thing, waits, says another.
fn twice(address: SocketAddr, first: &[u8], pause: Duration, second: &[u8]) -> std::io::Result<()> {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(first)?;
    thread::sleep(pause);
    socket.write_all(second)?;
    let _ = socket.read(&mut [0; 4096]);
    Ok(())
}

/// Every request of the port to a Service that has no endpoints.
fn route(port: u16) -> String {
    let namespace = manifests::NAMESPACE;
    format!(
        r#"apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: rule, namespace: {namespace}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: web, port: {port}}}]
  rules:
    - matches: [{{headers: [{{name: x-allowed, value: "yes"}}]}}]
      backendRefs: [{{name: web, port: {port}}}]
"#
    )
}
