//! Malformed requests, to the real binary: refused where they come in, and nowhere else to be seen.

use mesh_proto::tap::Direction;
use mesh_testbed::{member::Pod, talk::get};

use crate::{WEB, http, mesh, settings};

pub(crate) fn a_malformed_request_is_refused_with_a_code_and_never_forwarded() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let server = mesh.member(&Pod::new("a", "web", 1))?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    let tap = client.tap()?;
    let ask = |headers: &[(&str, &str)]| client.run(|| get(http(WEB), "/a", headers));

    let many = vec![("x", "y"); 101];
    for (headers, status, code) in [
        (&[("transfer-encoding", "chunked"), ("content-length", "1")][..], 400, "bad-request"),
        (&[("content-length", "0"), ("content-length", "0")], 400, "bad-request"),
        (&[("x ", "y")], 400, "bad-request"),
        (&[("x", "y\n z")], 400, "bad-request"),
        (&[("host", "two")], 400, "bad-request"),
        (&many, 431, "head-too-large"),
    ] {
        let answer = ask(headers)??;
        assert_eq!((answer.status, answer.header("mesh-error")), (status, Some(code)), "{headers:?}");
    }
    assert_eq!(client.count("mesh_error_total", &[r#"direction="outbound""#, r#"code="bad-request""#])?, 5);
    let event = tap.find("a refused request", |event| event.outcome == "bad-request")?;
    let request = event.request.as_ref().map(|request| (request.path.as_str(), request.status));
    assert_eq!((event.direction, request), (Direction::Outbound, Some(("/a", Some(400)))), "{event:?}");
    assert_eq!(server.count("request_total", &[])?, 0, "the server's proxy saw one");

    assert_eq!(ask(&[])??.body, "a", "and what is right goes through");
    Ok(())
}
