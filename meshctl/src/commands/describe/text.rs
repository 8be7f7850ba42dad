//! A description as people read it. Pure.

use super::{Described, InForce, numbers, service::Said};
use crate::{commands::Counts, explain::wrap, printer::table::clean};

/// Of what stands beside a word.
const COLUMN: usize = 13;

/// The Service that was asked about, and all of them, one after the other.
pub(super) fn of(service: Option<&Said>, all: &[Described], width: usize) -> String {
    let workloads = all.iter().map(|one| describe(one, width));
    service.map(|said| of_service(said, width)).into_iter().chain(workloads).collect::<Vec<_>>().join("\n")
}

/// A word and what is said of it, below what was said before.
fn push(out: &mut String, width: usize, word: &str, text: &str) {
    let set = wrap(&clean(text), width, &" ".repeat(COLUMN));
    let text = set.trim_start();
    let column = COLUMN - 2;
    out.push_str(&format!("  {word:<column$}{text}"));
}

fn of_service(said: &Said, width: usize) -> String {
    let mut out = format!("service/{} in namespace {}\n", clean(&said.service), clean(&said.namespace));
    let mut row = |word: &str, text: &str| push(&mut out, width, word, text);
    let workloads = said.workloads.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let of = if workloads.is_empty() { String::new() } else { format!(", of {workloads}") };
    row("pods", &format!("{} of {} ready, {} meshed{of}", said.ready, said.pods, said.meshed));
    for port in &said.ports {
        let protocol = match port.protocol {
            _ if port.udp => "UDP: goes past the mesh, in the clear",
            "detect" => "protocol told from the first bytes",
            protocol => protocol,
        };
        row(&format!("port {}", port.port), &format!("to port {} of the pods; {protocol}", port.target));
    }
    for warning in &said.warnings {
        row("warning", warning);
    }
    out
}

fn describe(one: &Described, width: usize) -> String {
    let mut out = format!("{} in namespace {}\n", clean(&one.workload), clean(&one.namespace));
    let mut row = |word: &str, text: &str| push(&mut out, width, word, text);
    let Counts { pods, ready, meshed, proxy } = &one.counts;
    let proxy = proxy.as_ref().map(|version| format!(", proxy {version}")).unwrap_or_default();
    row("pods", &format!("{ready} of {pods} ready, {meshed} meshed{proxy}"));
    if let Some(why) = &one.not_meshed {
        row("not meshed", &format!("{} ({})", why.text, why.code));
        if let Some(fix) = &why.fix {
            row("", &format!("fix: {fix}"));
        }
    }
    if let Some(said) = &one.in_force {
        in_force(said, &mut row);
    }
    for number in numbers(one) {
        row(&format!("port {number}"), &port(one, number));
    }
    for udp in one.ports.iter().filter(|port| port.udp) {
        row(&format!("port {}", udp.port), "UDP: goes past the mesh, in the clear");
    }
    for (name, value) in &one.settings {
        row("setting", &format!("{name}: {value}"));
    }
    for warning in &one.warnings {
        row("warning", warning);
    }
    out
}

fn in_force(said: &InForce, row: &mut impl FnMut(&str, &str)) {
    if let Some(reason) = &said.unknown {
        row("proxy", &format!("of {} does not say what is in force: {reason}", said.pod));
        row("", "fix: meshctl check --proxy -o short");
        return;
    }
    row("identity", &said.identity);
    if !said.ready {
        row("proxy", "is not ready: it lets nobody in before it has its certificate and its policy");
    }
    if !said.controller {
        row("proxy", "has no stream to the controller: it serves on what it knows");
    }
}

/// What is spoken there, by which Services, and who is let in.
fn port(one: &Described, number: u16) -> String {
    let declared = one.ports.iter().find(|port| port.port == number && !port.udp);
    let mut parts = Vec::new();
    if let Some(container) = declared.and_then(|port| port.container.as_ref()) {
        parts.push(format!("container {container}"));
    }
    if let Some(services) = declared.map(|port| &port.services).filter(|services| !services.is_empty()) {
        parts.push(format!("Service {}", services.join(", ")));
    }
    let said = one.in_force.as_ref().filter(|said| said.unknown.is_none());
    let other = || said.and_then(|said| said.ports.last());
    if let Some(in_force) =
        said.and_then(|said| said.ports.iter().find(|port| port.port == Some(number))).or_else(other)
    {
        parts.push(match in_force.protocol.as_str() {
            "detect" => "protocol told from the first bytes".to_owned(),
            protocol => protocol.to_owned(),
        });
        parts.push(if in_force.rules.is_empty() {
            format!("default policy {}", in_force.default_policy)
        } else {
            in_force.rules.join(", ")
        });
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use mesh_proto::admin::Port as Said;

    use super::{
        super::{
            Declared, Why,
            service::{Said as OfService, ServedPort},
        },
        *,
    };

    fn described() -> Described {
        let said = |port, protocol: &str, rules: &[&str]| Said {
            port,
            protocol: protocol.to_owned(),
            default_policy: "allow".to_owned(),
            rules: rules.iter().map(|&rule| rule.to_owned()).collect(),
        };
        let port = |port, services: &[&str], udp| Declared {
            port,
            container: Some("web".to_owned()),
            services: services.iter().map(|&service| service.to_owned()).collect(),
            udp,
        };
        Described {
            namespace: "shop".into(),
            workload: "deployment/web".into(),
            counts: Counts { pods: 2, ready: 2, meshed: 1, proxy: Some("0.1.0".into()) },
            not_meshed: Some(Why {
                code: "restart-needed".into(),
                text: "it is older".into(),
                fix: Some("restart".into()),
            }),
            in_force: Some(InForce {
                pod: "web-1".into(),
                identity: "spiffe://cluster.local/ns/shop/sa/web".into(),
                ready: true,
                controller: false,
                certificate_ends: None,
                ports: vec![said(Some(8080), "http/1", &["allow shop/only-load"]), said(None, "detect", &[])],
                unknown: None,
            }),
            ports: vec![port(53, &[], true), port(8080, &["web:80", "web-v1:80"], false), port(9090, &[], false)],
            settings: [("meshctl.dev/opaque-ports".to_owned(), "3306".to_owned())].into(),
            warnings: vec!["shareProcessNamespace lets the application see the proxy".into()],
        }
    }

    #[test]
    fn everything_about_a_workload_is_read_in_one_glance() {
        insta::assert_snapshot!(of(None, &[described()], 80), @"
        deployment/web in namespace shop
          pods       2 of 2 ready, 1 meshed, proxy 0.1.0
          not meshed it is older (restart-needed)
                     fix: restart
          identity   spiffe://cluster.local/ns/shop/sa/web
          proxy      has no stream to the controller: it serves on what it knows
          port 8080  container web; Service web:80, web-v1:80; http/1; allow
                     shop/only-load
          port 9090  container web; protocol told from the first bytes; default policy
                     allow
          port 53    UDP: goes past the mesh, in the clear
          setting    meshctl.dev/opaque-ports: 3306
          warning    shareProcessNamespace lets the application see the proxy
        ");
    }

    #[test]
    fn a_service_comes_before_the_workloads_behind_it() {
        let port = |port, protocol, udp| ServedPort { port, target: "http".into(), protocol, udp };
        let said = OfService {
            namespace: "shop".into(),
            service: "web".into(),
            ports: vec![port(80, "http/1", false), port(81, "detect", false), port(53, "detect", true)],
            pods: 2,
            ready: 2,
            meshed: 1,
            workloads: ["deployment/web-v1".to_owned(), "deployment/web-v2".to_owned()].into(),
            warnings: vec!["1 of its pods are not meshed".into()],
        };
        insta::assert_snapshot!(of(Some(&said), &[], 80), @"
        service/web in namespace shop
          pods       2 of 2 ready, 1 meshed, of deployment/web-v1, deployment/web-v2
          port 80    to port http of the pods; http/1
          port 81    to port http of the pods; protocol told from the first bytes
          port 53    to port http of the pods; UDP: goes past the mesh, in the clear
          warning    1 of its pods are not meshed
        ");
    }

    #[test]
    fn a_proxy_that_does_not_say_is_named() {
        let mut one = described();
        one.in_force.as_mut().unwrap().unknown = Some("timed out".into());
        let text = of(None, &[one], 80);
        assert!(text.contains("of web-1 does not say what is in force: timed out"), "{text}");
        assert!(!text.contains("default policy"), "{text}");
    }
}
