//! The pages for people with a cluster, followed command by command by a reader with `meshctl` in the PATH.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, kubectl, mesh, meshctl, page::follow, until};
use serde_json::{Value, json};

/// The page that ends with the mesh gone comes last.
#[test]
#[ignore = "needs a cluster: just e2e"]
fn what_a_page_says_to_type_works() -> anyhow::Result<()> {
    mesh::install()?;
    for page in ["docs/pods.md", "docs/gitops.md", "docs/air-gapped.md"] {
        follow(page)?;
    }
    a_user_of_one_namespace_sees_it_and_no_other()?;
    for left in ["shop", "later"] {
        kubectl(&["delete", "namespace", left, "--ignore-not-found", "--timeout=240s"], "")?.ok()?;
    }
    until("namespaces that are to go are gone", || {
        let namespaces = kubectl(&["get", "namespaces", "--output", "json"], "")?.ok()?;
        ensure!(!namespaces.contains("deletionTimestamp"), "some are not");
        Ok(())
    })?;
    follow("docs/getting-started.md")?;
    nothing_is_left()?;
    // Not meshed: nothing is in the way when the mesh goes.
    let shop = Namespace::plain("shop")?;
    shop.run(&["create", "deployment", "web", "--image=mesh-shop:dev", "--", "/mesh-shop", "web"])?.ok()?;
    follow("docs/install.md")?;
    nothing_is_left()
}

fn a_user_of_one_namespace_sees_it_and_no_other() -> anyhow::Result<()> {
    let team = Namespace::meshed("team")?;
    team.run(&["create", "deployment", "stock", "--image=mesh-shop:dev", "--", "/mesh-shop", "stock"])?.ok()?;
    team.rolled_out("deployment/stock")?;
    for account in ["developer", "stranger"] {
        team.run(&["create", "serviceaccount", account])?.ok()?;
    }
    follow("docs/namespace-users.md")?;
    let folder = tempfile::tempdir()?;
    for (account, works) in [("developer", true), ("stranger", false)] {
        let path = folder.path().join(account);
        fs::write(&path, kubeconfig_of(&team, account)?)?;
        let path = path.to_str().context("a path in UTF-8")?;
        for command in ["list", "stat", "identity", "connections", "tap"] {
            let mut arguments = vec![command, "--kubeconfig", path, "-n", team.name()];
            arguments.extend(match command {
                "stat" => &["--window", "1s"][..],
                "identity" => &["--all"],
                "tap" => &["--duration", "1s"],
                _ => &[],
            });
            let output = meshctl(&arguments, "")?;
            let told = output.stderr.contains("forbidden") || output.stderr.contains("may not");
            ensure!(if works { output.code == Some(0) } else { output.code != Some(0) && told }, "{account}: {output}");
        }
        let elsewhere = meshctl(&["list", "--kubeconfig", path, "-n", "mesh-system"], "")?;
        ensure!(elsewhere.code != Some(0), "{account} has no right there: {elsewhere}");
    }
    Ok(())
}

/// The kubeconfig of these tests, for another user.
fn kubeconfig_of(namespace: &Namespace, account: &str) -> anyhow::Result<String> {
    let token = namespace.run(&["create", "token", account])?.ok()?;
    let view = kubectl(&["config", "view", "--minify", "--raw", "--flatten", "--output", "json"], "")?.ok()?;
    let mut config: Value = serde_json::from_str(&view)?;
    config["users"][0]["user"] = json!({"token": token.trim()});
    Ok(config.to_string())
}

fn nothing_is_left() -> anyhow::Result<()> {
    for kind in [
        "namespaces",
        "clusterroles",
        "clusterrolebindings",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "customresourcedefinitions",
    ] {
        let names = kubectl(&["get", kind, "--output", "name"], "")?.ok()?;
        let ours: BTreeSet<_> =
            names.lines().filter(|name| name.contains("mesh-") || name.contains("meshctl.dev")).collect();
        ensure!(ours.is_empty(), "left behind: {ours:?}");
    }
    let bundles = kubectl(&["get", "configmaps", "--all-namespaces", "--output", "name"], "")?.ok()?;
    ensure!(!bundles.contains("mesh-trust-bundle"), "left behind: {bundles}");
    Ok(())
}
