//! The answer to a request that the mesh itself ends: status, `mesh-error`, and for gRPC clients a gRPC status.
//!
//! Everything follows from the outcome's facts.

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use mesh_proto::outcome::Outcome;

use super::{
    Version,
    body::ResponseBody,
    headers::{self, ERROR},
};
use crate::error::ProxyError;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// In an answer: the client's stream is to be ended with this code instead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reset(pub(super) h2::Reason);

/// What the answer to a failed request depends on besides the failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    grpc: bool,
    /// Sends a body, on a connection that carries one request after the other.
    occupied: bool,
}

impl Asker {
    /// Of this request.
    pub(crate) fn of<B: Body>(request: &Request<B>, version: Version) -> Self {
        let occupied = version == Version::Http1 && !request.body().is_end_stream();
        Self { grpc: headers::is_grpc(request.headers()), occupied }
    }

    /// Of a request of HTTP/1 that was read whole, and is not gRPC's.
    pub(super) fn free() -> Self {
        Self { grpc: false, occupied: false }
    }
}

/// The answer to a request that failed.
pub(crate) fn failed(error: &ProxyError, asker: Asker) -> Response<ResponseBody> {
    let mut response = self::error(error.outcome, asker.grpc);
    if let Some(code) = error.reset {
        response.extensions_mut().insert(Reset(code));
    }
    if asker.occupied {
        // The rest of the body is for nobody, and the next request would come after it.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer for `outcome`. gRPC gets it as 200 with trailers only.
fn error(outcome: Outcome, grpc: bool) -> Response<ResponseBody> {
    let facts = outcome.facts();
    let mut response;
    if grpc {
        response = Response::new(ResponseBody::empty());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(facts.grpc_status)));
        headers.insert(GRPC_MESSAGE, HeaderValue::from_static(facts.text));
    } else {
        response = Response::new(ResponseBody::text(facts.text));
        *response.status_mut() = StatusCode::from_u16(facts.http_status).unwrap_or(StatusCode::BAD_GATEWAY);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    response.headers_mut().insert(ERROR, HeaderValue::from_static(facts.code));
    response
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    #[test]
    fn every_outcome_makes_a_whole_answer() {
        for outcome in Outcome::ALL {
            let facts = outcome.facts();
            let plain = error(outcome, false);
            assert_eq!(plain.status().as_u16(), facts.http_status);
            assert_eq!(plain.headers()[&ERROR], facts.code);
            assert!(plain.body().size_hint().exact().unwrap() > 0);
            let grpc = error(outcome, true);
            assert_eq!(grpc.status(), StatusCode::OK);
            assert_eq!(grpc.headers()[&GRPC_STATUS], facts.grpc_status.to_string().as_str());
            // grpc-message is percent-encoded on the wire; none of our texts needs it.
            assert!(facts.text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'%'), "{outcome}");
            assert!(grpc.body().is_end_stream());
        }
    }
}
