//! The mesh is installed otherwise than by default: with certificates that a person made, as `docs/certificates.md` says,
//! highly available, and closed to whoever has no identity. A file of its own, since it brings the mesh and takes it away:
//! the first of a run.

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, kubectl, mesh, meshctl, page, shop::ORDERS_POD};
use mesh_proto::names;
use serde_json::Value;

const PAGE: &str = "docs/certificates.md";
const VISITOR: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: visitor, labels: {meshctl.dev/inject: disabled}}
spec:
  containers: [{name: visitor, image: "mesh-shop:dev", args: [orders]}]
"#;
const REPLICAS: u64 = 3;

#[test]
#[ignore = "needs a cluster: just e2e"]
fn a_mesh_of_three_replicas_takes_the_certificates_that_a_person_made_and_survives_the_end_of_all() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    for part in ["A certificate authority of your own", "A webhook certificate of your own"] {
        for command in page::of(PAGE, Some(part))? {
            page::type_in(folder.path(), PAGE, &command)?;
        }
    }
    let given = secrets()?;
    let installed = meshctl(&["install", "--apply", "--ha", "--profile=authenticated"], "")?;
    ensure!(installed.code == Some(0) && installed.stderr.contains("ready in"), "{installed}");
    mesh::ready()?;
    for deployment in [names::CONTROLLER_NAME, names::INJECTOR_NAME] {
        let found = json(&["--namespace", names::SYSTEM_NAMESPACE, "get", "deployment", deployment])?;
        ensure!(found["status"]["readyReplicas"] == REPLICAS, "{found:#}");
    }

    let namespace = Namespace::meshed("mesh-e2e-choices")?;
    namespace.apply(ORDERS_POD)?;
    namespace.apply(VISITOR)?;
    namespace.run(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=240s"])?.ok()?;
    let identity = meshctl(&["identity", "orders", "--namespace", namespace.name(), "-o", "json"], "")?.ok()?;
    ensure!(identity.contains("CN=issuer of ours"), "{identity}");
    let asks = ["exec", "visitor", "--", "/mesh-shop", "get", "-i", "http://orders/"];
    let refused = namespace.run(&asks)?;
    ensure!(refused.to_string().contains("mesh-error: denied"), "{refused}");
    let webhook = json(&["get", "mutatingwebhookconfiguration", names::INJECTOR_NAME])?;
    for hook in webhook["webhooks"].as_array().context("webhooks")? {
        ensure!(hook["failurePolicy"] == "Fail", "{hook:#}");
        ensure!(hook["clientConfig"]["caBundle"] == given[1].0["ca.crt"], "{hook:#}");
    }

    // A webhook that must answer is not in the way of those who answer for it.
    let system = ["--namespace", names::SYSTEM_NAMESPACE, "delete", "pods", "--all", "--grace-period=0", "--force"];
    kubectl(&system, "")?.ok()?;
    mesh::ready()?;
    ensure!(secrets()? == given, "a Secret that a person made was written to");

    namespace.run(&["delete", "pods", "--all"])?.ok()?;
    let uninstall = meshctl(&["uninstall"], "")?.ok()?;
    kubectl(&["delete", "--timeout=240s", "--filename", "-"], &uninstall)?.ok().map(drop)
}

/// Data and annotations of both Secrets: the authority's, the webhook's.
fn secrets() -> anyhow::Result<Vec<(Value, Value)>> {
    let read = |name| -> anyhow::Result<_> {
        let secret = json(&["--namespace", names::SYSTEM_NAMESPACE, "get", "secret", name])?;
        Ok((secret["data"].clone(), secret["metadata"]["annotations"].clone()))
    };
    [names::CA_SECRET_NAME, names::WEBHOOK_SECRET_NAME].into_iter().map(read).collect()
}

fn json(get: &[&str]) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&kubectl(&[get, &["--output", "json"]].concat(), "")?.ok()?)?)
}
