//! The one enum of outcomes: every error one of our processes answers with or closes a connection for.
//!
//! From a variant follow its code, HTTP and gRPC status, header, metric label, log field, tap field and documentation,
//! so that they cannot differ: `table` has a row for each. `ProxyError` in the proxy maps one to one. Adding a variant does
//! not compile until every fact about it is given.

mod table;

use std::fmt;

/// Why a request, a connection or a call was not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// No connection to the controller and the destination was never resolved.
    DiscoveryUnavailable,
    /// The proxy has not received its own inbound policy yet.
    PolicyUnavailable,
    /// The proxy holds no valid certificate of its own.
    IdentityUnavailable,
    /// The Service has routes and none matches the request.
    NoRoute,
    /// The matching route leads to no backend that exists.
    NoBackend,
    /// The backend has no ready endpoint.
    NoEndpoints,
    /// The endpoint refused or reset the connection attempt.
    ConnectFailed,
    /// The endpoint did not answer the connection attempt in time.
    ConnectTimeout,
    /// The TLS handshake with the peer proxy failed.
    TlsFailed,
    /// The endpoint is meshed, yet what answered is not one of our proxies.
    PeerNotMeshed,
    /// The peer proved another identity than the endpoint's.
    PeerIdentityMismatch,
    /// A client that claims to be one of our proxies did not prove an identity.
    ClientCertificateInvalid,
    /// Authorization refused the client.
    Denied,
    /// The connection's protocol is not allowed on this port.
    ProtocolRefused,
    /// The application refused the connection before any byte reached it.
    AppRefused,
    /// The upstream closed before it answered, after it may have seen the request.
    UpstreamReset,
    /// The upstream's answer was not valid HTTP.
    UpstreamProtocolError,
    /// A connection to a listener of the proxy itself.
    Loop,
    /// The request is not valid or not one a proxy may forward.
    BadRequest,
    /// A route decides by the path, and the request's path has more than one reading.
    PathAmbiguous,
    /// The request's head is too large.
    HeadTooLarge,
    /// The request's head did not arrive in time.
    HeadTimeout,
    /// A limit of the proxy was reached.
    Overloaded,
    /// The bootstrap token is not one the controller can verify.
    TokenInvalid,
    /// The bootstrap token has expired.
    TokenExpired,
    /// The join token was used before.
    TokenUsed,
    /// Nobody could be asked about the bootstrap token.
    TokenUnchecked,
    /// The token, certificate or pod proves another identity than the one asked for.
    IdentityMismatch,
    /// The certificate request is malformed or asks for more than the identity.
    CertificateRequestInvalid,
    /// The call needs a client certificate of the mesh.
    ClientCertificateRequired,
    /// The controller does not know the pod that says hello, or not at this address.
    PodUnknown,
    /// The two sides are more than one minor release apart.
    VersionUnsupported,
}

/// Where the cause lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Whoever opened the connection.
    Client,
    /// Whoever should have answered.
    Server,
    /// The mesh itself.
    Mesh,
}

impl Side {
    /// Label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Mesh => "mesh",
        }
    }
}

/// Everything that follows from an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Stable code: value of the `mesh-error` header, metric label, topic of `meshctl explain`.
    pub code: &'static str,
    /// Where the cause lies.
    pub side: Side,
    /// Status of the HTTP answer.
    pub http_status: u16,
    /// Status of the gRPC answer (as 200, trailers only).
    pub grpc_status: u8,
    /// Whether no byte of the request can have reached the application, so that another endpoint may be tried.
    pub retry_safe: bool,
    /// What it means, as a sentence.
    pub text: &'static str,
    /// What to do about it.
    pub fix: &'static str,
}

impl Outcome {
    /// Every outcome, in the order of the documentation.
    pub const ALL: [Self; 32] = [
        Self::DiscoveryUnavailable,
        Self::PolicyUnavailable,
        Self::IdentityUnavailable,
        Self::NoRoute,
        Self::NoBackend,
        Self::NoEndpoints,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::TlsFailed,
        Self::PeerNotMeshed,
        Self::PeerIdentityMismatch,
        Self::ClientCertificateInvalid,
        Self::Denied,
        Self::ProtocolRefused,
        Self::AppRefused,
        Self::UpstreamReset,
        Self::UpstreamProtocolError,
        Self::Loop,
        Self::BadRequest,
        Self::PathAmbiguous,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::Overloaded,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::TokenUsed,
        Self::TokenUnchecked,
        Self::IdentityMismatch,
        Self::CertificateRequestInvalid,
        Self::ClientCertificateRequired,
        Self::PodUnknown,
        Self::VersionUnsupported,
    ];

    /// Stable code.
    pub const fn code(self) -> &'static str {
        self.facts().code
    }

    /// The outcome of a code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.code() == code)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_lead_back() {
        let codes: BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.code()).collect();
        assert_eq!(codes.len(), Outcome::ALL.len());
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_code(outcome.code()), Some(outcome));
        }
    }

    #[test]
    fn every_variant_is_listed_in_its_place() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place, "{outcome}");
        }
        assert_eq!(Outcome::VersionUnsupported as usize + 1, Outcome::ALL.len());
    }

    #[test]
    fn statuses_are_errors_and_texts_are_sentences() {
        for outcome in Outcome::ALL {
            let facts = outcome.facts();
            assert!((400..600).contains(&facts.http_status) && (1..=16).contains(&facts.grpc_status), "{outcome}");
            assert!(facts.text.ends_with('.') && facts.fix.ends_with('.'), "{outcome}");
        }
    }
}
