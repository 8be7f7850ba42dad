//! What follows from each outcome: its code, side, statuses, whether a retry is safe, text and fix; one row each.

use super::{Facts, Outcome, Side};

// gRPC status codes (grpc.io, "Status codes and their use").
const INVALID_ARGUMENT: u8 = 3;
const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const FAILED_PRECONDITION: u8 = 9;
const UNIMPLEMENTED: u8 = 12;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

impl Outcome {
    /// All that follows from it.
    #[expect(clippy::too_many_lines, reason = "one table, a row per outcome")]
    pub const fn facts(self) -> Facts {
        use Side::{Client, Mesh, Server};
        const fn row(
            code: &'static str,
            side: Side,
            (http_status, grpc_status): (u16, u8),
            retry_safe: bool,
            text: &'static str,
            fix: &'static str,
        ) -> Facts {
            Facts { code, side, http_status, grpc_status, retry_safe, text, fix }
        }
        match self {
            Self::DiscoveryUnavailable => row(
                "discovery-unavailable",
                Mesh,
                (503, UNAVAILABLE),
                true,
                "The destination was never resolved and the controller does not answer.",
                "Check the controller: kubectl -n mesh-system get pods. The annotation meshctl.dev/unresolved: pass-through lets such traffic past the mesh.",
            ),
            Self::PolicyUnavailable => row(
                "policy-unavailable",
                Mesh,
                (503, UNAVAILABLE),
                true,
                "The server's proxy has not received its inbound policy yet.",
                "Check that the server's proxy reaches the controller: its log names the reason.",
            ),
            Self::IdentityUnavailable => row(
                "identity-unavailable",
                Mesh,
                (503, UNAVAILABLE),
                true,
                "The proxy holds no valid certificate.",
                "meshctl identity shows the certificate and why renewal fails.",
            ),
            Self::NoRoute => row(
                "no-route",
                Client,
                (404, UNIMPLEMENTED),
                false,
                "The Service has routes and none matches the request.",
                "Compare the request with the matches of the HTTPRoutes of the Service; a rule without matches takes the rest.",
            ),
            Self::NoBackend => row(
                "no-backend",
                Server,
                (500, UNAVAILABLE),
                false,
                "The matching route leads to no backend that exists, or all its weights are zero.",
                "Correct backendRefs of the HTTPRoute: the Service must exist and have the port.",
            ),
            Self::NoEndpoints => row(
                "no-endpoints",
                Server,
                (503, UNAVAILABLE),
                true,
                "The backend has no ready endpoint.",
                "Check that pods of the Service are ready: kubectl get endpointslices.",
            ),
            Self::ConnectFailed => row(
                "connect-failed",
                Server,
                (502, UNAVAILABLE),
                true,
                "The endpoint refused the connection.",
                "Check that the pod runs and that no NetworkPolicy stands between.",
            ),
            Self::ConnectTimeout => row(
                "connect-timeout",
                Server,
                (504, UNAVAILABLE),
                true,
                "The endpoint did not answer the connection attempt in time.",
                "A NetworkPolicy or a firewall that drops packets is the usual cause.",
            ),
            Self::TlsFailed => row(
                "tls-failed",
                Mesh,
                (502, UNAVAILABLE),
                true,
                "The TLS handshake between the proxies failed.",
                "Compare certificates and roots of both pods: meshctl identity.",
            ),
            Self::PeerNotMeshed => row(
                "peer-not-meshed",
                Mesh,
                (502, UNAVAILABLE),
                true,
                "The endpoint is meshed, but what answered is not one of our proxies; plaintext is never tried.",
                "Check that the server pod's proxy runs and that its port is not taken out of the redirect by hand.",
            ),
            Self::PeerIdentityMismatch => row(
                "peer-identity-mismatch",
                Mesh,
                (502, UNAVAILABLE),
                true,
                "The peer proved another identity than the endpoint's.",
                "Usually an address reused by a new pod; if it lasts, something answers in place of the pod.",
            ),
            Self::ClientCertificateInvalid => row(
                "client-certificate-invalid",
                Client,
                (403, UNAUTHENTICATED),
                false,
                "A client that claims to be a proxy of the mesh did not prove an identity.",
                "The client's certificate is expired, of another trust domain, or signed by a root that is no longer trusted: meshctl identity.",
            ),
            Self::Denied => row(
                "denied",
                Client,
                (403, PERMISSION_DENIED),
                false,
                "Authorization refused the client.",
                "The log of the server's proxy names the rule. Allow the client's service account in an AuthorizationPolicy of the port.",
            ),
            Self::ProtocolRefused => row(
                "protocol-refused",
                Client,
                (400, FAILED_PRECONDITION),
                false,
                "The connection's protocol is not the one declared for this port.",
                "Correct appProtocol of the Service port, or speak the declared protocol.",
            ),
            Self::AppRefused => row(
                "app-refused",
                Server,
                (502, UNAVAILABLE),
                true,
                "The application refused the connection before any byte reached it.",
                "Check that the application listens on the port, on the pod's address and not only on 127.0.0.1.",
            ),
            Self::UpstreamReset => row(
                "upstream-reset",
                Server,
                (502, UNAVAILABLE),
                false,
                "The server closed the connection before it answered; it may have seen the request.",
                "Look for a crash or a timeout in the server's log.",
            ),
            Self::UpstreamProtocolError => row(
                "upstream-protocol-error",
                Server,
                (502, UNAVAILABLE),
                false,
                "The server's answer was not valid HTTP.",
                "Correct the server, or declare the port as tcp (appProtocol: tcp).",
            ),
            Self::Loop => row(
                "loop",
                Client,
                (508, FAILED_PRECONDITION),
                false,
                "The connection leads to a listener of the proxy itself.",
                "Dial the application's port, not 4140 or 4143.",
            ),
            Self::BadRequest => row(
                "bad-request",
                Client,
                (400, INVALID_ARGUMENT),
                false,
                "The request is malformed, or not one a proxy may forward.",
                "The proxy's log names the part that is wrong.",
            ),
            Self::PathAmbiguous => row(
                "path-ambiguous",
                Client,
                (400, INVALID_ARGUMENT),
                false,
                "A route of the Service decides by the path, and programs differ over what the request's path means.",
                "Send the path without //, segments . and .., backslashes, %2F, %5C and control characters; or let the \
                 Service's routes decide by headers.",
            ),
            Self::HeadTooLarge => row(
                "head-too-large",
                Client,
                (431, RESOURCE_EXHAUSTED),
                false,
                "The request's head is larger than 64 KiB or has more than 100 headers.",
                "Send fewer or smaller headers; cookies are the usual cause.",
            ),
            Self::HeadTimeout => row(
                "head-timeout",
                Client,
                (408, DEADLINE_EXCEEDED),
                false,
                "The request's head did not arrive in time.",
                "A head has 10 s from its first byte; look for a client that hangs in the middle of it, or a scanner.",
            ),
            Self::Overloaded => row(
                "overloaded",
                Mesh,
                (503, RESOURCE_EXHAUSTED),
                true,
                "A limit of the proxy was reached.",
                "The metric overloaded_total tells which; add replicas or raise the limit (docs/limits.md).",
            ),
            Self::TokenInvalid => row(
                "token-invalid",
                Client,
                (401, UNAUTHENTICATED),
                false,
                "The bootstrap token cannot be verified, or is for another audience.",
                "The token must be a projected service-account token with the mesh's audience, or a join token of this controller.",
            ),
            Self::TokenExpired => row(
                "token-expired",
                Client,
                (401, UNAUTHENTICATED),
                false,
                "The bootstrap token has expired.",
                "Make a new one, and compare the clocks of both machines.",
            ),
            Self::TokenUsed => row(
                "token-used",
                Client,
                (401, UNAUTHENTICATED),
                false,
                "The join token was used before.",
                "Make a new one; each is good for one certificate request.",
            ),
            Self::TokenUnchecked => row(
                "token-unchecked",
                Mesh,
                (503, UNAVAILABLE),
                true,
                "The bootstrap token could not be checked, because the Kubernetes API did not answer or refused the review.",
                "The proxy asks again by itself; the controller's log says why, e.g. that it may not create tokenreviews.",
            ),
            Self::IdentityMismatch => row(
                "identity-mismatch",
                Client,
                (403, PERMISSION_DENIED),
                false,
                "The caller proves another identity than the one it asks for.",
                "Namespace, service account and pod of the token must be the proxy's own.",
            ),
            Self::CertificateRequestInvalid => row(
                "certificate-request-invalid",
                Client,
                (400, INVALID_ARGUMENT),
                false,
                "The certificate request is malformed, or asks for more than one URI SAN with the identity.",
                "Ask with a PKCS#10 request whose only SAN is the SPIFFE id.",
            ),
            Self::ClientCertificateRequired => row(
                "client-certificate-required",
                Client,
                (401, UNAUTHENTICATED),
                false,
                "The call needs a client certificate of the mesh.",
                "Call Certify first, then connect with the certificate.",
            ),
            Self::PodUnknown => row(
                "pod-unknown",
                Client,
                (403, PERMISSION_DENIED),
                false,
                "The controller does not know this pod with this service account and address.",
                "Right after a pod starts this heals by itself within a second; otherwise compare its name and address with kubectl get pod -o wide.",
            ),
            Self::VersionUnsupported => row(
                "version-unsupported",
                Mesh,
                (400, FAILED_PRECONDITION),
                false,
                "Proxy and controller are more than one minor release apart.",
                "Restart the workload, so that it gets the current proxy.",
            ),
        }
    }
}
