//! `meshctl install | kubectl apply -f -`.

use anyhow::ensure;
use mesh_cluster_tests::{kubectl, mesh};
use mesh_proto::names;
use serde_json::Value;

#[test]
#[ignore = "needs a cluster: just e2e"]
fn applying_the_manifest_again_changes_nothing() -> anyhow::Result<()> {
    mesh::install()?;
    let budgets = || {
        let get = ["--namespace", names::SYSTEM_NAMESPACE, "get", "poddisruptionbudgets", "--output"];
        kubectl(&[&get[..], &["jsonpath={.items[*].metadata.generation}"]].concat(), "")?.ok()
    };
    let before = budgets()?;
    let said = kubectl(&["apply", "--filename", "-"], &mesh::manifest()?)?.ok()?;
    // kubectl replaces the selector of a budget each time, by the same one, and calls that "configured".
    let changed = said.lines().filter(|line| !line.ends_with(" unchanged") && !line.starts_with("poddisruptionbudget"));
    let changed: Vec<_> = changed.collect();
    ensure!(said.lines().count() > 15 && changed.is_empty() && budgets()? == before, "{changed:#?}");
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
