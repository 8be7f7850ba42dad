//! `meshctl uninstall | kubectl delete -f -`. A file of its own, since nothing else can run beside it: the last of a run.

use anyhow::ensure;
use mesh_cluster_tests::{Namespace, kubectl, mesh, meshctl};
use mesh_proto::names;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: orders}
spec:
  containers: [{name: orders, image: "mesh-shop:dev", args: [orders]}]
"#;

/// Everything in a cluster that a mesh could leave behind, as `kubectl` names it, but for what is in the mesh's own namespace.
const KINDS: &str = "customresourcedefinitions,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,\
                     validatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,\
                     configmaps,secrets,services,serviceaccounts,roles,rolebindings,leases,deployments,networkpolicies";

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_broken_mesh_goes_only_by_force_while_pods_are_meshed_and_leaves_nothing() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-uninstall")?;
    namespace.apply(POD)?;
    namespace.run(&["wait", "--for=condition=Ready", "pod/orders", "--timeout=240s"])?.ok()?;
    let refused = meshctl(&["uninstall"], "")?;
    ensure!(refused.code == Some(1) && refused.stdout.is_empty(), "{refused}");
    ensure!(refused.stderr.contains("in mesh-e2e-uninstall"), "{refused}");

    // A control plane that is broken does not keep itself from going, nor does it take with it what is meshed.
    let broken = ["set", "image", "deployment", "--all", "*=none.invalid/none:1"];
    kubectl(&[&["--namespace", names::SYSTEM_NAMESPACE], &broken[..]].concat(), "")?.ok()?;
    kubectl(&["--namespace", names::SYSTEM_NAMESPACE, "delete", "pods", "--all"], "")?.ok()?;
    let forced = meshctl(&["uninstall", "--force"], "")?;
    ensure!(forced.stderr.contains("still run with a sidecar"), "{forced}");
    kubectl(&["delete", "--timeout=240s", "--filename", "-"], &forced.ok()?)?.ok()?;
    namespace.run(&["wait", "--for=condition=Ready", "pod/orders", "--timeout=10s"])?.ok()?;

    let gone = kubectl(&["get", "namespace", names::SYSTEM_NAMESPACE, "--ignore-not-found"], "")?.ok()?;
    ensure!(gone.is_empty(), "{gone}");
    let left = kubectl(&["get", KINDS, "--all-namespaces", "--output", "name", "--ignore-not-found"], "")?.ok()?;
    let left: Vec<_> = left.lines().filter(|line| line.contains("mesh") && !line.contains("mesh-e2e")).collect();
    ensure!(left.is_empty(), "{left:#?}");
    // What the mesh leaves alone works as if it had never been: pods start, and namespaces end.
    namespace.run(&["delete", "pod", "orders"])?.ok()?;
    namespace.apply(POD)?;
    namespace.run(&["wait", "--for=condition=Ready", "pod/orders", "--timeout=240s"])?.ok()?;
    let pods = namespace.objects("pods", "")?;
    ensure!(pods[0]["spec"]["initContainers"].is_null(), "{:#}", pods[0]["spec"]);
    kubectl(&["delete", "namespace", namespace.name(), "--timeout=240s"], "")?.ok()?;
    Ok(())
}
