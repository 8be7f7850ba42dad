//! What is written to the directory of manifests comes into force while requests flow, and a mistake does not.

use std::{collections::BTreeMap, io};

use mesh_proto::{names, outcome::Outcome};
use mesh_testbed::{
    Member,
    manifests::{only, route},
    member::Pod,
    talk::{Answer, Lines, get},
    until,
};

use crate::{WEB, http, lines, mesh, settings};

fn ask(client: &Member, headers: &[(&str, &str)]) -> io::Result<Answer> {
    client.run(|| get(http(WEB), "/", headers))?
}

/// How many of 40 requests each pod answers.
fn shares(client: &Member) -> io::Result<BTreeMap<String, u32>> {
    let mut shares = BTreeMap::new();
    for _ in 0..40 {
        *shares.entry(ask(client, &[])?.body).or_default() += 1;
    }
    Ok(shares)
}

pub(crate) fn a_changed_route_is_in_force() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let _servers = (mesh.member(&Pod::new("a", "web", 1))?, mesh.member(&Pod::new("b", "web", 2))?);
    let client = mesh.member(&Pod::new("client", "client", 3))?;
    let to_b = [("x-to", "web-b")];

    mesh.control.apply("route.yaml", &route("web", &["web-b"], &[("web-a", 1), ("web-b", 0)]))?;
    let all_a = BTreeMap::from([("a".to_owned(), 40)]);
    until("everything goes to a", || (shares(&client).ok()? == all_a).then_some(()))?;
    assert_eq!(ask(&client, &to_b)?.body, "b", "but what has the header");

    mesh.control.apply("route.yaml", &route("web", &[], &[("web-a", 0), ("web-b", 1)]))?;
    let all_b = BTreeMap::from([("b".to_owned(), 40)]);
    until("everything goes to b", || (shares(&client).ok()? == all_b).then_some(()))?;

    mesh.control.apply("route.yaml", &route("web", &["web-b"], &[("web-a", 3), ("web-b", 1)]))?;
    let shared = until("both get a share", || shares(&client).ok().filter(|shares| shares.len() == 2))?;
    // Of 40 at 3:1 by chance: fewer than 15 is less likely than one in 100 000.
    let shared = if shared["a"] < 15 { shares(&client)? } else { shared };
    assert!(shared["a"] >= 15, "{shared:?}");
    for _ in 0..20 {
        assert_eq!(ask(&client, &to_b)?.body, "b");
    }

    mesh.control.delete("route.yaml")?;
    until("without a route the Service's own pods answer", || {
        let others = (0..40).filter(|_| ask(&client, &to_b).is_ok_and(|answer| answer.body == "a")).count();
        (others > 0).then_some(())
    })
}

pub(crate) fn a_changed_authorization_is_in_force() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let server = mesh.member(&Pod::new("a", "web", 1))?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    let stranger = mesh.member(&Pod::new("stranger", "stranger", 3))?;
    for member in [&client, &stranger] {
        assert_eq!(ask(member, &[])?.status, 200, "allowed by default");
    }
    let denied =
        |answer: &Answer| answer.status == 403 && answer.header(names::HEADER_ERROR) == Some(Outcome::Denied.code());

    mesh.control.apply("policy.yaml", &only("web", &["client"]))?;
    until("the stranger is refused", || ask(&stranger, &[]).ok().filter(denied))?;
    assert_eq!(ask(&client, &[])?.status, 200);

    mesh.control.apply("policy.yaml", &only("web", &["stranger"]))?;
    until("the client is refused", || ask(&client, &[]).ok().filter(denied))?;
    assert_eq!(ask(&stranger, &[])?.status, 200);
    let refused = [r#"direction="inbound""#, r#"code="denied""#];
    assert!(server.count("mesh_error_total", &refused)? >= 2);

    mesh.control.delete("policy.yaml")?;
    until("everybody is let in", || (ask(&client, &[]).ok()?.status == 200).then_some(()))?;
    Ok(())
}

pub(crate) fn an_open_connection_does_not_outlive_its_permission() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let server = mesh.member(&Pod::new("a", "web", 1))?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    let stranger = mesh.member(&Pod::new("stranger", "stranger", 3))?;
    let open = |member: &Member| -> anyhow::Result<Lines> { Ok(member.run(|| Lines::connect(lines(WEB)))??.0) };
    let (mut kept, mut cut) = (open(&client)?, open(&stranger)?);
    assert_eq!((kept.ask("one")?, cut.ask("one")?), ("one".to_owned(), "one".to_owned()));

    mesh.control.apply("policy.yaml", &only("web", &["client"]))?;
    until("the stranger's connection is cut", || cut.ask("two").is_err().then_some(()))?;
    assert_eq!(kept.ask("two")?, "two", "the client's is left alone");
    until("it is counted", || {
        let labels = [r#"direction="inbound""#, r#"code="denied""#];
        (server.count("mesh_error_total", &labels).ok()? == 1).then_some(())
    })
}

pub(crate) fn a_malformed_manifest_changes_nothing_else() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let _servers = (mesh.member(&Pod::new("a", "web", 1))?, mesh.member(&Pod::new("b", "web", 2))?);
    let client = mesh.member(&Pod::new("client", "client", 3))?;
    let to_a = route("web", &[], &[("web-a", 1)]);
    mesh.control.apply("route.yaml", &to_a)?;
    let all_a = BTreeMap::from([("a".to_owned(), 40)]);
    until("everything goes to a", || (shares(&client).ok()? == all_a).then_some(()))?;

    // The Service that is in use becomes nonsense, and so does its route.
    mesh.control.apply(
        "service-web.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: [\n",
    )?;
    mesh.control.apply("route.yaml", &to_a.replace("weight: 1", "weight: heavy"))?;
    until("both are named by file and line", || {
        let page = mesh.control.admin("/objects").ok()?.body;
        (page.contains("service-web.yaml:") && page.contains("route.yaml:")).then_some(())
    })?;
    assert_eq!(shares(&client)?, all_a);

    // The others go on to change.
    mesh.control.apply("policy.yaml", &only("web", &["nobody"]))?;
    until("the client is refused", || (ask(&client, &[]).ok()?.status == 403).then_some(()))?;
    mesh.control.delete("policy.yaml")?;
    until("the client is let in", || (ask(&client, &[]).ok()?.status == 200).then_some(()))?;
    assert_eq!(shares(&client)?, all_a);

    mesh.control.apply("route.yaml", &route("web", &[], &[("web-b", 1)]))?;
    until("a corrected route is in force", || (ask(&client, &[]).ok()?.body == "b").then_some(()))?;
    Ok(())
}
