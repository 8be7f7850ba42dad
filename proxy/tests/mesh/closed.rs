//! Whose doing the end of a connection was: told by the real proxies at both of its ends.

use std::{
    io::{self, Read as _},
    net::TcpStream,
    time::Duration,
};

use mesh_proto::admin::{CONNECTIONS, Closed, Connections};
use mesh_testbed::{Member, manifests::only, member::Pod, until};
use nix::sys::signal::Signal;

use crate::{WEB, lines, mesh, settings};

/// What the server greets with.
const GREETING: &str = "220 a\r\n";

fn connect(client: &Member) -> io::Result<TcpStream> {
    client.run(|| {
        let mut socket = TcpStream::connect(lines(WEB))?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        socket.read_exact(&mut [0; GREETING.len()])?;
        Ok(socket)
    })?
}

/// The latest end of an opaque connection at this proxy, once there are so many.
fn ended(member: &Member, count: usize) -> anyhow::Result<Closed> {
    until("the end of a connection is told", || {
        let page: Connections = serde_json::from_str(&member.admin(CONNECTIONS).ok()?.body).ok()?;
        let mut ended: Vec<_> = page.closed.into_iter().filter(|closed| closed.connection.protocol == "tcp").collect();
        (ended.len() == count).then(|| ended.remove(0))
    })
}

fn told(closed: &Closed) -> (&str, &str, &str) {
    (&closed.connection.direction, &closed.by, &closed.reason)
}

/// Whether the link to the other proxy broke off; as a reset where something was still to be read.
fn is_broken_off(closed: &Closed) -> bool {
    closed.by == "peer-proxy" && ["cut", "reset"].contains(&closed.reason.as_str())
}

pub(crate) fn both_proxies_tell_who_ended_a_connection() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let server = mesh.member(&Pod::new("a", "web", 1))?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    let stranger = mesh.member(&Pod::new("stranger", "stranger", 3))?;

    // The client says that it is done.
    drop(connect(&client)?);
    let (near, far) = (ended(&client, 1)?, ended(&server, 1)?);
    assert_eq!(told(&near), ("outbound", "app", "end"), "{near:?}");
    assert_eq!(told(&far), ("inbound", "peer-app", "end"), "{far:?}");
    assert_eq!(near.connection.bytes_out, GREETING.len() as u64, "{near:?}");
    assert!(near.connection.peer.as_ref().is_some_and(|peer| peer.ends_with("/web:7000")), "{near:?}");

    // It resets.
    socket2::SockRef::from(&connect(&client)?).set_linger(Some(Duration::ZERO))?;
    let (near, far) = (ended(&client, 2)?, ended(&server, 2)?);
    assert_eq!(told(&near), ("outbound", "app", "reset"), "{near:?}");
    assert!(is_broken_off(&far), "{far:?}");

    // It is no longer let in.
    let (_kept, _refused) = (connect(&client)?, connect(&stranger)?);
    mesh.control.apply("policy.yaml", &only("web", &["client"]))?;
    let (near, far) = (ended(&stranger, 1)?, ended(&server, 3)?);
    assert!(is_broken_off(&near), "{near:?}");
    assert_eq!(told(&far), ("inbound", "us", "denied"), "{far:?}");

    // The proxy of its server is killed.
    server.signal(Signal::SIGKILL)?;
    let near = ended(&client, 3)?;
    assert!(is_broken_off(&near), "{near:?}");
    let labels = [r#"direction="outbound""#, r#"by="app""#, r#"reason="reset""#];
    assert_eq!(client.count("connection_close_total", &labels)?, 1);
    Ok(())
}
