//! What is killed comes back by itself, and what runs goes on meanwhile.

use anyhow::ensure;
use mesh_cluster_tests::{Namespace, kubectl, mesh, meshctl, shop::ORDERS_POD, until};
use mesh_proto::names;

use crate::load;

#[test]
#[ignore = "needs a cluster: just e2e"]
fn all_pods_of_the_control_plane_die_at_once_and_nobody_notices() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-faults")?;
    namespace.apply(ORDERS_POD)?;
    namespace.run(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=240s"])?.ok()?;
    load::start(&namespace)?;

    let system = ["--namespace", names::SYSTEM_NAMESPACE];
    kubectl(&[&system[..], &["delete", "pods", "--all", "--grace-period=0", "--force"]].concat(), "")?.ok()?;
    mesh::ready()?;

    // It is let in by what came back, and has its certificate from there.
    namespace.apply(&ORDERS_POD.replace("name: orders, labels", "name: orders-2, labels"))?;
    namespace.run(&["wait", "--for=condition=Ready", "pod/orders-2", "--timeout=240s"])?.ok()?;
    let pod = &namespace.objects("pods", "app=orders")?[1];
    ensure!(pod["spec"]["initContainers"][0]["name"] == names::CONTAINER_PROXY, "{:#}", pod["spec"]);
    load::never_failed(&namespace)
}

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_pod_that_came_while_no_injector_was_there_starts_without_and_is_told_of() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-slipped")?;
    let scale = |replicas: &str| {
        let deployment = format!("deployment/{}", names::INJECTOR_NAME);
        kubectl(&["--namespace", names::SYSTEM_NAMESPACE, "scale", &deployment, replicas], "")?.ok()
    };
    scale("--replicas=0")?;
    let injector = format!("app.kubernetes.io/name={}", names::INJECTOR_NAME);
    let gone = ["wait", "--for=delete", "pod", "--selector", &injector, "--timeout=240s"];
    kubectl(&[&["--namespace", names::SYSTEM_NAMESPACE], &gone[..]].concat(), "")?.ok()?;
    namespace.apply(ORDERS_POD)?;
    namespace.run(&["wait", "--for=condition=Ready", "pod/orders", "--timeout=240s"])?.ok()?;
    scale("--replicas=1")?;
    mesh::up()?;

    let pod = &namespace.objects("pods", "app=orders")?[0];
    ensure!(pod["spec"]["initContainers"].is_null(), "{:#}", pod["spec"]);
    until("an event on the pod says so", || {
        let events = namespace.run(&["events", "--for", "pod/orders"])?.ok()?;
        ensure!(events.contains("restart-needed"), "{events}");
        Ok(())
    })?;
    let check = meshctl(&["check"], "")?;
    ensure!(check.stdout.contains("[pods-meshed]") && check.stdout.contains("mesh-e2e-slipped"), "{check}");
    Ok(())
}
