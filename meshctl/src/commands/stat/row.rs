//! Lines of `stat`: from counted numbers to JSON, table and order. Pure.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    filter::{show_bytes, show_latency},
    golden::Golden,
    printer::table::{Cell, Column, Table, Tone},
};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) namespace: String,
    pub(super) workload: String,
    /// Where its requests went, under `--by backend`.
    pub(super) backend: Option<Backend>,
    pub(super) pods: usize,
    pub(super) meshed: usize,
    /// `inbound`: as its own proxies served; `outbound`: as the clients' proxies saw it (`--to`, `--from`, `--by`).
    pub(super) direction: &'static str,
    /// 0 to 1; none without traffic.
    pub(super) success: Option<f64>,
    pub(super) requests_per_second: f64,
    pub(super) p50_ms: Option<f64>,
    pub(super) p95_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    /// Answers during the window, by class of status.
    pub(super) responses: Responses,
    /// Requests that were sent to a second endpoint; only clients know.
    pub(super) retries: Option<f64>,
    /// Requests and connections that ended at a time limit of the mesh; counted per proxy, not per peer.
    pub(super) timeouts: Option<f64>,
    pub(super) tcp_opened_per_second: f64,
    pub(super) tcp_read_bytes_per_second: f64,
    pub(super) tcp_written_bytes_per_second: f64,
    /// Proxies that could not be read.
    pub(super) unread: usize,
}

/// Where requests went.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Backend {
    pub(super) namespace: String,
    /// The Service that was dialled.
    pub(super) service: Option<String>,
    /// `kind/name` of what owns the pods; none outside the mesh's view.
    pub(super) workload: Option<String>,
    pub(super) port: u16,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Responses {
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

/// What lines are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// Namespace and name
    Name,
    /// Lowest share of successes first
    Success,
    /// Most requests first
    Rps,
    /// Slowest first
    P50,
    /// Slowest first
    P95,
    /// Slowest first
    P99,
    /// Most connections first
    Tcp,
}

/// Whose line it is.
pub(super) struct Of {
    pub(super) namespace: String,
    pub(super) workload: String,
    pub(super) backend: Option<Backend>,
    pub(super) pods: usize,
    pub(super) meshed: usize,
    pub(super) unread: usize,
    pub(super) direction: &'static str,
}

impl Row {
    pub(super) fn new(of: Of, golden: &Golden, timeouts: Option<f64>, window: Duration) -> Self {
        let [none, _, ok, redirect, client, server] = golden.responses;
        let per_second = |count: f64| count / window.as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            namespace: of.namespace,
            workload: of.workload,
            backend: of.backend,
            pods: of.pods,
            meshed: of.meshed,
            direction: of.direction,
            success: golden.success(),
            requests_per_second: golden.rate(window),
            p50_ms: golden.quantile(0.50),
            p95_ms: golden.quantile(0.95),
            p99_ms: golden.quantile(0.99),
            responses: Responses { ok, redirect, client, server, none },
            retries: (of.direction == "outbound").then_some(golden.retries),
            timeouts,
            tcp_opened_per_second: per_second(golden.tcp_opened),
            tcp_read_bytes_per_second: per_second(golden.tcp_read),
            tcp_written_bytes_per_second: per_second(golden.tcp_written),
            unread: of.unread,
        }
    }
}

impl Backend {
    /// `web:80 → deployment/web-v1`, with the namespace where it is another.
    fn text(&self, from: &str) -> String {
        let namespace = if self.namespace.is_empty() || self.namespace == from {
            String::new()
        } else {
            format!("{}/", self.namespace)
        };
        match (&self.service, &self.workload) {
            (Some(service), Some(workload)) => format!("{namespace}{service}:{} → {workload}", self.port),
            (Some(service), None) => format!("{namespace}{service}:{}", self.port),
            (None, Some(workload)) => format!("{namespace}{workload}:{}", self.port),
            (None, None) => format!("outside:{}", self.port),
        }
    }
}

/// Orders lines; equals stay by name.
pub(super) fn sort(rows: &mut [Row], key: Sort) {
    rows.sort_by(|a, b| (&a.namespace, &a.workload, &a.backend).cmp(&(&b.namespace, &b.workload, &b.backend)));
    // What has no value comes last.
    let falling = |value: Option<f64>| -value.unwrap_or(f64::NEG_INFINITY);
    let rank = |row: &Row| match key {
        Sort::Name => 0.0,
        Sort::Success => row.success.unwrap_or(f64::INFINITY),
        Sort::Rps => falling(Some(row.requests_per_second)),
        Sort::P50 => falling(row.p50_ms),
        Sort::P95 => falling(row.p95_ms),
        Sort::P99 => falling(row.p99_ms),
        Sort::Tcp => falling(Some(row.tcp_opened_per_second)),
    };
    rows.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
}

pub(super) fn table(rows: &[Row], wide: bool) -> Table {
    let by_backend = rows.iter().any(|row| row.backend.is_some());
    // What nobody fails by may go: `list` says who is meshed, P95 lies between its neighbours.
    let mut columns = vec![Column::namespace(), Column::name("WORKLOAD").readable(20)];
    columns.push(if by_backend { Column::name("BACKEND") } else { Column::from("MESHED").leaves(1) });
    columns.extend(["SUCCESS", "RPS"].map(Column::from));
    columns.extend([Column::from("P50").leaves(3), Column::from("P95").leaves(2), Column::from("P99")]);
    if wide {
        columns.extend(["2XX", "3XX", "4XX", "5XX", "NONE", "RETRIES", "TIMEOUTS"].map(Column::from));
    }
    columns.push("TCP/S".into());
    if wide {
        columns.extend(["READ/S", "WRITTEN/S"].map(Column::from));
    }
    let mut table = Table::new(columns);
    for row in rows {
        table.row(cells(row, wide));
    }
    table
}

fn cells(row: &Row, wide: bool) -> Vec<Cell> {
    let dash = || "-".to_owned();
    let latency = |ms: Option<f64>| {
        let shown = ms.map_or_else(dash, |ms| show_latency(Duration::from_secs_f64(ms.max(0.0) / 1e3)));
        Cell::number(shown)
    };
    // Nobody could tell: that is not zero.
    let silent = row.meshed == 0 || row.unread >= row.meshed;
    let number = |value: f64| Cell::number(if silent { dash() } else { format!("{value:.1}") });
    let count = |value: Option<f64>| {
        let value = value.filter(|_| row.meshed > 0);
        Cell::number(value.map_or_else(dash, |value| format!("{value:.0}")))
    };
    let success = match row.success {
        None if row.unread > 0 => "unknown".to_owned(),
        success => success.map_or_else(dash, |success| format!("{:.2}%", success * 100.0)),
    };
    let who = match &row.backend {
        Some(backend) => backend.text(&row.namespace),
        None => format!("{}/{}", row.meshed, row.pods),
    };
    let mut cells = vec![
        Cell::text(&row.namespace),
        Cell::workload(&row.workload),
        Cell::text(who),
        Cell::number(success).tone(if row.unread > 0 { Tone::Warn } else { tone(row.success) }),
        number(row.requests_per_second),
        latency(row.p50_ms),
        latency(row.p95_ms),
        latency(row.p99_ms),
    ];
    if wide {
        let r = &row.responses;
        cells.extend([r.ok, r.redirect, r.client, r.server, r.none].map(|value| count(Some(value))));
        cells.extend([row.retries, row.timeouts].map(count));
    }
    cells.push(number(row.tcp_opened_per_second));
    if wide {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of bytes")]
        let bytes = |value: f64| Cell::number(if row.meshed == 0 { dash() } else { show_bytes(value.round() as u64) });
        cells.extend([row.tcp_read_bytes_per_second, row.tcp_written_bytes_per_second].map(bytes));
    }
    cells
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
    use crate::golden::samples::Samples;

    const WINDOW: Duration = Duration::from_secs(2);

    fn of(workload: &str, meshed: usize) -> Of {
        let (namespace, workload) = ("shop".to_owned(), workload.to_owned());
        Of { namespace, workload, backend: None, pods: 2, meshed, unread: 0, direction: "inbound" }
    }

    fn traffic() -> Golden {
        let text = concat!(
            "response_total{direction=\"outbound\",status_code=\"200\",classification=\"success\"} 30\n",
            "response_total{direction=\"outbound\",status_code=\"503\",classification=\"failure\"} 10\n",
            "response_latency_ms_bucket{direction=\"outbound\",le=\"1.0\"} 40\n",
            "request_retry_total{direction=\"outbound\"} 3\n",
            "tcp_open_total{direction=\"outbound\"} 4\n",
            "tcp_read_bytes_total{direction=\"outbound\"} 4096\n",
            "tcp_write_bytes_total{direction=\"outbound\"} 20\n",
        );
        Golden::between(&Samples::default(), &Samples::parse(text), "outbound", |_| true)
    }

    #[test]
    fn a_workload_without_traffic_shows_dashes() {
        let rows = [of("deployment/web", 2), of("deployment/visitor", 0)]
            .map(|of| Row::new(of, &Golden::default(), Some(0.0), WINDOW));
        assert_eq!(
            table(&rows, false).render(true, false),
            "NAMESPACE   WORKLOAD             MESHED   SUCCESS   RPS   P50   P95   P99   TCP/S\n\
             shop        deployment/web       2/2            -   0.0     -     -     -     0.0\n\
             shop        deployment/visitor   0/2            -     -     -     -     -       -\n"
        );
    }

    #[test]
    fn backends_and_the_wide_columns_say_what_is_counted_and_a_dash_what_is_not() {
        let backend = |namespace: &str, service: Option<&str>, workload: Option<&str>| Backend {
            namespace: namespace.to_owned(),
            service: service.map(str::to_owned),
            workload: workload.map(str::to_owned),
            port: 80,
        };
        let row = |backend| {
            let of = Of { backend: Some(backend), direction: "outbound", ..of("deployment/load", 2) };
            Row::new(of, &traffic(), None, WINDOW)
        };
        let mut rows = vec![
            row(backend("shop", Some("web"), Some("deployment/web-v1"))),
            row(backend("other", Some("db"), None)),
            row(backend("", None, None)),
        ];
        sort(&mut rows, Sort::Name);
        insta::assert_snapshot!(table(&rows, true).render(true, false), @r"
        NAMESPACE   WORKLOAD          BACKEND                      SUCCESS    RPS     P50     P95     P99   2XX   3XX   4XX   5XX   NONE   RETRIES   TIMEOUTS   TCP/S   READ/S   WRITTEN/S
        shop        deployment/load   outside:80                    75.00%   20.0   500µs   950µs   990µs    30     0     0    10      0         3          -     2.0   2.0KiB         10B
        shop        deployment/load   other/db:80                   75.00%   20.0   500µs   950µs   990µs    30     0     0    10      0         3          -     2.0   2.0KiB         10B
        shop        deployment/load   web:80 → deployment/web-v1    75.00%   20.0   500µs   950µs   990µs    30     0     0    10      0         3          -     2.0   2.0KiB         10B
        ");
    }

    #[test]
    fn the_worst_comes_first_and_what_has_no_value_last() {
        let row = |name: &str, success: Option<f64>, p99_ms: Option<f64>| Row {
            success,
            p99_ms,
            ..Row::new(of(name, 2), &Golden::default(), None, WINDOW)
        };
        let mut rows = [row("b", Some(1.0), Some(9.0)), row("a", None, None), row("c", Some(0.5), Some(1.0))];
        for (key, expected) in [(Sort::Name, "abc"), (Sort::Success, "cba"), (Sort::P99, "bca"), (Sort::Rps, "abc")] {
            sort(&mut rows, key);
            assert_eq!(rows.iter().map(|row| row.workload.as_str()).collect::<String>(), expected, "{key:?}");
        }
    }
}
