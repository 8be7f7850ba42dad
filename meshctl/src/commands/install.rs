//! `meshctl install`: prints the manifest of the control plane, or with `--apply` puts it into force and waits until the
//! control plane works, saying why as long as it does not.

use std::{fs, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::uninstall::refuse_playground;
use crate::{
    check::{Verdict, pre},
    cli,
    cluster::{Cluster, ClusterError},
    failure::{Exit, Failure},
    install::{
        self, Values, ValuesError, gateway_api,
        objects::{Object, objects, said},
        progress::{self, Part},
    },
    printer::Printer,
};

/// Between two looks at what has started.
const AGAIN: Duration = Duration::from_secs(1);
const EVENTS: &str = "events?fieldSelector=reason%3DUnhealthy";

/// Prints the manifest.
pub(crate) fn print(args: &cli::Install, printer: &Printer) -> Result<(), Failure> {
    printer.data(&install::render(&values(Values::defaults(), &args.values)?))
}

/// What the options come to: where one starts, then `--ha` and the profile, then the file, then what was set one by one.
pub(crate) fn values(start: Values, args: &cli::Values) -> Result<Values, Failure> {
    let failed = |error: ValuesError| {
        let keys = Values::defaults().keys().join(", ");
        Failure::new(Exit::Usage, error.to_string()).fix(format!("--set KEY=VALUE, where KEY is one of {keys}"))
    };
    let mut values = start;
    if args.ha {
        values = values.highly_available();
    }
    if let Some(profile) = args.profile {
        values = values.profile(profile);
    }
    for path in &args.files {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::new(Exit::NotFound, format!("read {}: {error}", path.display())))?;
        values = values.file(&text).map_err(|error| {
            Failure::new(Exit::Usage, format!("{}: {error}", path.display()))
                .fix("it is written like deploy/values.yaml; meshctl explain install shows the values")
        })?;
    }
    values.set_all(&args.set).map_err(failed)
}

/// Puts the manifest into force.
pub(crate) async fn apply(cluster: &Cluster, args: &cli::Install, printer: &Printer) -> Result<(), Failure> {
    let values = values(Values::defaults(), &args.values)?;
    refuse_playground(cluster)?;
    let started = Instant::now();
    ask_first(cluster).await?;
    let objects = spare(cluster, objects(&values), printer).await?;
    put(cluster, &objects, printer).await?;
    wait(cluster, started, args.timeout, printer).await?;
    printer.say(format!("ready in {:.0}s", started.elapsed().as_secs_f64()));
    printer.say("  kubectl label namespace NAME meshctl.dev/inject=enabled    # then restart its workloads");
    printer.say("  meshctl check");
    Ok(())
}

/// Without those definitions of the Gateway API that the cluster has, from others or newer: they stay, which is said.
pub(crate) async fn spare(cluster: &Cluster, all: Vec<Object>, printer: &Printer) -> Result<Vec<Object>, Failure> {
    let mut ours = Vec::with_capacity(all.len());
    for object in all {
        if gateway_api::is_definition(&object)
            && let Some(live) = cluster.find(&object.url()).await?
            && let Some(reason) = gateway_api::keeps(&live, &object)
        {
            printer.say(reason);
            continue;
        }
        ours.push(object);
    }
    Ok(ours)
}

/// What would fail half way is better not begun.
async fn ask_first(cluster: &Cluster) -> Result<(), Failure> {
    let (outcomes, exit) = pre::cluster(cluster).await?;
    let bad = outcomes.into_iter().find(|one| !matches!(one.verdict, Verdict::Ok | Verdict::Warning));
    let Some(bad) = bad else { return Ok(()) };
    let found = bad.findings.first().map(|found| found.text.clone()).unwrap_or_default();
    let exit = match bad.verdict {
        Verdict::NotAllowed => Exit::Unreachable,
        _ => exit.unwrap_or(Exit::Bad),
    };
    Err(Failure::new(exit, format!("nothing was changed: {found}")).fix("meshctl check --pre says all there is to say"))
}

/// Applies every object, in order, as `kubectl apply --server-side` would.
pub(crate) async fn put(cluster: &Cluster, objects: &[Object], printer: &Printer) -> Result<(), Failure> {
    let waiting = printer.waiting(&format!("applying {} objects…", objects.len()));
    let (mut new, mut changed) = (0, 0);
    for object in objects {
        let before = cluster.find(&object.url()).await?;
        let after = match cluster.apply(&object.url(), &object.0, false).await {
            Some(Ok(after)) => after,
            Some(Err(ClusterError::Answer { reason, .. })) => {
                return Err(Failure::new(Exit::Bad, format!("{}: {reason}", object.title()))
                    .fix("correct what is named and run it again: what was applied before stays"));
            }
            Some(Err(error)) => return Err(error.into()),
            None => Value::Null,
        };
        match before.map(said) {
            None => new += 1,
            Some(before) => changed += usize::from(before != said(after)),
        }
    }
    waiting.end();
    let same = objects.len() - new - changed;
    printer.say(format!("√ {} objects: {new} new, {changed} changed, {same} as they were", objects.len()));
    Ok(())
}

/// Waits until both parts serve and the API server trusts the webhook.
pub(crate) async fn wait(
    cluster: &Cluster,
    started: Instant,
    timeout: Duration,
    printer: &Printer,
) -> Result<(), Failure> {
    let deadline = started + timeout;
    let mut told: Vec<Part> = Vec::new();
    loop {
        let parts = look(cluster).await?;
        for part in parts.iter().filter(|part| !told.contains(part)) {
            printer.say(part.to_string());
        }
        told = parts;
        let open: Vec<String> = told.iter().filter(|part| !part.is_done()).map(Part::reason).collect();
        if open.is_empty() {
            return Ok(());
        }
        if Instant::now() + AGAIN > deadline {
            let message = format!("timed out after {timeout:?}: {}", open.join("; "));
            return Err(Failure::new(Exit::TimedOut, message).fix("meshctl check says more; --timeout gives it longer"));
        }
        sleep(AGAIN).await;
    }
}

async fn look(cluster: &Cluster) -> Result<Vec<Part>, Failure> {
    let base = format!("namespaces/{}", mesh_proto::names::SYSTEM_NAMESPACE);
    let get = |path: String| async move { cluster.get(&path).await.unwrap_or(Ok(Value::Null)) };
    let (deployments, pods, events, webhook) = tokio::join!(
        get(format!("/apis/apps/v1/{base}/deployments")),
        get(format!("/api/v1/{base}/pods")),
        get(format!("/api/v1/{base}/{EVENTS}")),
        get(progress::WEBHOOK.to_owned()),
    );
    // Events only say more.
    let events = events.unwrap_or_default();
    Ok(progress::parts(&deployments?, &pods?, &events, &webhook?))
}
