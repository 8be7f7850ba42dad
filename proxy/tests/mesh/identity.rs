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

/// How often each certificate is renewed while requests flow.
const RENEWALS: usize = 3;

pub(crate) fn certificates_are_renewed_under_load_and_nobody_notices() -> anyhow::Result<()> {
    // Renewed after five, which leaves a busy machine two.
    let mesh = mesh(Settings { leaf_lifetime: Duration::from_secs(7), ..settings() })?;
    let server = mesh.member(&Pod::new("a", "web", 1))?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    let (mut connection, _) = client.run(|| Lines::connect(lines(WEB)))??;
    under_load(&client, |is_over| renewed(&client, &server, is_over))?;
    assert_eq!(connection.ask("still there?")?, "still there?");
    for member in [&client, &server] {
        assert_eq!(member.count("mesh_error_total", &[])?, 0);
        assert_eq!(member.count("control_identity_cert_failures_total", &[])?, 0);
    }
    Ok(())
}

/// Waits until both have had so many certificates, each with a serial of its own.
fn renewed(one: &Member, other: &Member, is_over: impl Fn() -> bool) -> anyhow::Result<()> {
    let mut serials = [BTreeSet::new(), BTreeSet::new()];
    until("both certificates are renewed again and again", || {
        for (seen, member) in serials.iter_mut().zip([one, other]) {
            seen.extend(member.serial());
        }
        (is_over() || serials.iter().all(|seen| seen.len() > RENEWALS)).then_some(())
    })
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
