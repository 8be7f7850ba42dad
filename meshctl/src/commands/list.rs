//! `meshctl list`: which workloads are meshed, and if not, why.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Counts;
use crate::{
    cluster::{Cluster, PodInfo},
    failure::Failure,
    printer::{
        Printer,
        table::{Cell, Column, Table, Tone},
    },
    reason::Reasons,
};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    workload: String,
    #[serde(flatten)]
    counts: Counts,
    /// Why pods are not meshed.
    reason: Option<String>,
}

pub(crate) async fn run(cluster: &Cluster, namespace: Option<&str>, printer: &Printer) -> Result<(), Failure> {
    let pods = cluster.pods(namespace).await?;
    let reasons = Reasons::read(cluster, &pods).await?;
    let rows = rows(&pods, &reasons);
    if rows.is_empty() {
        let place = namespace.map_or("any namespace".to_owned(), |name| format!("namespace {name}"));
        printer.nothing(format!("no pods in {place}"))?;
    }
    printer.list("WorkloadList", &rows, |_| table(&rows))
}

fn rows(pods: &[PodInfo], reasons: &Reasons) -> Vec<Row> {
    let mut workloads: BTreeMap<(&str, String), Vec<&PodInfo>> = BTreeMap::new();
    for pod in pods {
        workloads.entry((&pod.namespace, pod.workload_or_name())).or_default().push(pod);
    }
    let row = |((namespace, workload), pods): ((&str, String), Vec<&PodInfo>)| Row {
        namespace: namespace.to_owned(),
        workload,
        counts: Counts::of(pods.iter().copied()),
        reason: pods.iter().filter(|pod| !pod.meshed).find_map(|pod| reasons.of(pod)).map(str::to_owned),
    };
    workloads.into_iter().map(row).collect()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        Column::namespace(),
        Column::name("WORKLOAD").readable(20),
        "MESHED".into(),
        "READY".into(),
        Column::from("PROXY").leaves(1),
        Column::name("REASON").readable(24),
    ]);
    for row in rows {
        let Counts { pods, ready, meshed, proxy } = &row.counts;
        let tone = if meshed == pods { Tone::Good } else { Tone::Warn };
        table.row(vec![
            Cell::text(&row.namespace),
            Cell::workload(&row.workload),
            Cell::text(format!("{meshed}/{pods}")).tone(tone),
            Cell::text(format!("{ready}/{pods}")),
            Cell::text(proxy.as_deref().unwrap_or("-")),
            Cell::text(row.reason.as_deref().unwrap_or("-")),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fixture;

    #[test]
    fn pods_are_counted_by_workload_and_bare_pods_stand_alone() {
        let pods = [
            fixture::pod("web-1", Some("web"), true, "10.0.0.1"),
            fixture::pod("web-2", Some("web"), false, "10.0.0.2"),
            fixture::pod("lone", None, false, "10.0.0.3"),
        ];
        let reasons = Reasons::fixed([(&pods[1], "disabled-by-pod"), (&pods[2], "not-labelled")]);
        let text = table(&rows(&pods, &reasons)).render(true, false);
        assert_eq!(
            text,
            "NAMESPACE   WORKLOAD         MESHED   READY   PROXY   REASON\n\
             shop        deployment/web   1/2      2/2     0.1.0   disabled-by-pod\n\
             shop        pod/lone         0/1      1/1     -       not-labelled\n"
        );
    }
}
