//! Certificates: their renewal, and who gets none.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use mesh_proto::outcome::Outcome;
use mesh_testbed::{
    Member, Settings,
    member::{Pod, Token},
    talk::Lines,
    until,
};

use crate::{WEB, lines, load::under_load, mesh, settings};

/// Life of a certificate that is renewed while a test waits: after 10 to 12 s, which leaves a busy machine 4.
pub(crate) const SHORT_LIFE: Duration = Duration::from_secs(16);
/// How often each certificate is renewed while requests flow.
const RENEWALS: usize = 2;

pub(crate) fn certificates_are_renewed_under_load_and_nobody_notices() -> anyhow::Result<()> {
    let mesh = mesh(Settings { leaf_lifetime: SHORT_LIFE, ..settings() })?;
    let members = [mesh.member(&Pod::new("a", "web", 1))?, mesh.member(&Pod::new("client", "client", 2))?];
    let client = &members[1];
    let (mut connection, _) = client.run(|| Lines::connect(lines(WEB)))??;
    under_load(client, |is_over| renewed(&members, RENEWALS, is_over))?;
    assert_eq!(connection.ask("still there?")?, "still there?");
    for member in &members {
        assert_eq!(member.count("mesh_error_total", &[])?, 0);
        assert_eq!(member.count("control_identity_cert_failures_total", &[])?, 0);
    }
    Ok(())
}

/// Waits until each has had so many more certificates, every one with a serial of its own.
pub(crate) fn renewed(members: &[Member], times: usize, is_over: &dyn Fn() -> bool) -> anyhow::Result<()> {
    let mut serials = vec![BTreeSet::new(); members.len()];
    // The first is the one in force; each of the others takes most of its life.
    for so_far in 0..=times {
        until("every certificate is renewed", || {
            for (seen, member) in serials.iter_mut().zip(members) {
                seen.extend(member.serial());
            }
            (is_over() || serials.iter().all(|seen| seen.len() > so_far)).then_some(())
        })?;
    }
    Ok(())
}

pub(crate) fn a_token_of_another_account_makes_no_proxy_ready() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let impostor = Pod { token: Token::Of("client"), ..Pod::new("a", "web", 1) };
    is_refused(&mesh.unready_member(&impostor)?, Outcome::IdentityMismatch)
}

pub(crate) fn an_expired_token_makes_no_proxy_ready() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let token = mesh.control.expired_token("web", "a")?;
    let late = Pod { token: Token::Fixed(&token), ..Pod::new("a", "web", 1) };
    is_refused(&mesh.unready_member(&late)?, Outcome::TokenExpired)
}

/// It goes on trying, is told why each time, and is never ready.
fn is_refused(member: &Member, outcome: Outcome) -> anyhow::Result<()> {
    let code = format!("code={:?}", outcome.code());
    until("three refusals", || {
        let refusals: u64 = member.count("control_identity_cert_failures_total", &[&code]).ok()?;
        (refusals >= 3).then_some(())
    })
    .with_context(|| member.log())?;
    assert_eq!(member.count("control_identity_cert_refreshes_total", &[])?, 0);
    assert!(!member.is_ready());
    assert!(member.log().contains(outcome.code()), "{}", member.log());
    Ok(())
}
