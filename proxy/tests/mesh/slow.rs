//! A client that is slow or silent is cut at its limit (docs/limits.md); one that is merely idle is not.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use mesh_proto::names;
use mesh_testbed::{
    apps::{HTTP_PORT, LINES_PORT},
    frames,
    member::Pod,
    talk::{Http, Lines},
    until,
};
use tokio::time::Instant;

use crate::{mesh, settings};

/// Longer than any of the limits that the test sets, however busy the machine is.
const LATE: Duration = Duration::from_secs(15);

/// Says `words`, then only listens. How long it was let stay: never less than the other side took it to be.
fn says(address: SocketAddr, words: &[u8]) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(LATE))?;
    socket.write_all(words)?;
    let mut read = [0; 4096];
    loop {
        match socket.read(&mut read) {
            Ok(0) => return Ok(begun.elapsed()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(begun.elapsed()),
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn half_a_hello_has_the_time_of_a_handshake_and_not_that_of_a_head_too() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let environment = [(names::ENV_HEAD_TIMEOUT, "600"), (names::ENV_HANDSHAKE_TIMEOUT, "0.6")];
    let pod = Pod { environment: &environment, ..Pod::new("a", "web", 1) };
    let _server = mesh.member(&pod)?;
    let outsider = mesh.unready_member(&Pod::new("outsider", "outsider", 2))?;
    let half = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    for port in [HTTP_PORT, LINES_PORT] {
        let cut = outsider.run(|| says((pod.ip(), port).into(), &half))?;
        cut.map_err(|error| anyhow::anyhow!("port {port}: {error}"))?;
    }
    Ok(())
}

pub(crate) fn a_client_that_is_too_slow_is_cut_at_its_limit_and_an_idle_one_is_not() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let environment = [
        (names::ENV_HEAD_TIMEOUT, "0.6"),
        (names::ENV_HANDSHAKE_TIMEOUT, "0.6"),
        (names::ENV_PING_INTERVAL, "0.3"),
        (names::ENV_PING_TIMEOUT, "0.6"),
    ];
    let pod = Pod { environment: &environment, ..Pod::new("a", "web", 1) };
    let server = mesh.member(&pod)?;
    // Without a redirect: what it says arrives as it is.
    let outsider = mesh.unready_member(&Pod::new("outsider", "outsider", 2))?;
    let (web, lines) = (SocketAddr::from((pod.ip(), HTTP_PORT)), SocketAddr::from((pod.ip(), LINES_PORT)));
    let (mut line, _) = outsider.run(|| Lines::connect(lines))??;
    // It asks at once: whoever says nothing at all is cut, too.
    let asked = |mut idle: Http| idle.get("/", &[]).map(|answer| (idle, answer));
    let (mut idle, answer) = outsider.run(|| Http::connect(web).and_then(asked))??;
    assert_eq!(answer.body, "a");

    let silent_http2 = frames::opening();
    for (what, words) in [
        ("nothing", &b""[..]),
        ("half a first line", b"GET / HT"),
        ("half a head", b"GET / HTTP/1.1\r\nhost: a\r\nx: "),
        ("half a ClientHello", &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]),
        ("an HTTP/2 client that answers no PING", &silent_http2),
    ] {
        let cut = outsider.run(|| says(web, words))?;
        let after = cut.map_err(|error| anyhow::anyhow!("{what}: {error}"))?;
        assert!(after >= Duration::from_millis(500), "{what}: cut after {after:?}");
    }
    until("half a hello has a code", || {
        let counted = server.count("mesh_error_total", &[r#"code="client-certificate-invalid""#]);
        (counted.ok()? >= 1).then_some(())
    })?;
    assert_eq!(idle.get("/", &[])?.body, "a", "idle between requests all the while");
    assert_eq!(line.ask("idle, too")?, "idle, too");
    Ok(())
}
