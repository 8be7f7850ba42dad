//! A meshed pod that asks all the time, 50 times a second, and counts what became of it.

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, until};

/// Starts it. Its Service, `orders`, has ready endpoints.
pub(crate) fn start(namespace: &Namespace) -> anyhow::Result<()> {
    start_at(namespace, "orders")
}

/// Starts it. The Service that it asks has ready endpoints.
pub(crate) fn start_at(namespace: &Namespace, service: &str) -> anyhow::Result<()> {
    namespace.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: load}}
spec:
  containers: [{{name: load, image: "mesh-shop:dev", args: [load, "--url=http://{service}/", --rate=50]}}]
"#
    ))?;
    namespace.run(&["wait", "--for=condition=Ready", "pod/load", "--timeout=240s"])?.ok().map(drop)
}

/// Every request of it until now was answered, and not with a 5xx.
pub(crate) fn never_failed(namespace: &Namespace) -> anyhow::Result<()> {
    let said = || namespace.run(&["logs", "load", "--container=load"])?.ok();
    // It says how it goes every ten seconds: the next time is about all that was.
    let before = said()?.lines().count();
    let said = until("the client says how it goes", || {
        let said = said()?;
        ensure!(said.lines().count() > before, "{said}");
        Ok(said)
    })?;
    let last = said.lines().last().context("a line")?;
    ensure!(last.ends_with(", 0 failed, 0 unanswered") && !last.starts_with("0 "), "{said}");
    Ok(())
}
