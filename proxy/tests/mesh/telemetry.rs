//! What leaves the real proxy about the traffic it carried.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
};

use mesh_proto::names;
use mesh_testbed::{
    Member,
    member::Pod,
    talk::{Lines, get},
    until,
};
use serde_json::{Value, json};

use crate::{WEB, collector::Collector, http, lines, mesh, settings};

const LOG: &[(&str, &str)] = &[(names::ENV_ACCESS_LOG, "json")];

/// The line of the access log that `wanted` is about.
fn logged(member: &Member, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    until("the access log has the line", || {
        let log = member.log();
        let mut parsed = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        parsed.find(&wanted)
    })
}

pub(crate) fn the_access_log_has_a_line_for_every_request_and_connection_and_no_query() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let server = mesh.member(&Pod { environment: LOG, ..Pod::new("a", "web", 1) })?;
    let client = mesh.member(&Pod { environment: LOG, ..Pod::new("client", "client", 2) })?;
    let quiet = mesh.member(&Pod::new("quiet", "client", 3))?;
    let path = "/items/7?password=hunter2";
    assert_eq!(client.run(|| get(http(WEB), path, &[("x-secret", "hunter2")]))??.status, 200);
    assert_eq!(quiet.run(|| get(http(WEB), "/quiet", &[]))??.status, 200);
    let (mut connection, _) = client.run(|| Lines::connect(lines(WEB)))??;
    connection.ask("hunter2")?;
    drop(connection);

    for (member, direction) in [(&client, "outbound"), (&server, "inbound")] {
        let request = logged(member, |line| line["path"] == "/items/7")?;
        assert_eq!(request["direction"], direction);
        assert_eq!((&request["status"], &request["tls"], &request["bytesOut"]), (&json!(200), &json!(true), &json!(1)));
        assert_eq!((&request["method"], &request["protocol"]), (&json!("GET"), &json!("http1")));
        assert_eq!(request["source"]["identity"], "spiffe://cluster.local/ns/shop/sa/client");
        assert_eq!(request["destination"]["identity"], "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(request["destination"]["pod"], "a");
        let connection = logged(member, |line| line["protocol"] == "tcp" && line["direction"] == direction)?;
        assert_eq!((&connection["bytesIn"], &connection["method"]), (&json!(9), &Value::Null));
        assert!(!member.log().contains("hunter2"), "{}", member.log());
        assert!(member.count("access_log_lines_total", &[])? >= 2);
    }
    assert_eq!(logged(&client, |line| line["path"] == "/items/7")?["destination"]["service"], "web");
    assert!(!quiet.log().contains("latencyUs"), "it is off unless asked for");
    Ok(())
}

pub(crate) fn a_request_is_one_trace_through_both_proxies_and_in_their_access_logs() -> anyhow::Result<()> {
    const TRACED: &[(&str, &str)] = &[
        (names::ENV_ACCESS_LOG, "json"),
        (names::ENV_TRACE_ENDPOINT, "http://10.0.0.2:4317"),
        (names::ENV_TRACE_SAMPLE, "1"),
    ];
    let mesh = mesh(settings())?;
    let server = mesh.member(&Pod { environment: TRACED, ..Pod::new("a", "web", 1) })?;
    let client = mesh.member(&Pod { environment: TRACED, ..Pod::new("client", "client", 2) })?;
    let listener = client.run(|| TcpListener::bind((Ipv4Addr::new(10, 0, 0, 2), 4317)))??;
    let collector = Collector::start(listener);
    assert_eq!(collector.address.port(), 4317);
    assert_eq!(client.run(|| get(http(WEB), "/traced", &[]))??.status, 200);

    let spans = collector.find(2, |it| it.attribute("url.path") == "/traced");
    let (root, child) = if spans[0].parent().is_empty() { (&spans[0], &spans[1]) } else { (&spans[1], &spans[0]) };
    assert_eq!((root.attribute("k8s.pod.name"), child.attribute("k8s.pod.name")), ("client".into(), "a".into()));
    assert_eq!((child.trace(), child.parent()), (root.trace(), root.id()));
    for member in [&client, &server] {
        let line = logged(member, |line| line["path"] == "/traced")?;
        assert_eq!(line["traceId"], root.trace());
    }

    // The server's spans reach the collector through the client's inbound proxy, which must not trace them in turn.
    assert!(collector.find(0, |it| it.attribute("url.path").starts_with("/opentelemetry")).is_empty());
    assert!(spans.iter().all(|it| it.traceparent.is_some()));
    Ok(())
}

/// Names of the labels of a sample, but for that of buckets. No value in these tests has a quote in it.
fn labels(sample: &str) -> BTreeSet<&str> {
    let Some((_, labels)) = sample.split_once('{') else { return BTreeSet::new() };
    let names = labels.split(&[',', '{'][..]).filter_map(|label| label.split_once("=\"").map(|(name, _)| name));
    names.filter(|name| *name != "le").collect()
}

pub(crate) fn what_a_proxy_counts_is_described_family_by_family_and_label_by_label() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let server = mesh.member(&Pod { environment: LOG, ..Pod::new("a", "web", 1) })?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    assert_eq!(client.run(|| get(http(WEB), "/", &[]))??.status, 200);
    assert_eq!(client.run(|| get(http(WEB), "/", &[("host", "two")]))??.status, 400);
    drop(client.run(|| Lines::connect(lines(WEB)))??);

    let described = mesh_proxy::families::described();
    let mut seen = BTreeSet::new();
    for member in [&client, &server] {
        until("everything has ended", || {
            (member.count("tcp_close_total", &[]).ok()? > 0 && member.count("response_total", &[]).ok()? > 0)
                .then_some(())
        })?;
        let page = member.admin("/metrics")?.body;
        for sample in page.lines().filter(|line| !line.starts_with('#')) {
            let name = sample.split(&['{', ' '][..]).next().expect("a sample has a name");
            let shown = labels(sample);
            let family = described.iter().find(|family| match name.strip_prefix(family.name.as_str()) {
                Some("") => true,
                Some("_bucket" | "_sum" | "_count") => family.kind == "histogram",
                _ => false,
            });
            let family = family.unwrap_or_else(|| panic!("{name} is not described"));
            let wanted: BTreeSet<&str> = family.labels.iter().copied().collect();
            assert_eq!(shown, wanted, "{sample}");
            seen.insert(family.name.clone());
        }
    }
    assert!(seen.len() > 25 && seen.contains("mesh_error_total") && seen.contains("response_latency_ms"), "{seen:?}");
    Ok(())
}
