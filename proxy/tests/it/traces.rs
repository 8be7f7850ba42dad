//! Spans of requests, as a collector and as the next in line see them.

use std::{net::TcpListener, sync::Arc};

use mesh_proto::workload::Protocol;
use mesh_proxy::{
    config::HostPort,
    trace::{Export, Origin, Traces},
};
use mesh_runtime::tasks::Tasks;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    authority::Authority,
    support::{
        App, Pod, SOON, allow, client_with, closed_port,
        collector::{Collected, Collector},
        counted, exchange, meshed, server_with, until,
    },
};

/// An application that keeps the heads it sees.
async fn heads() -> (App, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&seen);
    let app = App::new(move |mut socket| {
        let keep = Arc::clone(&keep);
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && socket.read_buf(&mut head).await.is_ok_and(|n| n > 0) {}
            keep.lock().push(String::from_utf8(head).unwrap());
            let _ = socket.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    (app, seen)
}

fn traces(
    to: std::net::SocketAddr,
    sample: f64,
    name: &str,
    tasks: &Tasks,
) -> (Traces, mesh_runtime::metrics::Metrics) {
    let metrics = mesh_runtime::metrics::Metrics::new();
    let (traces, pending) = Traces::new(sample, &metrics);
    let origin = Origin { service: name.into(), namespace: "shop".into(), pod: format!("{name}-1"), uid: "u".into() };
    let endpoint = HostPort { host: to.ip().to_string(), port: to.port() };
    let export = Export { endpoint, mark: None, origin, tasks: tasks.clone() };
    tasks.spawn("traces", export.run(pending, tasks.cancelled()));
    (traces, metrics)
}

fn pods(app: &App, near: Traces, far: Traces) -> (Pod, Pod) {
    let authority = Authority::new();
    let server = server_with(&authority, app.address, Some(allow(Protocol::Http1)), far);
    let client = client_with(&authority, Protocol::Http1, vec![meshed(server.inbound, "server")], near);
    (client, server)
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: web\r\n{headers}connection: close\r\n\r\n")
}

#[tokio::test]
async fn one_span_per_side_continues_the_clients_trace_and_the_application_is_told() {
    let collector = Collector::start(TcpListener::bind("127.0.0.1:0").unwrap());
    let (app, seen) = heads().await;
    let tasks = Tasks::new();
    let (near, _) = traces(collector.address, 1.0, "client", &tasks);
    let (far, metrics) = traces(collector.address, 0.0, "server", &tasks);
    let (client, _server) = pods(&app, near, far);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    exchange(client.outbound, &request("/continued?q=secret", &format!("traceparent: {parent}\r\n"))).await;
    exchange(client.outbound, &request("/begun", "")).await;
    exchange(client.outbound, &request("/not", &format!("traceparent: {}\r\n", parent.replace("-01", "-00")))).await;

    let both = async |path: &'static str| {
        until(async || {
            let mut found = collector.find(0, |it| it.attribute("url.path") == path);
            // CLIENT is 3, SERVER 2.
            found.sort_by_key(|it| it.span.kind);
            <[Collected; 2]>::try_from(found).map_err(|found| format!("{found:#?}"))
        })
        .await
    };
    let [inbound, outbound] = both("/continued").await;
    assert_eq!((outbound.trace().as_str(), outbound.parent().as_str()), (&parent[3..35], &parent[36..52]));
    assert_eq!((inbound.trace(), inbound.parent()), (outbound.trace(), outbound.id()));
    for span in [&outbound, &inbound] {
        assert_eq!(span.span.name, "GET");
        assert_eq!(span.attribute("http.response.status_code"), "503");
        assert_eq!(span.attribute("error.type"), "503");
        assert_eq!(span.attribute("mesh.tls"), "true");
        assert!(span.span.end_time_unix_nano >= span.span.start_time_unix_nano);
        assert!(!format!("{span:?}").contains("secret"));
        // So that no collector behind a proxy of ours traces its own traces.
        assert!(span.traceparent.as_ref().is_some_and(|told| told.ends_with("-00")), "{:?}", span.traceparent);
    }
    assert_eq!(
        (outbound.attribute("service.name"), inbound.attribute("k8s.pod.name")),
        ("client".into(), "server-1".into())
    );
    assert_eq!(outbound.attribute("peer.service"), "web");

    // The server's share is nothing, and yet it continues what the client's proxy began.
    let [inbound, outbound] = both("/begun").await;
    assert_eq!((outbound.parent().as_str(), inbound.parent()), ("", outbound.id()));
    let told: Vec<String> = seen
        .lock()
        .iter()
        .map(|head| head.lines().find_map(|line| line.strip_prefix("traceparent: ")).unwrap().to_owned())
        .collect();
    assert_eq!(told[1], format!("00-{}-{}-01", inbound.trace(), inbound.id()));
    assert_eq!(told[2], parent.replace("-01", "-00"), "untouched");
    assert!(collector.find(0, |it| it.attribute("url.path") == "/not").is_empty());
    counted(&metrics, "trace_spans_exported_total 2").await;
    assert!(tasks.shutdown(SOON).await.is_clean());
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_no_request() {
    let (app, _seen) = heads().await;
    let tasks = Tasks::new();
    let (near, metrics) = traces(closed_port().await, 1.0, "client", &tasks);
    let (far, _) = traces(closed_port().await, 1.0, "server", &tasks);
    let (client, _server) = pods(&app, near, far);
    for _ in 0..20 {
        assert!(exchange(client.outbound, &request("/", "")).await.starts_with("HTTP/1.1 503 Busy"));
    }
    counted(&metrics, "trace_spans_dropped_total{reason=\"collector\"} 20").await;
    assert!(tasks.shutdown(SOON).await.is_clean());
}

#[tokio::test]
async fn what_no_exporter_takes_is_dropped_and_counted() {
    let (app, _seen) = heads().await;
    let metrics = mesh_runtime::metrics::Metrics::new();
    let (near, _kept_and_never_run) = Traces::new(1.0, &metrics);
    let (far, _) = Traces::new(1.0, &metrics);
    let (client, _server) = pods(&app, near, far);
    for _ in 0..3 {
        exchange(client.outbound, &request("/", "")).await;
    }
    // The server's queue is gone altogether.
    counted(&metrics, "trace_spans_dropped_total{reason=\"queue\"} 3").await;
}
