//! What a proxy must change in the heads it forwards, and what it must refuse (RFC 9110 §7.6, RFC 9112 §3).
//!
//! Pure. Everything not named here passes through untouched, `via`, `forwarded` and `x-forwarded-*` included.

use std::net::SocketAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version as HttpVersion,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};
use mesh_proto::{names, outcome::Outcome};

use super::{MAX_HEAD, MAX_HEADERS, Version, head::Refusal};
use crate::error::{ProxyError, Result};

/// Names an authenticated client in other meshes. Applications that trust it must not be told by just anybody, so that
/// inbound removes it; the mesh itself does not set it yet.
pub(crate) const CLIENT_ID: HeaderName = HeaderName::from_static("mesh-client-id");

/// Code of an outcome a proxy made itself.
pub(crate) const ERROR: HeaderName = HeaderName::from_static(names::HEADER_ERROR);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Makes a client's request one that can be forwarded. `destination` stands in for a host that HTTP/1.0 need not name.
pub(crate) fn forward_request<B>(request: &mut Request<B>, version: Version, destination: SocketAddr) -> Result<()> {
    if let Some(refusal) = request.extensions().get::<Refusal>() {
        return Err(ProxyError::new(refusal.outcome(), refusal.detail()));
    }
    if request.method() == Method::CONNECT {
        return Err(bad("CONNECT is not forwarded"));
    }
    match version {
        Version::Http1 => forward_http1(request, destination),
        Version::Http2 => forward_http2(request),
    }
}

fn forward_http1<B>(request: &mut Request<B>, destination: SocketAddr) -> Result<()> {
    let host = one_host(request.headers())?;
    if let Some(authority) = request.uri().authority() {
        // Absolute form: the authority of the target replaces the Host header (RFC 9112 §3.2.2).
        let host = HeaderValue::from_str(authority.as_str()).ok().filter(|host| is_host(host.as_bytes()));
        let host = host.ok_or_else(|| bad("the target's authority is no Host"))?;
        request.headers_mut().insert(HOST, host);
        // What is nothing but a fragment, which is not for servers, leaves an empty path behind: it says "/" and is written as "".
        let path = request.uri().path_and_query().filter(|path| path.as_str() != "/");
        *request.uri_mut() = Uri::from(path.cloned().unwrap_or(PathAndQuery::from_static("/")));
    } else if host.is_none() {
        if request.version() == HttpVersion::HTTP_11 {
            return Err(bad("an HTTP/1.1 request without Host header"));
        }
        let host = HeaderValue::from_str(&destination.to_string()).map_err(|_| bad("no Host"))?;
        request.headers_mut().insert(HOST, host);
    }
    let upgrade = upgrade_of(request.headers());
    strip_hop_by_hop(request.headers_mut());
    request.headers_mut().remove(&HTTP2_SETTINGS);
    if let Some(protocol) = upgrade {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(UPGRADE, protocol);
    }
    if request.version() == HttpVersion::HTTP_10 {
        // Not to be listened to from there (RFC 9110 §10.1.1), and not to be sent on as if it could wait.
        request.headers_mut().remove(EXPECT);
    }
    // A proxy speaks its own version on the next hop (RFC 9110 §6.2).
    *request.version_mut() = HttpVersion::HTTP_11;
    Ok(())
}

fn forward_http2<B>(request: &mut Request<B>) -> Result<()> {
    let fields = request.headers();
    // As HTTP/2 counts them (RFC 9113 §10.5.1).
    let size: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    if fields.len() > MAX_HEADERS || size > MAX_HEAD {
        return Err(ProxyError::new(Outcome::HeadTooLarge, "more than 100 headers, or 64 KiB of them"));
    }
    strip_hop_by_hop(request.headers_mut());
    let host = one_host(request.headers())?;
    if let Some(authority) = request.uri().authority() {
        if !is_host(authority.as_str().as_bytes()) {
            return Err(bad("the :authority is no host"));
        }
        // One is routed by, and the application may look at the other (RFC 9113 §8.3.1).
        if host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())) {
            return Err(bad("a Host header that is not the :authority"));
        }
    } else {
        // Allowed for what was translated from HTTP/1 (RFC 9113 §8.3.1), but to be sent on it needs an authority.
        let host = host.ok_or_else(|| bad("a request with neither :authority nor Host"))?;
        let authority = Authority::try_from(host.as_bytes()).map_err(|_| bad("the Host header is no authority"))?;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.authority = Some(authority);
        parts.scheme = Some(Scheme::HTTP);
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad("the request's target is no URI"))?;
    }
    Ok(())
}

/// The Host header, where there is one and it can be one. It may be empty (RFC 9110 §7.2).
fn one_host(headers: &HeaderMap) -> Result<Option<&HeaderValue>> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("more than one Host header"));
    }
    if host.is_some_and(|host| !is_host(host.as_bytes())) {
        return Err(bad("the Host header is no host"));
    }
    Ok(host)
}

/// Of name, address and port; not what makes another part of a URI of the rest, or of a name a user.
pub(super) fn is_host(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(byte))
}

/// The protocol a client wants to change to, if it asks for that and may. What is left out is only offered, so the server
/// answers without it (RFC 9110 §7.8):
/// `h2c`, because requests on the new connection would be seen by nobody in between, no matter what is said about requests
/// here; and an offer with a body, which would still be on its way on a connection that is HTTP no more.
pub(crate) fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let has_body =
        headers.contains_key(TRANSFER_ENCODING) || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    if has_body || !connection_has(headers, "upgrade") {
        return None;
    }
    let offered = headers.get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let offered = offered.flat_map(|value| value.split(',')).map(str::trim);
    let kept: Vec<&str> =
        offered.filter(|protocol| !protocol.is_empty() && !protocol.eq_ignore_ascii_case("h2c")).collect();
    (!kept.is_empty()).then(|| HeaderValue::try_from(kept.join(", ")).ok()).flatten()
}

/// Removes what claims an identity of the mesh, also where an underscore stands for a hyphen: to an application behind CGI or
/// WSGI both are the same name.
pub(crate) fn strip_claims(fields: &mut HeaderMap) {
    strip(fields, &CLIENT_ID);
}

/// Removes a code of the mesh from what was not sent by the mesh.
pub(crate) fn strip_error(fields: &mut HeaderMap) {
    strip(fields, &ERROR);
}

/// A field of this name, with hyphens or underscores.
fn strip(fields: &mut HeaderMap, name: &HeaderName) {
    while let Some(found) = fields.keys().find(|field| is_like(field.as_str().as_bytes(), name)).cloned() {
        fields.remove(found);
    }
}

/// Whether a field's name is this one, in any case, with hyphens or underscores.
pub(super) fn is_like(field: &[u8], name: &HeaderName) -> bool {
    let same = |(a, b): (&u8, u8)| a.to_ascii_lowercase() == b || (*a == b'_' && b == b'-');
    field.len() == name.as_str().len() && field.iter().zip(name.as_str().bytes()).all(same)
}

/// Makes a server's answer one that can be passed on to a client that spoke `client`.
pub(crate) fn forward_response<B>(response: &mut Response<B>, client: HttpVersion) -> Result<()> {
    check_framing(response.headers())?;
    if response
        .headers()
        .get_all(TRANSFER_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        // Without the header, which is of one hop, the client would take the coded body for the content.
        return Err(ProxyError::new(Outcome::UpstreamProtocolError, "a Transfer-Encoding other than chunked"));
    }
    let upgrade = (response.status() == StatusCode::SWITCHING_PROTOCOLS)
        .then(|| response.headers().get(UPGRADE).cloned())
        .flatten();
    strip_hop_by_hop(response.headers_mut());
    if let Some(protocol) = upgrade {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, protocol);
    }
    // hyper keeps a connection of HTTP/1.0 alive for an answer of HTTP/1.1; one without a length ends with the connection.
    let keeps_alive = client == HttpVersion::HTTP_10 && response.headers().contains_key(CONTENT_LENGTH);
    *response.version_mut() = if keeps_alive { HttpVersion::HTTP_11 } else { client };
    if response.status() == StatusCode::NO_CONTENT {
        // Not to be sent (RFC 9110 §8.6); hyper does for a HEAD.
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    Ok(())
}

/// Refuses an answer whose length two programs may read differently (RFC 9112 §6.3). hyper takes the same length twice, and the
/// chunks where there is a length, too.
fn check_framing(headers: &HeaderMap) -> Result<()> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(()) };
    let detail = if lengths.next().is_some() || !length.as_bytes().iter().all(u8::is_ascii_digit) {
        "an answer with more than one Content-Length"
    } else if headers.contains_key(TRANSFER_ENCODING) {
        "an answer with both Content-Length and Transfer-Encoding"
    } else {
        return Ok(());
    };
    Err(ProxyError::new(Outcome::UpstreamProtocolError, detail))
}

/// Whether sending the request twice is the same as once (RFC 9110 §9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

/// Whether a client wants errors as gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| says_grpc(value.as_bytes()))
}

/// Whether this Content-Type is gRPC's.
pub(super) fn says_grpc(content_type: &[u8]) -> bool {
    content_type.starts_with(b"application/grpc")
}

/// Whether the connection ends with this message.
pub(super) fn closes(headers: &HeaderMap) -> bool {
    connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("close"))
}

/// Removes what is about one connection only. `te: trailers` stays: it is about the answer, and gRPC wants it.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = connection_tokens(headers)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            // Naming these would make us send what the client did not (RFC 9110 §7.6.1 forbids it to).
            .filter(|name| *name != TE && *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        headers.remove(CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
    if headers.get_all(TE).iter().any(|value| *value != TRAILERS) {
        let trailers =
            headers.get_all(TE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
                |coding| coding.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("trailers")),
            );
        headers.remove(TE);
        if trailers {
            headers.insert(TE, TRAILERS);
        }
    }
}

fn connection_has(headers: &HeaderMap, wanted: &str) -> bool {
    connection_tokens(headers).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn bad(detail: &'static str) -> ProxyError {
    ProxyError::new(Outcome::BadRequest, detail)
}

#[cfg(test)]
mod tests;
