//! Trust bundles, to and from the wire.

use super::WireError;
use crate::{identity::is_trust_domain, trust::TrustBundle};

impl From<TrustBundle> for super::TrustBundle {
    fn from(bundle: TrustBundle) -> Self {
        Self { trust_domain: bundle.trust_domain, roots: bundle.roots }
    }
}

impl TryFrom<super::TrustBundle> for TrustBundle {
    type Error = WireError;

    fn try_from(wire: super::TrustBundle) -> Result<Self, WireError> {
        if !is_trust_domain(&wire.trust_domain) {
            return Err(WireError::invalid("trust_domain", format!("{:?}", wire.trust_domain)));
        }
        if wire.roots.is_empty() {
            // An empty bundle would cut every connection; nobody sends it on purpose.
            return Err(WireError::Missing("roots"));
        }
        Ok(Self { trust_domain: wire.trust_domain, roots: wire.roots })
    }
}
