//! The root of trust is replaced, as `docs/certificates.md` says, while pods talk.

use std::path::Path;

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, mesh, meshctl, page, shop, until};
use serde_json::Value;

use crate::load;

const PAGE: &str = "docs/certificates.md";

#[test]
#[ignore = "needs a cluster: just e2e"]
fn the_root_is_replaced_under_load_and_no_request_fails() -> anyhow::Result<()> {
    mesh::install()?;
    let namespace = Namespace::meshed("mesh-e2e-certificates")?;
    namespace.apply(&shop::orders())?;
    namespace.rolled_out("deployment/orders")?;
    load::start(&namespace)?;
    let steps = page::of(PAGE, Some("Replacing the root"))?;
    let [add, switch, drop] = &steps[..] else { anyhow::bail!("the page has other steps: {steps:#?}") };
    let step = |command| page::type_in(Path::new("."), PAGE, command);
    let before = issuers(&namespace, 1)?;

    step(add)?;
    until("every proxy trusts both roots", || issuers(&namespace, 2))?;
    step(switch)?;
    // Old certificates and new ones, side by side. A restart is quicker than the life of a certificate, and each is asked
    // for until it comes from the new root: it takes a moment to reach the controller that is asked.
    until("certificates come from the new root", || {
        namespace.run(&["rollout", "restart", "deployment/orders"])?.ok()?;
        namespace.rolled_out("deployment/orders")?;
        let mut now = until("the pods before are gone", || issuers(&namespace, 2))?;
        now.retain(|issuer| !before.contains(issuer));
        ensure!(now.len() == 2, "of two pods new are {now:?}");
        Ok(())
    })?;
    load::never_failed(&namespace)?;

    namespace.run(&["delete", "pod", "load"])?.ok()?;
    load::start(&namespace)?;
    step(drop)?;
    let after = until("every proxy trusts the new root alone", || issuers(&namespace, 1))?;
    ensure!(after.iter().all(|issuer| !before.contains(issuer)), "{before:?}, then {after:?}");
    load::never_failed(&namespace)
}

/// Who signed the certificate of each of the three proxies; each must trust so many roots.
fn issuers(namespace: &Namespace, roots: u64) -> anyhow::Result<Vec<String>> {
    let list = meshctl(&["identity", "--all", "--namespace", namespace.name(), "-o", "json"], "")?.ok()?;
    let list: Value = serde_json::from_str(&list)?;
    let proxies = list["items"].as_array().context("items")?;
    ensure!(proxies.len() == 3 && proxies.iter().all(|proxy| proxy["roots"] == roots), "{list:#}");
    Ok(proxies.iter().map(|proxy| proxy["issuer"].to_string()).collect())
}
