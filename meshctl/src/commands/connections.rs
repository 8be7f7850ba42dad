//! `meshctl connections`: what is open right now, or how the last ones ended, with names in place of addresses.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use mesh_proto::admin::{CONNECTIONS, Closed, Connection, Connections};
use serde::Serialize;

use super::pages;
use crate::{
    cli,
    cluster::{Cluster, PodInfo},
    failure::Failure,
    filter::{show_bytes, show_span},
    printer::{
        Printer,
        table::{Cell, Column, Table},
    },
};

/// One line, about a [`Connection`] or a [`Closed`] one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<T> {
    namespace: String,
    /// Whose proxy tells.
    pod: String,
    /// The other side for people: a Service, a workload, an identity, else its address.
    peer_name: String,
    #[serde(flatten)]
    connection: T,
}

impl<T> Row<T> {
    fn new(names: &Names, pod: &PodInfo, connection: &Connection, whole: T) -> Self {
        let peer_name = names.peer(connection);
        Self { namespace: pod.namespace.clone(), pod: pod.name.clone(), peer_name, connection: whole }
    }
}

pub(crate) async fn run(
    cluster: &Cluster,
    namespace: Option<&str>,
    args: &cli::Connections,
    printer: &Printer,
) -> Result<(), Failure> {
    let all = cluster.pods(None).await?;
    let names = Names::new(&all);
    let pods = pages::meshed(cluster, namespace, args.resource.as_ref()).await?;
    let read = |_: &PodInfo, text: &str| pages::json::<Connections>(CONNECTIONS, text);
    let pages = pages::of(cluster, pods, CONNECTIONS, read, printer).await;
    let proxies = pages.read.len();
    if args.closed {
        let mut rows = Vec::new();
        for (pod, page) in &pages.read {
            let row = |closed: &Closed| Row::new(&names, pod, &closed.connection, closed.clone());
            rows.extend(page.closed.iter().map(row));
        }
        rows.sort_by(|a, b| a.connection.closed_seconds.total_cmp(&b.connection.closed_seconds));
        if rows.is_empty() && proxies > 0 {
            printer.nothing(format!("no connection has ended at {proxies} proxies"))?;
        }
        printer.list("ClosedConnectionList", &rows, |wide| closed_table(&rows, wide))?;
        return pages.done();
    }
    let mut rows = Vec::new();
    for (pod, page) in &pages.read {
        if page.left_out > 0 {
            printer
                .say(format!("{} more connections of pod {}/{} are not shown", page.left_out, pod.namespace, pod.name));
        }
        rows.extend(page.items.iter().map(|connection| Row::new(&names, pod, connection, connection.clone())));
    }
    if rows.is_empty() && proxies > 0 {
        printer.nothing(format!("no connection is open at {proxies} proxies"))?;
    }
    printer.list("ConnectionList", &rows, |wide| table(&rows, wide))?;
    pages.done()
}

/// Pods by address, as `namespace/workload`.
struct Names(HashMap<IpAddr, String>);

impl Names {
    fn new(pods: &[PodInfo]) -> Self {
        let name = |pod: &PodInfo| {
            let workload = pod.workload_or_name();
            format!("{}/{}", pod.namespace, workload.rsplit('/').next().unwrap_or(&workload))
        };
        Self(pods.iter().flat_map(|pod| pod.ips.iter().map(move |ip| (*ip, name(pod)))).collect())
    }

    /// Outbound the Service that was dialled says most; inbound the pod that dialled.
    fn peer(&self, connection: &Connection) -> String {
        let other = if connection.direction == "inbound" { connection.source } else { connection.destination };
        let workload = self.0.get(&other.ip());
        let told = connection.peer.as_ref();
        let name = if connection.direction == "inbound" { workload.or(told) } else { told.or(workload) };
        name.cloned().unwrap_or_else(|| other.to_string())
    }
}

fn table(rows: &[Row<Connection>], wide: bool) -> Table {
    let mut columns = whose();
    columns.extend([Column::from("PROTOCOL").leaves(3), "TLS".into(), "AGE".into(), "RECEIVED".into(), "SENT".into()]);
    columns.extend([Column::from("REQUESTS").leaves(2), Column::from("OPEN").leaves(1)]);
    if wide {
        columns.extend(ADDRESSES.map(Column::from));
    }
    let mut table = Table::new(columns);
    for row in rows {
        let connection = &row.connection;
        let is_tcp = connection.protocol == "tcp";
        let count = |number: u64| Cell::number(if is_tcp { "-".to_owned() } else { number.to_string() });
        let mut cells = beginning(row, connection);
        cells.extend([count(connection.requests), count(connection.in_flight)]);
        if wide {
            cells.extend(addresses(connection));
        }
        table.row(cells);
    }
    table
}

fn closed_table(rows: &[Row<Closed>], wide: bool) -> Table {
    let mut columns = vec![Column::from("ENDED")];
    columns.extend(whose());
    columns.extend([Column::from("PROTOCOL").leaves(3), Column::from("TLS").leaves(2), "LASTED".into()]);
    columns.extend([Column::from("RECEIVED").leaves(1), Column::from("SENT").leaves(1), "BY".into(), "WHY".into()]);
    if wide {
        columns.push("REQUESTS".into());
        columns.extend(ADDRESSES.map(Column::from));
    }
    let mut table = Table::new(columns);
    for row in rows {
        let Closed { connection, by, reason, closed_seconds } = &row.connection;
        let mut cells = vec![Cell::number(format!("{} ago", span(*closed_seconds)))];
        cells.extend(beginning(row, connection));
        cells.extend([Cell::text(by), Cell::text(reason)]);
        if wide {
            cells.push(Cell::number(connection.requests.to_string()));
            cells.extend(addresses(connection));
        }
        table.row(cells);
    }
    table
}

const ADDRESSES: [&str; 3] = ["SOURCE", "DESTINATION", "ENDPOINT"];

fn whose() -> Vec<Column> {
    vec![Column::namespace(), Column::name("POD"), "WAY".into(), Column::path("PEER")]
}

/// What both tables say first of a connection.
fn beginning<T>(row: &Row<T>, connection: &Connection) -> Vec<Cell> {
    vec![
        Cell::text(&row.namespace),
        Cell::text(&row.pod),
        Cell::text(if connection.direction == "inbound" { "in" } else { "out" }),
        Cell::text(&row.peer_name),
        Cell::text(&connection.protocol),
        Cell::text(if connection.tls { "√" } else { "-" }),
        Cell::number(span(connection.age_seconds)),
        Cell::number(show_bytes(connection.bytes_in)),
        Cell::number(show_bytes(connection.bytes_out)),
    ]
}

fn addresses(connection: &Connection) -> [Cell; 3] {
    [Some(connection.source), Some(connection.destination), connection.endpoint]
        .map(|address| Cell::text(address.map_or("-".to_owned(), |at| at.to_string())))
}

fn span(seconds: f64) -> String {
    show_span(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fixture;

    fn connection(direction: &str, source: &str, destination: &str, peer: Option<&str>, protocol: &str) -> Connection {
        Connection {
            direction: direction.into(),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            peer: peer.map(str::to_owned),
            protocol: protocol.into(),
            tls: true,
            endpoint: None,
            bytes_in: 100,
            bytes_out: 2048,
            age_seconds: 61.5,
            requests: 7,
            in_flight: 1,
        }
    }

    #[test]
    fn the_other_side_is_named_as_well_as_it_is_known() {
        let names = Names::new(&[fixture::pod("web-1", Some("web"), true, "10.0.0.1")]);
        let id = "spiffe://cluster.local/ns/shop/sa/web";
        let pod = fixture::pod("db-1", None, true, "10.0.0.2");
        let rows: Vec<Row<Connection>> = [
            connection("inbound", "10.0.0.1:4", "10.0.0.2:80", Some(id), "http/2"),
            connection("inbound", "10.0.0.9:4", "10.0.0.2:80", Some(id), "http/1"),
            connection("inbound", "10.0.0.9:4", "10.0.0.2:80", None, "detecting"),
            connection("outbound", "10.0.0.2:4", "10.96.0.1:7000", Some("shop/stock:7000"), "tcp"),
            connection("outbound", "10.0.0.2:4", "192.0.2.1:443", None, "tcp"),
        ]
        .into_iter()
        .map(|connection| Row::new(&names, &pod, &connection.clone(), connection))
        .collect();
        insta::assert_snapshot!(table(&rows, false).render(true, false), @r"
        NAMESPACE   POD    WAY   PEER                                    PROTOCOL    TLS    AGE   RECEIVED     SENT   REQUESTS   OPEN
        shop        db-1   in    shop/web                                http/2      √     1m1s       100B   2.0KiB          7      1
        shop        db-1   in    spiffe://cluster.local/ns/shop/sa/web   http/1      √     1m1s       100B   2.0KiB          7      1
        shop        db-1   in    10.0.0.9:4                              detecting   √     1m1s       100B   2.0KiB          7      1
        shop        db-1   out   shop/stock:7000                         tcp         √     1m1s       100B   2.0KiB          -      -
        shop        db-1   out   192.0.2.1:443                           tcp         √     1m1s       100B   2.0KiB          -      -
        ");
    }

    #[test]
    fn of_those_that_ended_it_is_said_who_ended_them() {
        let names = Names::new(&[fixture::pod("web-1", Some("web"), true, "10.0.0.1")]);
        let pod = fixture::pod("db-1", None, true, "10.0.0.2");
        let rows: Vec<Row<Closed>> = [("app", "end", 0.2), ("us", "drain-over", 75.0)]
            .into_iter()
            .map(|(by, reason, closed_seconds)| {
                let connection = connection("inbound", "10.0.0.1:4", "10.0.0.2:80", None, "tcp");
                let closed = Closed { connection, by: by.into(), reason: reason.into(), closed_seconds };
                Row::new(&names, &pod, &closed.connection.clone(), closed)
            })
            .collect();
        insta::assert_snapshot!(closed_table(&rows, false).render(true, false), @"
            ENDED   NAMESPACE   POD    WAY   PEER       PROTOCOL   TLS   LASTED   RECEIVED     SENT   BY    WHY
           0s ago   shop        db-1   in    shop/web   tcp        √       1m1s       100B   2.0KiB   app   end
        1m15s ago   shop        db-1   in    shop/web   tcp        √       1m1s       100B   2.0KiB   us    drain-over
        ");
        let json = serde_json::to_value(&rows[1]).unwrap();
        assert_eq!(
            (&json["peerName"], &json["by"], &json["source"]),
            (&"shop/web".into(), &"us".into(), &"10.0.0.1:4".into())
        );
    }
}
