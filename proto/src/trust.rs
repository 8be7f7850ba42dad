//! Roots of trust.

use bytes::Bytes;

/// The roots of one trust domain. Several at once while a root rotates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    /// Identities of this trust domain are vouched for by `roots`.
    pub trust_domain: String,
    /// DER certificates; at least one.
    pub roots: Vec<Bytes>,
}
