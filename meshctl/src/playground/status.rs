//! `meshctl playground status`: what is running, how often it was started again, and at which addresses.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde::Serialize;

use crate::{
    cluster::{Cluster, PodInfo},
    failure::{Exit, Failure},
    printer::{
        Printer,
        table::{Cell, Column, Table, Tone},
    },
};

/// Pods whose problems are said in whole; the table has all.
const SAID: usize = 3;

/// One pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(flatten)]
    pod: PodInfo,
    containers: Vec<Container>,
    /// What keeps it from being ready.
    problem: Option<String>,
}

/// One container that is meant to stay.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    running: bool,
    ready: bool,
    /// How often its process was started again.
    restarts: i32,
    /// How its process ended before that.
    last_end: Option<String>,
}

/// Shows all pods; fails where one of them is not ready.
pub(super) async fn run(printer: &Printer) -> Result<(), Failure> {
    let rows: Vec<Row> = Cluster::playground()?.pod_objects(None).await?.iter().map(Row::of).collect();
    printer.list("PodList", &rows, |wide| table(&rows, wide))?;
    let ready = rows.iter().filter(|row| row.pod.ready).count();
    printer.say(format!("{ready} of {} pods are ready", rows.len()));
    if ready == rows.len() {
        return Ok(());
    }
    let not_ready: Vec<&Row> = rows.iter().filter(|row| !row.pod.ready).collect();
    let said = not_ready.iter().take(SAID).map(|row| {
        let problem = row.problem.as_deref().unwrap_or("it starts");
        format!("{} is not ready: {problem}", row.pod.name)
    });
    let message = said.collect::<Vec<_>>().join("; ");
    let first = not_ready.first().map(|row| row.pod.name.clone()).unwrap_or_default();
    Err(Failure::new(Exit::Bad, message)
        .fix(format!("what has ended is started again; meshctl playground logs {first} shows why it ends")))
}

impl Row {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let lasting = |status: &&ContainerStatus| {
            let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
            init.filter(|init| init.restart_policy.is_none()).all(|init| init.name != status.name)
        };
        let statuses = status.into_iter().flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        });
        let conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
        Self {
            pod: PodInfo::from_object(pod),
            containers: statuses.filter(lasting).map(Container::of).collect(),
            problem: conditions.filter(|condition| condition.type_ == "Ready").find_map(|ready| ready.message.clone()),
        }
    }
}

impl Container {
    fn of(status: &ContainerStatus) -> Self {
        let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        Self {
            name: status.name.clone(),
            running: status.state.as_ref().is_some_and(|state| state.running.is_some()),
            ready: status.ready,
            restarts: status.restart_count,
            last_end: last.and_then(|terminated| terminated.message.clone()),
        }
    }
}

fn table(rows: &[Row], wide: bool) -> Table {
    let mut columns =
        vec![Column::namespace(), Column::name("POD"), "READY".into(), Column::from("RESTARTS").leaves(2)];
    columns.push(Column::from("ADDRESS").leaves(1));
    if wide {
        columns.extend(["MESHED", "LAST END"].map(Column::from));
    }
    columns.push(Column::name("PROBLEM").readable(36));
    let mut table = Table::new(columns);
    for Row { pod, containers, problem } in rows {
        let ready = containers.iter().filter(|container| container.ready).count();
        let restarts: i32 = containers.iter().map(|container| container.restarts).sum();
        let mut cells = vec![
            Cell::text(&pod.namespace),
            Cell::text(&pod.name),
            Cell::text(format!("{ready}/{}", containers.len())).tone(if pod.ready { Tone::Good } else { Tone::Bad }),
            Cell::number(restarts.to_string()).tone(if restarts > 0 { Tone::Warn } else { Tone::Plain }),
            Cell::text(pod.ips.first().map(ToString::to_string).unwrap_or_default()),
        ];
        if wide {
            let ends = containers.iter().filter_map(|one| Some(format!("{} {}", one.name, one.last_end.as_ref()?)));
            let ends = ends.collect::<Vec<_>>().join(", ");
            cells.push(Cell::text(if pod.meshed { "yes" } else { "no" }));
            cells.push(Cell::text(if ends.is_empty() { "-" } else { &ends }));
        }
        cells.push(Cell::text(problem.as_deref().unwrap_or("-")));
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn restarts_are_added_up_and_containers_that_have_done_their_work_do_not_count() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop"},
            "spec": {
                "initContainers": [{"name": "mesh-proxy", "restartPolicy": "Always"}, {"name": "mesh-redirect"}],
                "containers": [{"name": "web"}],
            },
            "status": {
                "podIPs": [{"ip": "10.244.0.2"}],
                "conditions": [{"type": "Ready", "status": "False", "message": "container web was ended by SIGKILL"}],
                "initContainerStatuses": [
                    {"name": "mesh-proxy", "ready": true, "restartCount": 1, "image": "", "imageID": "",
                     "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1, "message": "was ended by SIGTERM"}}},
                    {"name": "mesh-redirect", "ready": true, "restartCount": 0, "image": "", "imageID": ""},
                ],
                "containerStatuses": [
                    {"name": "web", "ready": false, "restartCount": 2, "image": "", "imageID": "", "state": {"waiting": {}}},
                ],
            },
        }))
        .unwrap();
        let rows = [Row::of(&pod)];
        assert_eq!(
            table(&rows, false).render(true, false),
            "NAMESPACE   POD     READY   RESTARTS   ADDRESS      PROBLEM\n\
             shop        web-1   1/2            3   10.244.0.2   container web was ended by SIGKILL\n"
        );
        let wide = table(&rows, true).render(true, false);
        assert!(
            wide.contains("LAST END") && wide.contains("mesh-proxy was ended by SIGTERM   container web"),
            "{wide}"
        );
        let value = serde_json::to_value(&rows[0]).unwrap();
        assert_eq!((&value["name"], &value["containers"][1]["restarts"]), (&"web-1".into(), &2.into()));
    }
}
