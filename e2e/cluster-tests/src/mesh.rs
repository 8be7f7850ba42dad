//! The mesh on the cluster: installed once for all tests of a run, and left there.

use std::sync::OnceLock;

use anyhow::{anyhow, ensure};
use mesh_proto::names;
use serde_json::json;

use crate::program::{kubectl, meshctl, until};

/// What `meshctl install` prints.
///
/// # Errors
/// What it said.
pub fn manifest() -> anyhow::Result<String> {
    meshctl(&["install"], "")?.ok()
}

/// Applies the manifest and waits for the control plane, the first time it is called.
///
/// # Errors
/// What `meshctl` or `kubectl` said.
pub fn install() -> anyhow::Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let install = || {
                kubectl(&["apply", "--filename", "-"], &manifest()?)?.ok()?;
                ready()
            };
            install().map_err(|error: anyhow::Error| format!("{error:#}"))
        })
        .clone()
        .map_err(|error| anyhow!(error))
}

/// Gives the cluster the definition of HTTPRoute, as a person would. Only for one that has none: another would be replaced.
///
/// # Errors
/// What `meshctl` or `kubectl` said.
pub fn routes() -> anyhow::Result<()> {
    let manifest = meshctl(&["install", "--set", "gatewayApi.install=true"], "")?.ok()?;
    kubectl(&["apply", "--filename", "-"], &manifest)?.ok()?;
    let definition = "customresourcedefinition/httproutes.gateway.networking.k8s.io";
    kubectl(&["wait", "--for=condition=Established", definition, "--timeout=240s"], "")?.ok()?;
    Ok(())
}

/// Waits until the control plane is up, `meshctl check` finds nothing wrong, and the next pod will be meshed.
///
/// # Errors
/// What `kubectl` or `meshctl` said.
pub fn ready() -> anyhow::Result<()> {
    up()?;
    let check = meshctl(&["check", "--wait", "--timeout=120s"], "")?;
    ensure!(check.code == Some(0), "{check}");
    until("the API server reaches the webhook", || {
        let admitted =
            kubectl(&["create", "--dry-run=server", "--output", "json", "--filename", "-"], &labelled_pod())?;
        ensure!(admitted.clone().ok()?.contains(names::CONTAINER_REDIRECT), "{admitted}");
        Ok(())
    })
}

/// Waits until the control plane is up.
///
/// # Errors
/// What `kubectl` said.
pub fn up() -> anyhow::Result<()> {
    for deployment in [names::CONTROLLER_NAME, names::INJECTOR_NAME] {
        let name = format!("deployment/{deployment}");
        kubectl(&["--namespace", names::SYSTEM_NAMESPACE, "rollout", "status", &name, "--timeout=240s"], "")?.ok()?;
    }
    Ok(())
}

/// The rules that lead from the Service to a new pod of the injector come a moment after the pod is ready.
fn labelled_pod() -> String {
    let metadata = json!({"name": "looked-at", "namespace": "default", "labels": {names::LABEL_INJECT: "enabled"}});
    let containers = json!([{"name": "none", "image": "none.invalid/none"}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}}).to_string()
}
