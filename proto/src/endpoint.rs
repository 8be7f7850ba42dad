//! Where traffic can go: one address of a backend, and who is expected there.

use std::net::SocketAddr;

use crate::{identity::Identity, workload::PodRef};

/// One address of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Pod address and application port.
    pub address: SocketAddr,
    /// Who must answer there. With an identity it is dialled only by mutual TLS (contracts §1, no downgrade).
    pub identity: Option<Identity>,
    /// The pod, where the endpoint is one.
    pub pod: Option<PodRef>,
}
