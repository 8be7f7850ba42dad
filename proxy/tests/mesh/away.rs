//! The controller is gone, and comes back.

use std::{io, time::Duration};

use mesh_proto::{names, outcome::Outcome};
use mesh_testbed::{
    member::Pod,
    talk::{Answer, Lines, get},
    until,
};
use tokio::time::Instant;

use crate::{WEB, WEB_A, http, lines, mesh, settings};

/// A destination that was never resolved takes a second, and what a machine under load adds. Whoever waits for the controller
/// instead waits for ever: it stays away.
const REFUSED_WITHIN: Duration = Duration::from_secs(15);

pub(crate) fn what_is_known_outlives_the_controller_and_what_is_not_is_refused() -> anyhow::Result<()> {
    let mut mesh = mesh(settings())?;
    let _server = mesh.member(&Pod::new("a", "web", 1))?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    let ask = |service| -> io::Result<Answer> { client.run(|| get(http(service), "/", &[]))? };
    assert_eq!(ask(WEB)?.body, "a");
    let greeting = || client.run(|| Lines::connect(lines(WEB)).map(|(_, greeting)| greeting));
    assert_eq!(greeting()??, "220 a");

    mesh.control.kill();
    until("the proxy notices", || (client.count("controller_connected", &[]).ok()? == 0).then_some(()))?;
    assert_eq!(ask(WEB)?.body, "a", "known");
    until("what is known grows old", || (client.gauge("discovery_age_seconds", &[]).ok()? > 0.0).then_some(()))?;
    let begun = Instant::now();
    let refused = ask(WEB_A)?;
    let code = Outcome::DiscoveryUnavailable.code();
    assert_eq!((refused.status, refused.header(names::HEADER_ERROR)), (503, Some(code)));
    assert!(begun.elapsed() < REFUSED_WITHIN, "{:?}", begun.elapsed());
    let begun = Instant::now();
    let reset = client.run(|| Lines::connect(lines(WEB_A)))?.expect_err("never resolved");
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset, "{reset}");
    assert!(begun.elapsed() < REFUSED_WITHIN, "{:?}", begun.elapsed());
    assert_eq!(ask(WEB)?.body, "a", "still known");
    assert_eq!(greeting()??, "220 a", "idle since before");

    mesh.control.resume()?;
    until("the proxy is back", || (client.count("controller_connected", &[]).ok()? == 1).then_some(()))?;
    assert_eq!(ask(WEB_A)?.body, "a", "resolved now");
    let _late = mesh.member(&Pod::new("b", "web", 3))?;
    until("the new endpoint is picked", || (ask(WEB).ok()?.body == "b").then_some(()))?;
    assert_eq!(client.count("control_identity_cert_refreshes_total", &[])?, 1, "nobody started anew");
    Ok(())
}
