//! The demo shop of `deploy/demo`, unchanged, in a labelled namespace.

use std::path::Path;

use anyhow::{Context as _, ensure};
use mesh_cluster_tests::{Namespace, mesh, meshctl, until};
use serde_json::Value;

const MESHED: [&str; 6] = ["load", "orders", "prices", "stock", "web", "web-v1"];
const VISITOR: &str = "visitor";

#[test]
#[ignore = "needs a cluster: just e2e"]
fn the_demo_shop_runs_meshed_as_its_manifests_are() -> anyhow::Result<()> {
    mesh::install()?;
    // The controller runs already, without knowing routes.
    if std::env::var_os("MESH_E2E_GATEWAY_API").is_some() {
        mesh::routes()?;
    }
    let shop = Namespace::meshed("shop")?;
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/demo");
    for folder in [demo.clone(), demo.join("gateway-api")] {
        shop.run(&["apply", "--filename", folder.to_str().context("a path in UTF-8")?])?.ok()?;
    }
    for name in MESHED.into_iter().chain([VISITOR]) {
        shop.rolled_out(&format!("deployment/{name}"))?;
    }

    everyone_is_meshed_but_the_visitor()?;
    each_has_the_identity_of_its_service_account()?;
    a_route_that_came_after_the_mesh_is_in_force(&shop)?;
    who_is_not_let_in_is_told_so_by_code(&shop)?;
    the_planted_fault_is_found_and_came_by_mutual_tls()?;
    let check = meshctl(&["check", "--wait", "--timeout=120s"], "")?;
    ensure!(check.code == Some(0), "{check}");
    Ok(())
}

fn everyone_is_meshed_but_the_visitor() -> anyhow::Result<()> {
    let list: Value = serde_json::from_str(&meshctl(&["list", "-n", "shop", "-o", "json"], "")?.ok()?)?;
    let items = list["items"].as_array().context("items")?;
    ensure!(items.len() == MESHED.len() + 1, "{list:#}");
    for item in items {
        let visitor = item["workload"] == format!("deployment/{VISITOR}");
        let (meshed, reason) = if visitor { (0, "disabled-by-pod".into()) } else { (1, Value::Null) };
        ensure!(item["meshed"] == meshed && item["ready"] == 1 && item["reason"] == reason, "{item:#}");
    }
    Ok(())
}

fn each_has_the_identity_of_its_service_account() -> anyhow::Result<()> {
    let list: Value = serde_json::from_str(&meshctl(&["identity", "--all", "-n", "shop", "-o", "json"], "")?.ok()?)?;
    let mut seen: Vec<_> = list["items"].as_array().context("items")?.iter().map(|item| &item["identity"]).collect();
    seen.sort_by_key(ToString::to_string);
    let expected = ["load", "orders", "prices", "stock", "web", "web"];
    let expected = expected.map(|account| Value::from(format!("spiffe://cluster.local/ns/shop/sa/{account}")));
    ensure!(seen == expected.iter().collect::<Vec<_>>(), "{list:#}");
    Ok(())
}

fn a_route_that_came_after_the_mesh_is_in_force(shop: &Namespace) -> anyhow::Result<()> {
    until("the header picks the version", || {
        // Without the route about one in two would come from the other version: ten are not chance.
        for _ in 0..10 {
            let answer = get(shop, &["-H", "x-version:v2", "http://web/"])?;
            ensure!(answer.contains(r#""version":"v2""#), "{answer}");
        }
        Ok(())
    })
}

fn who_is_not_let_in_is_told_so_by_code(shop: &Namespace) -> anyhow::Result<()> {
    let answer = get(shop, &["http://stock:7000/"])?;
    ensure!(answer.starts_with("403 ") && answer.contains("mesh-error: denied"), "{answer}");
    Ok(())
}

fn the_planted_fault_is_found_and_came_by_mutual_tls() -> anyhow::Result<()> {
    let arguments = ["tap", "-n", "shop", "deploy/web", "--from", "deploy/load", "--status", "5xx", "-c", "1"];
    let line = meshctl(&[&arguments[..], &["-o", "ndjson"]].concat(), "")?.ok()?;
    let request: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    ensure!(request["path"] == "/checkout" && request["tls"] == true, "{request:#}");
    ensure!(request["source"]["identity"] == "spiffe://cluster.local/ns/shop/sa/load", "{request:#}");
    ensure!(request["destination"]["identity"] == "spiffe://cluster.local/ns/shop/sa/web", "{request:#}");
    Ok(())
}

/// Asks from inside a meshed pod, whose image has no other program than the shop's.
fn get(shop: &Namespace, arguments: &[&str]) -> anyhow::Result<String> {
    let exec = ["exec", "deployment/load", "--container=load", "--", "/mesh-shop", "get", "-i"];
    shop.run(&[&exec, arguments].concat())?.ok()
}
