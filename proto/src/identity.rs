//! The identity of a workload: a SPIFFE id of the one shape the mesh uses.
//!
//! Parsed once at the edge (certificate, token, message), then carried as a value. Knows nothing of certificates.

use std::{fmt, str::FromStr, sync::Arc};

/// `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`. Cloning is a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    uri: Arc<str>,
    trust_domain_end: usize,
    namespace_end: usize,
}

/// Why a string is not an identity of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Another scheme, or none.
    #[error("{0:?} does not start with spiffe://")]
    Scheme(String),
    /// Not of the mesh's shape.
    #[error("{0:?} is not of the shape spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>")]
    Shape(String),
    /// A trust domain must be 1-255 of a-z, 0-9, '.', '-', '_' (SPIFFE-ID §2.1).
    #[error("{0:?} is not a trust domain: 1 to 255 of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain(String),
    /// A namespace must be a DNS label, a service account a DNS subdomain (Kubernetes object names).
    #[error("{0:?} is not a Kubernetes name: lower-case letters, digits, '-' and (for a service account) '.'")]
    Name(String),
}

const SCHEME: &str = "spiffe://";

impl Identity {
    /// Builds an identity from its parts, each of which is checked.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, IdentityError> {
        if !is_trust_domain(trust_domain) {
            return Err(IdentityError::TrustDomain(trust_domain.to_owned()));
        }
        if !is_label(namespace, 63) {
            return Err(IdentityError::Name(namespace.to_owned()));
        }
        if !is_subdomain(service_account) {
            return Err(IdentityError::Name(service_account.to_owned()));
        }
        let trust_domain_end = SCHEME.len() + trust_domain.len();
        Ok(Self {
            uri: format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").into(),
            trust_domain_end,
            namespace_end: trust_domain_end + "/ns/".len() + namespace.len(),
        })
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME.len()..self.trust_domain_end]
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.uri[self.trust_domain_end + "/ns/".len()..self.namespace_end]
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.uri[self.namespace_end + "/sa/".len()..]
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| IdentityError::Scheme(clip(text)))?;
        let mut parts = rest.split('/');
        let shape = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(trust_domain), Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) = shape else {
            return Err(IdentityError::Shape(clip(text)));
        };
        Self::new(trust_domain, namespace, service_account)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.uri)
    }
}

/// Whether `text` can be a trust domain.
pub fn is_trust_domain(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte))
}

fn is_label(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|label| is_label(label, 253))
}

/// Foreign text goes into errors and logs only in part.
fn clip(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_read_back() {
        let id: Identity = "spiffe://cluster.local/ns/shop/sa/web.v1".parse().unwrap();
        assert_eq!((id.trust_domain(), id.namespace(), id.service_account()), ("cluster.local", "shop", "web.v1"));
    }

    #[test]
    fn foreign_shapes_are_refused() {
        for text in [
            "",
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b/",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe:///ns/a/sa/b",
            "spiffe://Cluster.local/ns/a/sa/b",
            "spiffe://cluster.local:80/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b?x",
            "spiffe://cluster.local/ns/a/sa/b\0",
            "spiffe://cluster.local/ns/a%2fb/sa/b",
            "SPIFFE://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/-a/sa/b",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(td in "[a-z0-9._-]{1,20}", ns in "[a-z]([a-z0-9-]{0,10}[a-z0-9])?", sa in "[a-z]([a-z0-9.-]{0,10}[a-z0-9])?") {
            if let Ok(id) = Identity::new(&td, &ns, &sa) {
                prop_assert_eq!(id.as_str().parse::<Identity>().unwrap(), id);
            }
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = text.parse::<Identity>();
        }
    }
}
