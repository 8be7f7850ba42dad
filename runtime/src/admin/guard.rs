//! Who may ask for what: the guards of admin routes that are not for everyone (contracts §9).
//!
//! Used as extractors, or for whole routers as `middleware::from_extractor::<Loopback>()`. The application shares the
//! loopback of its pod, and so does a browser that a port-forward serves: the peer's address alone proves little. A
//! `Host` of localhost keeps out pages that resolve their own name to 127.0.0.1, and the header of [`AdminChange`]
//! keeps out forms and links, which cannot set one.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use mesh_proto::names::{ADMIN_MEANT, HEADER_ADMIN};

/// The peer is on loopback and asked for localhost.
#[derive(Clone, Copy, Debug)]
pub struct Loopback {
    /// Who asks.
    pub peer: SocketAddr,
}

/// [`Loopback`], and a POST or PUT that carries the header `mesh-admin: 1`: may change something.
#[derive(Clone, Copy, Debug)]
pub struct AdminChange {
    /// Who asks.
    pub peer: SocketAddr,
}

/// Why a request was not let through; answers with the text and its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The connection comes from the network.
    #[error("this path is served on loopback only: use `meshctl`, or `kubectl port-forward` to the pod")]
    NotLoopback,
    /// The name asked for is not that of this machine.
    #[error("this path is served for the host localhost only: ask for http://localhost:PORT/…")]
    ForeignHost,
    /// A change must be a POST or PUT.
    #[error("a change must be a POST or PUT")]
    NotAChange,
    /// A change must say that it is meant.
    #[error("a change must carry the header `{HEADER_ADMIN}: {ADMIN_MEANT}`")]
    NoAdminHeader,
}

impl Refused {
    /// The status that says so.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotLoopback | Self::ForeignHost | Self::NoAdminHeader => StatusCode::FORBIDDEN,
            Self::NotAChange => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status(), format!("{self}\n")).into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for Loopback {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refused> {
        let peer = peer(parts)?;
        if !names_localhost(&parts.uri, &parts.headers) {
            return Err(Refused::ForeignHost);
        }
        Ok(Self { peer })
    }
}

impl<S: Sync> FromRequestParts<S> for AdminChange {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Loopback { peer } = Loopback::from_request_parts(parts, state).await?;
        if !matches!(parts.method, Method::POST | Method::PUT) {
            return Err(Refused::NotAChange);
        }
        if !is_meant(&parts.headers) {
            return Err(Refused::NoAdminHeader);
        }
        Ok(Self { peer })
    }
}

/// The peer, if it is on loopback. A router served without the peer's address lets nobody in.
fn peer(parts: &Parts) -> Result<SocketAddr, Refused> {
    match parts.extensions.get() {
        Some(ConnectInfo(peer)) if SocketAddr::ip(peer).to_canonical().is_loopback() => Ok(*peer),
        _ => Err(Refused::NotLoopback),
    }
}

/// Whether the header of a change is there, and says nothing but that it is meant.
fn is_meant(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(HEADER_ADMIN).iter().peekable();
    values.peek().is_some() && values.all(|value| value == ADMIN_MEANT)
}

/// Whether every place that names a host (`Host`, `:authority`, an absolute target) names localhost, and at least one
/// does.
fn names_localhost(uri: &Uri, headers: &HeaderMap) -> bool {
    let in_uri = uri.authority().map(|authority| authority.as_str().as_bytes());
    let in_headers = headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let mut hosts = in_uri.into_iter().chain(in_headers).peekable();
    hosts.peek().is_some() && hosts.all(is_localhost)
}

fn is_localhost(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        // A port, unless the colon is inside the brackets of an IPv6 address.
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_localhost_is_localhost() {
        for good in ["localhost", "LocalHost:4191", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:4191"] {
            assert!(is_localhost(good.as_bytes()), "{good}");
        }
        let bad = [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "user@localhost",
            "localhost@evil.example",
            "localhost:80:80",
            "localhost:x",
            "localhost:",
            "::1",
            "[::1",
            "[::2]",
            "0.0.0.0",
        ];
        for bad in bad {
            assert!(!is_localhost(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn every_place_that_names_a_host_must_agree() {
        let check = |uri: &str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, host.parse().unwrap());
            }
            names_localhost(&uri.parse().unwrap(), &headers)
        };
        assert!(check("/x", &["localhost"]));
        assert!(check("http://localhost/x", &[]));
        assert!(!check("/x", &[]));
        assert!(!check("/x", &["localhost", "evil.example"]));
        assert!(!check("http://evil.example/x", &["localhost"]));
        assert!(!check("http://localhost/x", &["evil.example"]));
    }
}
