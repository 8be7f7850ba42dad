//! The error of the data path: an outcome of the mesh and the words of this one case.
//!
//! Made where something fails, carried by `?`, turned into an answer by `http::respond` and into a closed connection by
//! the TCP paths. Everything that follows from it (status, header, label, whether a retry is safe) is the outcome's.

use std::{borrow::Cow, io};

use mesh_proto::outcome::Outcome;

/// Why a request or a connection was not carried.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{outcome}: {detail}")]
pub struct ProxyError {
    /// What it is, for everyone.
    pub outcome: Outcome,
    /// What exactly happened, for the log. No secrets, nothing a client may not know of itself.
    pub detail: Cow<'static, str>,
    /// The server ended its stream of HTTP/2 with this code; so does the proxy, instead of an answer.
    pub(crate) reset: Option<h2::Reason>,
}

/// Result of a stage of the data path.
pub type Result<T, E = ProxyError> = std::result::Result<T, E>;

impl ProxyError {
    /// With what happened.
    pub fn new(outcome: Outcome, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome, detail: detail.into(), reset: None }
    }

    /// Whether no byte can have reached the application, so that another endpoint may be tried.
    pub fn retry_safe(&self) -> bool {
        self.outcome.facts().retry_safe
    }

    /// Whether the same endpoint may do better at once. A lost SYN is sent again by the kernel after 1 s, which is when
    /// we give up: without a second attempt, one lost packet would fail a request. And where this proxy got no processor for a
    /// moment between its connect and its ClientHello, the peer's took it for a client outside the mesh, which the application
    /// greeted in plaintext.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self.outcome, Outcome::ConnectTimeout | Outcome::PeerNotMeshed)
    }
}

/// Whether rustls, anywhere below `error`, says that this is not (or no longer) a TLS connection to a proxy of the mesh.
pub(crate) fn rustls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

/// Whether the peer refused our handshake. With TLS 1.3 it says so after the handshake is over for us, and the first one to
/// read it is hyper; it has then not taken a byte of what we sent. Any other failure of TLS, such as a record that does not
/// decrypt, may come in the middle of an answer and says nothing of what the peer has seen.
pub(crate) fn is_handshake_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::AlertDescription as Alert;
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref::<io::Error>().and_then(rustls_cause) {
            return matches!(
                alert,
                Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::CertificateRequired
                    | Alert::UnknownCA
                    | Alert::AccessDenied
                    | Alert::HandshakeFailure
                    // Of the signature in our CertificateVerify or our Finished (RFC 8446 §6.2).
                    | Alert::DecryptError
            );
        }
        cause = error.source();
    }
    false
}
