//! `meshctl uninstall`: what `kubectl delete -f -` takes, in the order in which it does no harm.
//!
//! It asks the API server only, so that it works with a control plane that does not: what is there of the manifest, and what
//! the controller has put into other namespaces. What is not there is not printed, so that kubectl finds all of it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use mesh_proto::names;
use serde_json::{Value, json};

use super::leftovers;
use crate::{
    cli,
    cluster::{Cluster, ClusterError, PodInfo},
    failure::{Exit, Failure},
    install::{
        Values, gateway_api,
        objects::{Object, is_ours, objects, removal},
    },
    printer::Printer,
};

const TRUST_BUNDLES: &str = "/api/v1/configmaps?fieldSelector=metadata.name%3D";
const POLICIES: &str = "/apis/meshctl.dev/v1alpha1/authorizationpolicies";
/// Meshed workloads that are named; the rest is counted.
const NAMED: usize = 5;

pub(crate) async fn run(cluster: &Cluster, args: &cli::Uninstall, printer: &Printer) -> Result<(), Failure> {
    refuse_playground(cluster)?;
    let cluster = cluster.insisting();
    let pods = cluster.pod_objects(None).await?;
    let meshed = meshed(&pods);
    if !meshed.is_empty() && !args.force {
        return Err(still_meshed(&meshed));
    }
    let every = objects(&Values::of_every_part());
    let (found, left, bundles) =
        tokio::join!(installed(&cluster, &every), leftovers::find(&cluster, &every), trust_bundles(&cluster));
    let (definitions, found): (Vec<_>, Vec<_>) = found?.into_iter().partition(gateway_api::is_definition);
    let all = removal([found, left?, bundles?].concat());
    if all.is_empty() {
        return printer.nothing("nothing of the mesh is installed on this cluster");
    }
    if !meshed.is_empty() {
        printer.warn(format!(
            "{} still run with a sidecar: it serves on what it knows until its certificate ends, and learns nothing new",
            name(&meshed)
        ));
    }
    let policies = policies(&cluster, &all).await;
    if policies > 0 {
        printer.warn(format!(
            "{policies} AuthorizationPolicies go with their definition; to keep them: kubectl get authorizationpolicies -A -o yaml"
        ));
    }
    for definition in definitions {
        let name = definition.name();
        printer.warn(format!("{name} stays: everybody's routes go with it; to remove it: kubectl delete crd {name}"));
    }
    let manifest: String = all.iter().map(Object::reference).collect();
    printer.data(&manifest)?;
    printer.say(format!("{} objects, the webhook first: meshctl uninstall | kubectl delete -f -", all.len()));
    Ok(())
}

/// What comes and goes with `meshctl playground` is not installed.
pub(crate) fn refuse_playground(cluster: &Cluster) -> Result<(), Failure> {
    if cluster.is_playground() {
        return Err(Failure::new(Exit::Usage, "nothing is installed on a playground, nor removed from it")
            .fix("meshctl playground stop ends it"));
    }
    Ok(())
}

/// The workloads of pods that run with a sidecar, by namespace.
fn meshed(pods: &[Pod]) -> BTreeSet<(String, String)> {
    let ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let infos = pods.iter().filter(|pod| !ended(pod)).map(PodInfo::from_object);
    infos.filter(|pod| pod.meshed).map(|pod| (pod.namespace.clone(), pod.workload_or_name())).collect()
}

fn name(meshed: &BTreeSet<(String, String)>) -> String {
    let names = meshed.iter().take(NAMED).map(|(namespace, workload)| format!("{workload} in {namespace}"));
    let names = names.collect::<Vec<_>>().join(", ");
    if meshed.len() > NAMED { format!("{names} and {} more", meshed.len() - NAMED) } else { names }
}

/// Whose sidecars would be left without a mesh, and how they get rid of them.
fn still_meshed(meshed: &BTreeSet<(String, String)>) -> Failure {
    let mut fix = String::new();
    let mut namespaces: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (namespace, workload) in meshed {
        namespaces.entry(namespace).or_default().push(workload);
    }
    for (namespace, workloads) in namespaces.into_iter().take(NAMED) {
        fix.push_str(&format!("kubectl label namespace {namespace} {}-\n       ", names::LABEL_INJECT));
        fix.push_str(&format!("kubectl -n {namespace} rollout restart {}\n       ", workloads.join(" ")));
    }
    fix.push_str("then meshctl uninstall again; --force goes on without");
    Failure::new(Exit::Bad, format!("{} are still meshed", name(meshed))).fix(fix)
}

/// What there is of the manifest. Of a definition of the Gateway API only one that the mesh brought.
async fn installed(cluster: &Cluster, every: &[Object]) -> Result<Vec<Object>, ClusterError> {
    let look = |object: &Object| {
        let object = object.clone();
        async move {
            let found = cluster.find(&object.url()).await?;
            let counts = found.is_some_and(|live| !gateway_api::is_definition(&object) || is_ours(&live));
            Ok::<_, ClusterError>(counts.then_some(object))
        }
    };
    let found = join_all(every.iter().map(look)).await;
    Ok(found.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// The roots of trust that the controller has put beside pods. Those of its own namespace go with that.
async fn trust_bundles(cluster: &Cluster) -> Result<Vec<Object>, ClusterError> {
    let Some(answer) = cluster.get(&format!("{TRUST_BUNDLES}{}", names::TRUST_BUNDLE_NAME)).await else {
        return Ok(Vec::new());
    };
    let answer = answer?;
    let namespaces = answer["items"].as_array().into_iter().flatten().filter_map(|item| {
        let namespace = item["metadata"]["namespace"].as_str()?;
        let is_it = item["metadata"]["name"] == names::TRUST_BUNDLE_NAME && namespace != names::SYSTEM_NAMESPACE;
        is_it.then_some(namespace)
    });
    let object = |namespace: &str| {
        let metadata = json!({"name": names::TRUST_BUNDLE_NAME, "namespace": namespace});
        Object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}))
    };
    Ok(namespaces.map(object).collect())
}

/// How many objects go with their definition. A count for a warning: that it is not known is no reason to stop.
async fn policies(cluster: &Cluster, all: &[Object]) -> usize {
    if !all.iter().any(|object| object.kind() == "CustomResourceDefinition") {
        return 0;
    }
    let answer = cluster.get(POLICIES).await.and_then(Result::ok);
    answer.and_then(|list| list.get("items").and_then(Value::as_array).map(Vec::len)).unwrap_or(0)
}
