//! The root of trust is replaced under load, step by step, and nobody notices.

use mesh_testbed::{
    CaStep, Member, Mesh, Settings,
    member::Pod,
    talk::{Lines, get},
    until,
};

use crate::{
    WEB, http,
    identity::{SHORT_LIFE, renewed},
    lines,
    load::under_load,
    mesh, settings,
};

pub(crate) fn a_root_is_rotated_under_load_and_nobody_notices() -> anyhow::Result<()> {
    let mesh = mesh(Settings { leaf_lifetime: SHORT_LIFE, ..settings() })?;
    let members = [mesh.member(&Pod::new("a", "web", 1))?, mesh.member(&Pod::new("client", "client", 2))?];
    let client = &members[1];
    let (mut connection, _) = client.run(|| Lines::connect(lines(WEB)))??;
    let before = client.roots()?;

    under_load(client, |is_over| rotate(&mesh, &members, is_over))?;
    assert_eq!(connection.ask("still there?")?, "still there?");
    for member in &members {
        let after = member.roots()?;
        assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
        assert_eq!(member.count("mesh_error_total", &[])?, 0);
        assert_eq!(member.count("control_identity_cert_failures_total", &[])?, 0);
    }
    // Who comes now has never heard of the old root.
    let late = mesh.member(&Pod::new("late", "client", 3))?;
    let answer = late.run(|| get(http(WEB), "/", &[]))??;
    assert_eq!(answer.status, 200, "{answer:?}");
    Ok(())
}

fn rotate(mesh: &Mesh, members: &[Member], is_over: &dyn Fn() -> bool) -> anyhow::Result<()> {
    let trusted = |count: usize| {
        until("every proxy has the roots of the step", || {
            let all = members.iter().all(|member| member.roots().is_ok_and(|roots| roots.len() == count));
            (is_over() || all).then_some(())
        })
    };
    mesh.control.rotate(CaStep::AddRoot)?;
    trusted(2)?;
    mesh.control.rotate(CaStep::SwitchIssuer)?;
    // The first may be of the moment before.
    renewed(members, 2, is_over)?;
    mesh.control.rotate(CaStep::DropRoots)?;
    trusted(1)?;
    // With the new root alone, connections are made and certificates are renewed.
    renewed(members, 2, is_over)
}
