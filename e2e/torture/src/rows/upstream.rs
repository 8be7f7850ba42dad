//! B15, B16: servers that keep to no rule, and endpoints that are none.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use mesh_netlab::Addresses;
use mesh_testbed::{
    apps::HTTP_PORT,
    hostile::{self, ATTACKS},
    manifests,
    talk::get,
    until,
};

use crate::{
    invariants::{self, Spent},
    load::Place as _,
    oracle::backend::HTTP,
    outcome::Findings,
    process,
    rig::{Plan, Rig},
    row::Stage,
};

/// Cluster IP of the Service that leads to the hostile server.
const EVIL: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 66);
/// Last number of the server's address.
const SERVER: u8 = 202;

pub(crate) fn hostile(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = Rig::start(&Plan::new(stage))?;
    let server = rig.mesh.outsider("evil", SERVER)?;
    let listener = server.run(|| TcpListener::bind((server.addresses().v4, HTTP_PORT)))??;
    rig.mesh.control.apply("evil.yaml", &manifests::service("evil", ("app", "evil"), EVIL))?;
    rig.mesh.control.apply("evil-endpoints.yaml", &manifests::endpoints("evil", server.addresses().v4))?;
    let (now, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let evil = (EVIL, 80).into();
    let ask = || rig.client.run(|| get(evil, "/", &[]))?;
    let mut unexpected = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| hostile::serve(&listener, &now, &over));
        let result = (|| {
            until("the hostile server is an endpoint", || (ask().ok()?.status == 502).then_some(()))?;
            invariants::around(&rig, &rig.client, &Rig::victim(), findings, || {
                let begun = server.run(process::own_cpu)?;
                for (number, attack) in ATTACKS.iter().enumerate() {
                    now.store(number, Ordering::Relaxed);
                    for _ in 0..stage.pick(3, 1) {
                        if attack.http2 {
                            rig.client.enter(|| hostile::ask_http2(evil))??;
                            continue;
                        }
                        let answer = ask()?;
                        if (answer.status, answer.header(mesh_proto::names::HEADER_ERROR)) != (502, attack.code) {
                            unexpected.push(format!("{}: {}", attack.name, answer.status));
                        }
                    }
                }
                // The server writes as fast as it can for as long as it is listened to: it spends what it can.
                let cpu = begun + Duration::from_secs(ATTACKS.len() as u64);
                Ok(((), Spent { cpu, bytes: 16 << 20 }))
            })
        })();
        over.store(true, Ordering::Relaxed);
        // So that the listener looks up.
        let _ = server.run(|| TcpStream::connect((server.addresses().v4, HTTP_PORT)));
        result
    })?;
    findings.told("attacks", ATTACKS.len() as f64);
    findings.none(format!("answers other than 502 with the code {unexpected:?}"), unexpected.len());
    Ok(())
}

pub(crate) fn no_endpoints(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = Rig::start(&Plan::new(stage))?;
    let server = rig.server();
    let count = stage.pick(10_000_usize, 1000);
    let addresses = [
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "169.254.169.254",
        "10.96.0.1",
        "::1",
        "not-an-address",
    ];
    let slice = |name: &str, addresses: &str, port: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: {}, labels: \
             {{kubernetes.io/service-name: evil}}}}\naddressType: IPv4\nports: [{{name: http, port: {port}, protocol: TCP}}]\n\
             endpoints:\n{addresses}",
            manifests::NAMESPACE
        )
    };
    let one = |ip: &str| format!("  - {{addresses: [{ip:?}], conditions: {{ready: true}}}}\n");
    let many: String =
        (0..count).map(|nth| one(&format!("10.{}.{}.{}", 150 + nth / 65_536, nth / 256 % 256, nth % 256))).collect();
    rig.mesh.control.apply(
        "evil.yaml",
        &manifests::service_of_ports(
            "evil",
            ("app", "evil"),
            Addresses { v4: EVIL, v6: None },
            [(80, Some("http"))].into_iter(),
        ),
    )?;
    let evil = (EVIL, 80).into();
    let mut reached = 0;
    let heard = invariants::around(&rig, &rig.client, &Rig::victim(), findings, || {
        let mut heard = Vec::new();
        let ports = [
            HTTP.to_string(),
            "0".into(),
            "65536".into(),
            mesh_proto::names::PORT_PROXY_ADMIN.to_string(),
            mesh_proto::names::PORT_OUTBOUND.to_string(),
        ];
        for (nth, ip) in addresses.iter().enumerate() {
            let port = &ports[nth % ports.len()];
            rig.mesh.control.apply("evil-endpoints.yaml", &slice("evil-1", &one(ip), port))?;
            thread::sleep(Duration::from_millis(200));
            for path in ["/", "/config"] {
                let answer = rig.client.run(|| get(evil, path, &[]))?;
                if let Ok(answer) = &answer {
                    reached += usize::from(answer.body.contains("trustBundle") || answer.body.contains("apiVersion"));
                }
                heard.push(answer.map_or(0, |answer| answer.status));
            }
        }
        rig.mesh.control.apply("evil-endpoints.yaml", &slice("evil-1", &many, "80"))?;
        thread::sleep(Duration::from_secs(1));
        heard.push(rig.client.run(|| get(evil, "/", &[]))?.map_or(0, |answer| answer.status));
        Ok((heard, Spent { cpu: Duration::from_secs(1), bytes: many.len() as u64 }))
    })?;
    findings.told("endpoints that are none", (addresses.len() + count) as f64);
    findings.never("answers of the proxy's own pages", reached);
    findings.none(format!("answered with success {heard:?}"), heard.iter().filter(|status| **status == 200).count());
    anyhow::ensure!(server.is_ready(), "the server's proxy is not ready any more");
    Ok(())
}
