//! `meshctl install | kubectl apply -f -`.

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{kubectl, mesh, meshctl};
use mesh_proto::names;
use serde_json::Value;

#[test]
#[ignore = "needs a cluster: just e2e"]
fn applying_the_manifest_again_changes_nothing() -> anyhow::Result<()> {
    mesh::install()?;
    let said = kubectl(&["apply", "--filename", "-"], &mesh::manifest()?)?.ok()?;
    let changed: Vec<_> = said.lines().filter(|line| !line.ends_with(" unchanged")).collect();
    ensure!(said.lines().count() > 15 && changed.is_empty(), "{changed:#?}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn an_upgrade_keeps_the_values_of_the_installation_and_removes_what_they_no_longer_ask_for() -> anyhow::Result<()> {
    mesh::install()?;
    let role =
        || kubectl(&["get", "clusterrole", "mesh-injector-evict", "--ignore-not-found", "--output", "name"], "")?.ok();
    let applied = meshctl(&["upgrade", "--apply", "--set", "injector.evict=true"], "")?;
    ensure!(applied.code == Some(0) && !role()?.is_empty(), "{applied}");
    let plan = meshctl(&["upgrade"], "")?;
    ensure!(plan.code == Some(0) && plan.stderr.contains("nothing would change"), "{plan}");
    let plan = meshctl(&["upgrade", "--reset-values"], "")?;
    ensure!(plan.code == Some(1) && plan.stdout.contains("+++ ClusterRole mesh-injector-evict, removed\n"), "{plan}");
    let applied = meshctl(&["upgrade", "--apply", "--reset-values"], "")?;
    ensure!(applied.code == Some(0) && role()?.is_empty(), "{applied}");
    ensure!(applied.stderr.contains("√ ClusterRole mesh-injector-evict removed\n"), "{applied}");

    // As Helm marks what it makes.
    let mark = |value: &str| {
        let record = ["--namespace", names::SYSTEM_NAMESPACE, "annotate", "configmap", names::VALUES_NAME, value];
        kubectl(&record, "")?.ok()
    };
    mark("meta.helm.sh/release-name=mesh")?;
    let refused = meshctl(&["upgrade", "--apply"], "");
    mark("meta.helm.sh/release-name-")?;
    let refused = refused?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("helm upgrade mesh"), "{refused}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_definition_of_routes_that_others_have_brought_stays_theirs() -> anyhow::Result<()> {
    mesh::install()?;
    let Some(definitions) = std::env::var_os("MESH_E2E_GATEWAY_API") else { return Ok(()) };
    let definitions = definitions.to_str().context("a path in UTF-8")?;
    let gone = ["delete", "--ignore-not-found", "--timeout=240s", "--filename", definitions];
    // Of a run before.
    kubectl(&gone, "")?.ok()?;
    // Too large for the annotation that an apply by the client leaves.
    kubectl(&["apply", "--server-side", "--filename", definitions], "")?.ok()?;
    let plan = meshctl(&["upgrade", "--set", "gatewayApi.install=true"], "")?;
    ensure!(plan.stderr.contains("and not of the mesh: it stays") && !plan.stdout.contains("HTTPRoute"), "{plan}");
    kubectl(&gone, "")?.ok()?;
    Ok(())
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn the_control_plane_is_up_at_the_first_attempt() -> anyhow::Result<()> {
    mesh::install()?;
    let pods = ["--namespace", names::SYSTEM_NAMESPACE, "get", "pods", "--output", "json"];
    let pods: Value = serde_json::from_str(&kubectl(&pods, "")?.ok()?)?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    ensure!(pods.len() >= 2, "{}", pods.len());
    for pod in pods {
        let container = &pod["status"]["containerStatuses"][0];
        ensure!(container["restartCount"] == 0, "{container:#}");
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn an_image_holds_one_program_that_knows_its_commit_and_no_shell() -> anyhow::Result<()> {
    mesh::install()?;
    for name in [names::CONTROLLER_NAME, names::INJECTOR_NAME] {
        let deployment = format!("deployment/{name}");
        let exec = ["--namespace", names::SYSTEM_NAMESPACE, "exec", &deployment, "--"];
        let version = kubectl(&[&exec[..], &[&format!("/{name}"), "--version"]].concat(), "")?.ok()?;
        ensure!(version.starts_with(name) && version.contains(" (commit "), "{version}");
        let shell = kubectl(&[&exec[..], &["sh", "-c", "true"]].concat(), "")?;
        ensure!(shell.code != Some(0) && shell.stderr.contains("executable file not found"), "{shell}");
    }
    Ok(())
}
