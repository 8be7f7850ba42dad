//! Heads in, heads out: a table per direction and version.

use super::*;

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(target).body(()).unwrap();
    for (name, value) in headers {
        request.headers_mut().append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    request
}

fn forwarded(version: Version, mut request: Request<()>) -> std::result::Result<String, Outcome> {
    forward_request(&mut request, version, "10.0.0.1:80".parse().unwrap()).map_err(|error| error.outcome)?;
    let mut headers: Vec<String> =
        request.headers().iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
    headers.sort();
    Ok(format!("{} {}", request.uri(), headers.join(" ")))
}

#[test]
fn heads_of_http1_requests() {
    for (target, headers, expected) in [
        ("/a?b", &[("host", "x")][..], Ok("/a?b host=x")),
        ("/", &[], Err(Outcome::BadRequest)),
        ("/", &[("host", "x"), ("host", "x")], Err(Outcome::BadRequest)),
        ("/", &[("host", "")], Ok("/ host=")),
        ("/", &[("host", "[::1]:80")], Ok("/ host=[::1]:80")),
        ("/", &[("host", "a/b")], Err(Outcome::BadRequest)),
        ("/", &[("host", "a@b")], Err(Outcome::BadRequest)),
        ("/", &[("host", "a b")], Err(Outcome::BadRequest)),
        ("http://y:8/a", &[("host", "x")], Ok("/a host=y:8")),
        ("http://y", &[("host", "x")], Ok("/ host=y")),
        ("http://y#a", &[("host", "x")], Ok("/ host=y")),
        ("http://y?a#b", &[("host", "x")], Ok("/?a host=y")),
        ("http://u@y/", &[("host", "x")], Err(Outcome::BadRequest)),
        (
            "/",
            &[("host", "x"), ("connection", "close, X-Secret"), ("x-secret", "1"), ("via", "1.1 a")],
            Ok("/ host=x via=1.1 a"),
        ),
        (
            "/",
            &[("host", "x"), ("connection", "host, content-length"), ("content-length", "3")],
            Ok("/ content-length=3 host=x"),
        ),
        (
            "/",
            &[("host", "x"), ("keep-alive", "3"), ("proxy-connection", "a"), ("transfer-encoding", "chunked")],
            Ok("/ host=x"),
        ),
        ("/", &[("host", "x"), ("te", "gzip, trailers;q=1")], Ok("/ host=x te=trailers")),
        ("/", &[("host", "x"), ("te", "gzip")], Ok("/ host=x")),
        (
            "/",
            &[("host", "x"), ("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")],
            Ok("/ connection=upgrade host=x upgrade=websocket"),
        ),
        ("/", &[("host", "x"), ("upgrade", "websocket")], Ok("/ host=x")),
        (
            "/",
            &[("host", "x"), ("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "H2C"), ("http2-settings", "A")],
            Ok("/ host=x"),
        ),
        ("/", &[("host", "x"), ("connection", "upgrade"), ("http2-settings", "A")], Ok("/ host=x")),
        (
            "/",
            &[("host", "x"), ("connection", "upgrade"), ("upgrade", "h2c, a/1"), ("upgrade", "b")],
            Ok("/ connection=upgrade host=x upgrade=a/1, b"),
        ),
        (
            "/",
            &[("host", "x"), ("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "0")],
            Ok("/ connection=upgrade content-length=0 host=x upgrade=websocket"),
        ),
        (
            "/",
            &[("host", "x"), ("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "4")],
            Ok("/ content-length=4 host=x"),
        ),
        (
            "/",
            &[("host", "x"), ("connection", "upgrade"), ("upgrade", "a"), ("transfer-encoding", "chunked")],
            Ok("/ host=x"),
        ),
    ] {
        let result = forwarded(Version::Http1, request("GET", target, headers));
        assert_eq!(result.as_deref(), expected.as_deref(), "{target} {headers:?}");
    }
    assert_eq!(forwarded(Version::Http1, request("CONNECT", "x:80", &[])), Err(Outcome::BadRequest));
}

#[test]
fn claims_are_removed_however_they_are_spelled() {
    let names = ["mesh-client-id", "Mesh_Client-ID", "mesh_client_id", "mesh-client-ids", "x-mesh-client-id"];
    let mut fields = HeaderMap::new();
    for name in names {
        fields.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("me"));
        fields.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("and me"));
    }
    strip_claims(&mut fields);
    let mut left: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["mesh-client-ids", "x-mesh-client-id"]);
}

#[test]
fn http10_may_name_no_host_and_is_sent_on_as_http11() {
    let mut old = request("GET", "/", &[]);
    *old.version_mut() = HttpVersion::HTTP_10;
    forward_request(&mut old, Version::Http1, "10.0.0.1:80".parse().unwrap()).unwrap();
    assert_eq!((old.version(), old.headers()[HOST].to_str().unwrap()), (HttpVersion::HTTP_11, "10.0.0.1:80"));
}

#[test]
fn heads_of_http2_requests() {
    for (target, headers, expected) in [
        ("http://x/a", &[("te", "trailers")][..], Ok("http://x/a te=trailers")),
        ("/a", &[("host", "x")], Ok("http://x/a host=x")),
        ("/a", &[], Err(Outcome::BadRequest)),
        ("/a", &[("host", "x/y")], Err(Outcome::BadRequest)),
        ("http://x/a", &[("host", "X")], Ok("http://x/a host=X")),
        ("http://x/a", &[("host", "y")], Err(Outcome::BadRequest)),
        ("http://x/a", &[("host", "x"), ("host", "x")], Err(Outcome::BadRequest)),
        ("http://u@x/a", &[], Err(Outcome::BadRequest)),
    ] {
        let result = forwarded(Version::Http2, request("GET", target, headers));
        assert_eq!(result.as_deref(), expected.as_deref(), "{target} {headers:?}");
    }
}

#[test]
fn answers_lose_what_is_about_the_connection_but_an_upgrade_stays() {
    let mut response = Response::builder()
        .header("connection", "close, x-hop")
        .header("x-hop", "1")
        .header("content-length", "3")
        .header("keep-alive", "timeout=5")
        .body(())
        .unwrap();
    forward_response(&mut response, HttpVersion::HTTP_11).unwrap();
    let names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["content-length"]);

    let mut empty = Response::builder().status(204).header("content-length", "3").body(()).unwrap();
    forward_response(&mut empty, HttpVersion::HTTP_11).unwrap();
    assert!(empty.headers().is_empty());

    let mut coded = Response::builder().header("transfer-encoding", "gzip, chunked").body(()).unwrap();
    let error = forward_response(&mut coded, HttpVersion::HTTP_11).unwrap_err();
    assert_eq!(error.outcome, Outcome::UpstreamProtocolError);

    let mut switching = Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(())
        .unwrap();
    forward_response(&mut switching, HttpVersion::HTTP_11).unwrap();
    assert_eq!(switching.headers()["upgrade"], "websocket");
    assert_eq!(switching.headers()["connection"], "upgrade");
}
