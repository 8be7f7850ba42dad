//! `meshctl diagnostics endpoints`: where the destinations that a pod dialled lead, as its proxy sees it.

use std::time::Duration;

use mesh_proto::admin::{Backend, ENDPOINTS, Endpoint, Endpoints, Target};
use serde::Serialize;

use crate::{
    cluster::{Cluster, PodInfo},
    commands::pages,
    failure::Failure,
    filter::show_latency,
    printer::{
        Printer,
        table::{Cell, Column, Table, Tone},
    },
};

/// One endpoint of one destination of one proxy.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    /// Whose proxy tells.
    pod: String,
    /// What the application dialled, by name where it has one.
    destination: String,
    /// Where that leads: the backend's Service where a route sends requests elsewhere.
    backend: Option<String>,
    /// None where nothing is ready.
    #[serde(flatten)]
    endpoint: Option<Endpoint>,
}

pub(super) async fn run(cluster: &Cluster, pods: Vec<PodInfo>, printer: &Printer) -> Result<(), Failure> {
    let read = |_: &PodInfo, text: &str| pages::json::<Endpoints>(ENDPOINTS, text);
    let pages = pages::of(cluster, pods, ENDPOINTS, read, printer).await;
    let mut rows = Vec::new();
    for (pod, page) in &pages.read {
        let pod_name = format!("{}/{}", pod.namespace, pod.name);
        if page.left_out > 0 {
            printer.say(format!("{} more destinations of pod {pod_name} are not shown", page.left_out));
        }
        for waiting in &page.waiting {
            printer.say(format!("pod {pod_name} waits for the controller's answer about {waiting}"));
        }
        rows.extend(page.items.iter().flat_map(|target| rows_of(pod, target)));
    }
    if rows.is_empty() && !pages.read.is_empty() {
        printer.nothing("no destination was dialled lately: a proxy learns what its application dials")?;
    }
    printer.list("EndpointList", &rows, |wide| table(&rows, wide))?;
    pages.done()
}

fn rows_of(pod: &PodInfo, target: &Target) -> Vec<Row> {
    let destination = target.name.clone().unwrap_or_else(|| target.destination.to_string());
    let row = |backend: Option<String>, endpoint: Option<Endpoint>| Row {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        destination: destination.clone(),
        backend,
        endpoint,
    };
    if target.backends.is_empty() {
        return vec![row(Some(target.kind.clone()), None)];
    }
    let of_backend = |backend: &Backend| -> Vec<Row> {
        let service = backend.service.clone();
        if backend.endpoints.is_empty() {
            return vec![row(service, None)];
        }
        backend.endpoints.iter().map(|endpoint| row(service.clone(), Some(endpoint.clone()))).collect()
    };
    target.backends.iter().flat_map(of_backend).collect()
}

fn table(rows: &[Row], wide: bool) -> Table {
    let mut columns = vec![Column::namespace(), Column::name("POD"), Column::name("DESTINATION").readable(14)];
    columns.extend([Column::name("BACKEND").readable(14), "ENDPOINT".into(), Column::name("TARGET").leaves(2)]);
    columns.extend(["TLS".into(), Column::from("LATENCY").leaves(3), Column::from("OPEN").leaves(1)]);
    if wide {
        columns.extend(["POOLED", "IDENTITY"].map(Column::from));
    }
    let mut table = Table::new(columns);
    for row in rows {
        let endpoint = row.endpoint.as_ref();
        let load = endpoint.and_then(|endpoint| endpoint.load.as_ref());
        let text = |text: Option<&String>| Cell::text(text.map_or("-", String::as_str));
        let is_external = row.backend.as_deref() == Some("external");
        let address = match endpoint {
            Some(endpoint) => Cell::text(endpoint.address.to_string()),
            None if is_external => Cell::text("-"),
            None => Cell::text("none ready").tone(Tone::Bad),
        };
        let number = |number: Option<String>| Cell::number(number.unwrap_or_else(|| "-".to_owned()));
        // The backend that is the destination itself says nothing new.
        let backend = row.backend.as_ref().filter(|backend| **backend != row.destination);
        let mut cells = vec![
            Cell::text(&row.namespace),
            Cell::text(&row.pod),
            Cell::text(&row.destination),
            text(backend),
            address,
            text(endpoint.and_then(|endpoint| endpoint.pod.as_ref())),
            Cell::text(if endpoint.is_some_and(|endpoint| endpoint.identity.is_some()) { "√" } else { "-" }),
            number(load.map(|load| show_latency(Duration::from_secs_f64(load.latency_ms.max(0.0) / 1e3)))),
            number(load.map(|load| load.in_flight.to_string())),
        ];
        if wide {
            cells.extend([
                number(load.map(|load| load.connections.to_string())),
                text(endpoint.and_then(|endpoint| endpoint.identity.as_ref())),
            ]);
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use mesh_proto::admin::Load;

    use super::*;
    use crate::commands::fixture;

    #[test]
    fn each_endpoint_is_a_line_and_a_backend_without_any_says_so() {
        let endpoint = Endpoint {
            address: "10.0.0.7:8080".parse().unwrap(),
            namespace: Some("shop".into()),
            pod: Some("web-v1-1".into()),
            workload: None,
            identity: Some("spiffe://cluster.local/ns/shop/sa/web".into()),
            load: Some(Load { latency_ms: 1.25, in_flight: 2, connections: 3 }),
        };
        let target = |destination: &str, name: Option<&str>, kind: &str, backends: Vec<Backend>| Target {
            destination: destination.parse().unwrap(),
            kind: kind.into(),
            name: name.map(str::to_owned),
            protocol: "http".into(),
            version: 3,
            age_seconds: 4.0,
            backends,
            routes: vec![],
        };
        let backend = |service: &str, endpoints| Backend { service: Some(service.into()), endpoints };
        let targets = [
            target(
                "10.96.0.1:80",
                Some("shop/web:80"),
                "service",
                vec![backend("shop/web:80", vec![endpoint]), backend("shop/web-v2:80", vec![])],
            ),
            target("192.0.2.1:443", None, "external", vec![]),
        ];
        let pod = fixture::pod("load-1", Some("load"), true, "10.0.0.1");
        let rows: Vec<Row> = targets.iter().flat_map(|target| rows_of(&pod, target)).collect();
        insta::assert_snapshot!(table(&rows, true).render(true, false), @r"
        NAMESPACE   POD      DESTINATION     BACKEND          ENDPOINT        TARGET     TLS   LATENCY   OPEN   POOLED   IDENTITY
        shop        load-1   shop/web:80     -                10.0.0.7:8080   web-v1-1   √       1.2ms      2        3   spiffe://cluster.local/ns/shop/sa/web
        shop        load-1   shop/web:80     shop/web-v2:80   none ready      -          -           -      -        -   -
        shop        load-1   192.0.2.1:443   external         -               -          -           -      -        -   -
        ");
    }
}
