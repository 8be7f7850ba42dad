//! `meshctl stat`: success, rate and latency of each workload, from two readings of its proxies' own counters.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use serde::Serialize;

use crate::{
    cli,
    cluster::{Cluster, PodInfo},
    commands::{admin, select},
    failure::{Exit, Failure},
    filter::show_latency,
    golden::{Golden, samples::Samples},
    printer::{
        Printer,
        table::{Cell, Column, Table, Tone},
    },
};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    workload: String,
    pods: usize,
    meshed: usize,
    /// 0 to 1; none without traffic.
    success: Option<f64>,
    requests_per_second: f64,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
    /// Answers during the window, by class of status.
    responses: Responses,
    tcp_opened_per_second: f64,
    /// Proxies that could not be read.
    unread: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Responses {
    #[serde(rename = "2xx")]
    ok: f64,
    #[serde(rename = "3xx")]
    redirect: f64,
    #[serde(rename = "4xx")]
    client: f64,
    #[serde(rename = "5xx")]
    server: f64,
    none: f64,
}

pub(crate) async fn run(
    cluster: &Cluster,
    namespace: Option<&str>,
    args: &cli::Stat,
    printer: &Printer,
) -> Result<(), Failure> {
    let pods = select(cluster.pods(namespace).await?, args.resource.as_ref())?;
    let before = read_all(cluster, &pods).await;
    tokio::time::sleep(args.window).await;
    let after = read_all(cluster, &pods).await;

    let mut workloads: BTreeMap<(&str, String), Vec<usize>> = BTreeMap::new();
    for (index, pod) in pods.iter().enumerate() {
        workloads.entry((&pod.namespace, pod.workload_or_name())).or_default().push(index);
    }
    let mut rows = Vec::new();
    for ((namespace, workload), indexes) in workloads {
        let mut golden = Golden::default();
        let mut unread = 0;
        for &index in indexes.iter().filter(|&&index| pods[index].meshed) {
            match (&before[index], &after[index]) {
                (Ok(before), Ok(after)) => golden.add(&Golden::between(before, after, "inbound", |_| true)),
                (Err(error), _) | (_, Err(error)) => {
                    unread += 1;
                    printer.say(format!("warning: pod {namespace}/{}: {}", pods[index].name, error.message));
                }
            }
        }
        let meshed = indexes.iter().filter(|&&index| pods[index].meshed).count();
        rows.push(row(namespace, &workload, indexes.len(), meshed, unread, &golden, args.window));
    }
    if rows.iter().any(|row| row.unread > 0) && rows.iter().all(|row| row.unread == row.meshed) {
        return Err(Failure::new(Exit::Unreachable, "no proxy could be read"));
    }
    printer.list("StatList", &rows, |wide| table(&rows, wide))
}

async fn read_all(cluster: &Cluster, pods: &[PodInfo]) -> Vec<Result<Samples, Failure>> {
    join_all(pods.iter().map(|pod| async move {
        if pod.meshed {
            admin::get(cluster, pod, "/metrics").await.map(|text| Samples::parse(&text))
        } else {
            Ok(Samples::default())
        }
    }))
    .await
}

fn row(
    namespace: &str,
    workload: &str,
    pods: usize,
    meshed: usize,
    unread: usize,
    golden: &Golden,
    window: Duration,
) -> Row {
    let [none, _, ok, redirect, client, server] = golden.responses;
    Row {
        namespace: namespace.to_owned(),
        workload: workload.to_owned(),
        pods,
        meshed,
        success: golden.success(),
        requests_per_second: golden.rate(window),
        p50_ms: golden.quantile(0.50),
        p95_ms: golden.quantile(0.95),
        p99_ms: golden.quantile(0.99),
        responses: Responses { ok, redirect, client, server, none },
        tcp_opened_per_second: golden.tcp_opened / window.as_secs_f64(),
        unread,
    }
}

fn table(rows: &[Row], wide: bool) -> Table {
    // What nobody fails by may go: `list` says who is meshed, P95 lies between its neighbours.
    let mut columns =
        vec![Column::namespace(), Column::name("WORKLOAD"), Column::from("MESHED").leaves(1), "SUCCESS".into()];
    columns.extend(["RPS".into(), Column::from("P50").leaves(3), Column::from("P95").leaves(2), "P99".into()]);
    if wide {
        columns.extend(["2XX", "3XX", "4XX", "5XX", "NONE"].map(Column::from));
    }
    columns.push("TCP/S".into());
    let mut table = Table::new(columns);
    for row in rows {
        let latency = |ms: Option<f64>| {
            let shown = ms.map_or("-".to_owned(), |ms| show_latency(Duration::from_secs_f64(ms.max(0.0) / 1e3)));
            Cell::number(shown)
        };
        let number = |value: f64| Cell::number(if row.meshed == 0 { "-".to_owned() } else { format!("{value:.1}") });
        let success = row.success.map_or("-".to_owned(), |success| format!("{:.2}%", success * 100.0));
        let mut cells = vec![
            Cell::text(&row.namespace),
            Cell::workload(&row.workload),
            Cell::text(format!("{}/{}", row.meshed, row.pods)),
            Cell::number(success).tone(tone(row.success)),
            number(row.requests_per_second),
            latency(row.p50_ms),
            latency(row.p95_ms),
            latency(row.p99_ms),
        ];
        if wide {
            let r = &row.responses;
            cells.extend([r.ok, r.redirect, r.client, r.server, r.none].map(|n| Cell::number(format!("{n:.0}"))));
        }
        cells.push(number(row.tcp_opened_per_second));
        table.row(cells);
    }
    table
}

/// The colours people know from dashboards: below 95 % is bad, below 99.9 % worth a look.
fn tone(success: Option<f64>) -> Tone {
    match success {
        None => Tone::Plain,
        Some(share) if share < 0.95 => Tone::Bad,
        Some(share) if share < 0.999 => Tone::Warn,
        Some(_) => Tone::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_without_traffic_shows_dashes() {
        let window = Duration::from_secs(2);
        let rows = [
            row("shop", "deployment/web", 2, 2, 0, &Golden::default(), window),
            row("shop", "deployment/visitor", 1, 0, 0, &Golden::default(), window),
        ];
        assert_eq!(
            table(&rows, false).render(true, false),
            "NAMESPACE   WORKLOAD             MESHED   SUCCESS   RPS   P50   P95   P99   TCP/S\n\
             shop        deployment/web       2/2            -   0.0     -     -     -     0.0\n\
             shop        deployment/visitor   0/1            -     -     -     -     -       -\n"
        );
    }
}
