//! `meshctl upgrade`: what this release would change of an installation, as a diff; which proxies are older than it; and with
//! `--apply` the change.
//!
//! The API server itself says what would become of each object, by a dry run: fields that others have set stay. What an earlier
//! installation made and this one does not is removed, after everything else.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use mesh_proto::names;
use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;
use tokio::time::Instant;

use super::{install, leftovers, uninstall::refuse_playground, version::tag};
use crate::{
    cli::{self, Output},
    cluster::{Cluster, ClusterError, PodInfo},
    failure::{Exit, Failure},
    install::{
        Recorded, Values,
        objects::{Object, objects, said},
    },
    printer::{
        API_VERSION, Printer,
        table::{Cell, Column, Table},
    },
};

/// Forms that a plan has.
pub(crate) const FORMS: &[Output] = &[Output::Table, Output::Wide, Output::Json, Output::Ndjson, Output::Yaml];
/// Lines around a change.
const CONTEXT: usize = 3;

/// What would become of an installation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    api_version: &'static str,
    kind: &'static str,
    /// Release that is installed.
    from: String,
    /// Release of this program.
    to: &'static str,
    changes: Vec<Change>,
    /// Workloads whose proxies are not of this release.
    proxies: Vec<Outdated>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    object: String,
    becomes: Becomes,
    /// Unified, without what the API server notes itself.
    diff: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Becomes {
    /// It is not there yet.
    New,
    Changed,
    /// Neither this release nor these values have it.
    Removed,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outdated {
    namespace: String,
    workload: String,
    proxy: String,
    target: &'static str,
    /// What gives it the new one.
    action: String,
}

pub(crate) async fn run(cluster: &Cluster, upgrade: &cli::Upgrade, printer: &Printer) -> Result<(), Failure> {
    let args = &upgrade.install;
    refuse_playground(cluster)?;
    let started = Instant::now();
    let record = record(cluster).await?;
    if args.apply {
        record.as_ref().map_or(Ok(()), refuse_helm)?;
    }
    let from = installed(cluster, record.as_ref()).await?;
    in_step(&from, env!("CARGO_PKG_VERSION"))?;
    let start = if upgrade.reset_values { Values::defaults() } else { recorded(record.as_ref(), &from, printer)? };
    let objects = objects(&install::values(start, &args.values)?);
    let objects = install::spare(cluster, objects, printer).await?;
    let (changes, left, pods) =
        tokio::join!(changes(cluster, &objects), leftovers::find(cluster, &objects), cluster.pods(None));
    let (mut changes, left) = (changes?, left?);
    changes.extend(left.iter().filter_map(|object| change(object, Some(object.0.clone()), Value::Null)));
    let plan = Plan {
        api_version: API_VERSION,
        kind: "UpgradePlan",
        from,
        to: env!("CARGO_PKG_VERSION"),
        changes,
        proxies: outdated(&pods?),
    };
    if args.apply {
        install::put(cluster, &objects, printer).await?;
        leftovers::remove(cluster, &left).await?;
        for object in &left {
            printer.say(format!("√ {} removed", named(object)));
        }
        install::wait(cluster, started, args.timeout, printer).await?;
    }
    show(&plan, args.apply, printer)?;
    let word = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let of = format!("{} to {}", plan.from, plan.to);
    let restart = word(plan.proxies.len(), "workload");
    if args.apply {
        printer
            .say(format!("upgraded from {of}; other proxies in {restart}, which are served until they are restarted"));
        return Ok(());
    }
    if plan.changes.is_empty() {
        printer.say(format!("nothing would change, from {of}; other proxies in {restart}"));
        return Ok(());
    }
    let changes = word(plan.changes.len(), "object");
    printer
        .say(format!("{changes} would change, from {of}; other proxies in {restart}; meshctl upgrade --apply does it"));
    Err(Failure::told(Exit::Bad))
}

/// What the installation says of itself; none where an earlier release made it, which said nothing.
async fn record(cluster: &Cluster) -> Result<Option<Value>, Failure> {
    let path = format!("/api/v1/namespaces/{}/configmaps/{}", names::SYSTEM_NAMESPACE, names::VALUES_NAME);
    Ok(cluster.find(&path).await?)
}

/// What Helm has made is for Helm to change: it would put back what we do, and keep a record that is no longer true.
fn refuse_helm(record: &Value) -> Result<(), Failure> {
    let said = |key: &str| record["metadata"]["annotations"][format!("meta.helm.sh/{key}")].as_str();
    let Some(release) = said("release-name") else { return Ok(()) };
    let of = said("release-namespace").map(|namespace| format!(" -n {namespace}")).unwrap_or_default();
    Err(Failure::new(Exit::Bad, format!("the mesh was installed by Helm, as release {release}"))
        .fix(format!("helm upgrade {release} deploy/chart{of}; without --apply this shows what it would change")))
}

/// The values that the mesh was installed with, as far as this release knows them.
fn recorded(record: Option<&Value>, from: &str, printer: &Printer) -> Result<Values, Failure> {
    let text = record.and_then(|record| record.pointer("/data/values.yaml")).and_then(Value::as_str);
    let Some(text) = text else {
        printer.warn(
            "with which values the mesh was installed is not recorded: those that are not given are the defaults",
        );
        return Ok(Values::defaults());
    };
    let release = record.and_then(release).unwrap_or(from);
    let Recorded { values, unknown } = Values::recorded(text, release).map_err(|error| {
        let message = format!("the values in ConfigMap {}: {error}", names::VALUES_NAME);
        Failure::new(Exit::Bad, message)
            .fix("--reset-values starts from the defaults; give with --set what is to differ")
    })?;
    for key in unknown {
        printer.warn(format!("{key} is no value of {}: it is dropped", env!("CARGO_PKG_VERSION")));
    }
    for (key, image) in values.other_images() {
        printer.warn(format!("{key} stays {image}, as it was set; --set {key}=IMAGE changes it"));
    }
    Ok(values)
}

/// The release that a record is of.
fn release(record: &Value) -> Option<&str> {
    record["metadata"]["labels"][names::LABEL_VERSION].as_str()
}

/// The release that is installed: that of its controller's image, or where somebody has given that a tag of his own the one on
/// record.
async fn installed(cluster: &Cluster, record: Option<&Value>) -> Result<String, Failure> {
    let path = format!("/apis/apps/v1/namespaces/{}/deployments/{}", names::SYSTEM_NAMESPACE, names::CONTROLLER_NAME);
    let deployment = cluster.find(&path).await?.ok_or_else(|| {
        Failure::new(Exit::NotFound, "no mesh is installed on this cluster")
            .fix("meshctl install --apply, or meshctl install | kubectl apply -f -")
    })?;
    let containers = deployment.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let mut images = containers.into_iter().flatten().filter_map(|container| container["image"].as_str());
    let found = images.find_map(|image| tag(image, names::CONTROLLER_NAME));
    let found = found.filter(|tag| minor(tag).is_some()).or_else(|| record.and_then(release)).or(found);
    Ok(found.unwrap_or("unknown").to_owned())
}

/// Major and minor number of a release; none where it is not of this shape.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    Some((parts.next()??, parts.next()??))
}

/// Releases are one minor release apart at most: proxies and controllers of such are tested together, others are not.
fn in_step(from: &str, to: &str) -> Result<(), Failure> {
    // Of an image with another tag nothing is known; the diff shows it.
    let (Some(old), Some(new)) = (minor(from), minor(to)) else { return Ok(()) };
    if old.0 == new.0 && old.1.abs_diff(new.1) <= 1 {
        return Ok(());
    }
    let next = if old < new { old.1 + 1 } else { old.1.saturating_sub(1) };
    let message = format!("{from} is installed, and this meshctl is {to}: more than one minor release apart");
    Err(Failure::new(Exit::Bad, message).fix(format!("go step by step: meshctl {}.{next} first", old.0)))
}

/// What would change, object by object.
async fn changes(cluster: &Cluster, objects: &[Object]) -> Result<Vec<Change>, Failure> {
    let ask = |object: &Object| {
        let (object, cluster) = (object.clone(), cluster.clone());
        async move {
            let live = cluster.find(&object.url()).await?;
            let sent = cluster.apply(&object.url(), &object.0, true).await;
            let refused = |error: ClusterError| match error {
                ClusterError::Answer { reason, .. } => {
                    Failure::new(Exit::Bad, format!("nothing was changed: {}: {reason}", object.title()))
                }
                error => error.into(),
            };
            let then = sent.unwrap_or(Ok(Value::Null)).map_err(refused)?;
            Ok::<_, Failure>(change(&object, live, then))
        }
    };
    let all = join_all(objects.iter().map(ask)).await;
    Ok(all.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// The difference between what is there and what would be (null: it is removed); none where there is none.
fn change(object: &Object, live: Option<Value>, then: Value) -> Option<Change> {
    let text = |value: Value| serde_saphyr::to_string(&said(value)).unwrap_or_default();
    let becomes = match &live {
        None => Becomes::New,
        Some(_) if then.is_null() => Becomes::Removed,
        Some(_) => Becomes::Changed,
    };
    let after = if then.is_null() { String::new() } else { text(then) };
    let before = live.map(text).unwrap_or_default();
    if before == after {
        return None;
    }
    let name = named(object);
    let then = if becomes == Becomes::Removed { "removed" } else { "then" };
    let diff = TextDiff::from_lines(&before, &after);
    let diff = diff
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&format!("{name}, as it is"), &format!("{name}, {then}"))
        .to_string();
    Some(Change { object: name, becomes, diff })
}

/// With where it is.
fn named(object: &Object) -> String {
    object.namespace().map_or_else(|| object.title(), |namespace| format!("{} in {namespace}", object.title()))
}

/// Workloads with proxies of another release.
fn outdated(pods: &[PodInfo]) -> Vec<Outdated> {
    let mut all: BTreeMap<(&str, String), &str> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.meshed) {
        let version = pod.proxy_version.as_deref().unwrap_or("unknown");
        if version != env!("CARGO_PKG_VERSION") {
            all.insert((&pod.namespace, pod.workload_or_name()), version);
        }
    }
    let row = |((namespace, workload), proxy): ((&str, String), &str)| Outdated {
        namespace: namespace.to_owned(),
        proxy: proxy.to_owned(),
        target: env!("CARGO_PKG_VERSION"),
        action: match workload.split_once('/') {
            Some(("deployment" | "statefulset" | "daemonset", _)) => {
                format!("kubectl -n {namespace} rollout restart {workload}")
            }
            Some(("job" | "cronjob", _)) => "its next run has it".to_owned(),
            _ => "create it anew".to_owned(),
        },
        workload,
    };
    all.into_iter().map(row).collect()
}

fn show(plan: &Plan, applied: bool, printer: &Printer) -> Result<(), Failure> {
    match printer.output {
        Output::Ndjson => return printer.line(plan),
        Output::Json | Output::Yaml => return printer.document(plan),
        _ => {}
    }
    // What was applied is no plan any more.
    if !applied {
        for change in &plan.changes {
            printer.data(&change.diff)?;
        }
    }
    if plan.proxies.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([
        Column::namespace(),
        Column::name("WORKLOAD").readable(20),
        "PROXY".into(),
        "TARGET".into(),
        Column::name("ACTION").readable(40),
    ]);
    for row in &plan.proxies {
        let cells: [&str; 5] = [&row.namespace, &row.workload, &row.proxy, row.target, &row.action];
        table.row(cells.map(Cell::text).into());
    }
    printer.table(&table)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::fixture;

    #[test]
    fn one_minor_release_at_a_time() {
        for (from, to, fix) in [
            ("0.1.0", "0.1.9", None),
            ("0.1.0", "0.2.0", None),
            ("0.2.0", "0.1.0", None),
            ("dev", "0.2.0", None),
            ("0.1.0", "0.3.0", Some("meshctl 0.2 first")),
            ("0.4.0", "0.2.0", Some("meshctl 0.3 first")),
            ("0.9.0", "1.0.0", Some("meshctl 0.10 first")),
        ] {
            let answer = in_step(from, to);
            assert_eq!(answer.is_err(), fix.is_some(), "{from} {to}");
            if let Err(failure) = answer {
                assert!(failure.fix.as_ref().unwrap().ends_with(fix.unwrap()), "{failure}");
                assert_eq!(failure.exit, Exit::Bad);
            }
        }
    }

    #[test]
    fn what_the_api_server_notes_is_no_change() {
        let object = Object(json!({"kind": "Deployment", "metadata": {"name": "a", "namespace": "n"}}));
        let live = |image: &str, version: &str| {
            json!({"kind": "Deployment", "metadata": {"name": "a", "namespace": "n", "resourceVersion": version, "generation": 2,
                "annotations": {"deployment.kubernetes.io/revision": version}}, "spec": {"image": image}, "status": {"x": version}})
        };
        assert_eq!(change(&object, Some(live("a:1", "1")), live("a:1", "2")), None);
        let changed = change(&object, Some(live("a:1", "1")), live("a:2", "2")).unwrap();
        assert_eq!((changed.object.as_str(), changed.becomes), ("Deployment a in n", Becomes::Changed));
        assert!(changed.diff.contains("-  image: a:1\n+  image: a:2\n"), "{}", changed.diff);
        let new = change(&object, None, live("a:2", "2")).unwrap();
        assert!(new.becomes == Becomes::New && new.diff.contains("+kind: Deployment"), "{}", new.diff);
        let gone = change(&object, Some(live("a:2", "2")), Value::Null).unwrap();
        assert!(gone.becomes == Becomes::Removed && gone.diff.contains("-kind: Deployment"), "{}", gone.diff);
        assert!(gone.diff.contains("+++ Deployment a in n, removed\n"), "{}", gone.diff);
    }

    #[test]
    fn what_helm_has_made_is_left_to_helm() {
        let record = |annotations: Value| json!({"kind": "ConfigMap", "metadata": {"annotations": annotations}});
        assert!(refuse_helm(&record(json!({"a": "b"}))).is_ok() && refuse_helm(&record(Value::Null)).is_ok());
        let helm = json!({"meta.helm.sh/release-name": "mesh", "meta.helm.sh/release-namespace": "ops"});
        let failure = refuse_helm(&record(helm)).unwrap_err();
        assert!(failure.to_string().contains("as release mesh"), "{failure}");
        assert!(failure.fix.unwrap().starts_with("helm upgrade mesh deploy/chart -n ops;"));
    }

    #[test]
    fn proxies_of_another_release_are_named_with_what_replaces_them() {
        let old = |name: &str, deployment: Option<&str>| PodInfo {
            proxy_version: Some("0.0.9".to_owned()),
            ..fixture::pod(name, deployment, true, "10.0.0.1")
        };
        let pods = [old("web-1", Some("web")), old("web-2", Some("web")), old("lone", None)];
        let rows = outdated(&pods);
        let actions: Vec<(&str, &str)> = rows.iter().map(|row| (row.workload.as_str(), row.action.as_str())).collect();
        let restart = "kubectl -n shop rollout restart deployment/web";
        assert_eq!(actions, [("deployment/web", restart), ("pod/lone", "create it anew")]);
        assert_eq!(outdated(&[fixture::pod("plain", Some("web"), false, "10.0.0.1")]), []);
    }
}
