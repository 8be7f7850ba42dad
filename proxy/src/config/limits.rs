//! Limits that may be set, with their defaults (docs/limits.md).

use std::time::Duration;

/// Limits of a proxy that its environment may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most client connections of the process, both directions together; fewer where there are fewer descriptors.
    pub connections: usize,
    /// Bytes of resident memory that count as all there is; none: what the cgroup allows.
    pub memory: Option<u64>,
    /// Most series of metrics for the edges of the traffic; what is past that is counted as `other`.
    pub series: usize,
    /// Longest a TLS handshake of a client may take, from its first byte.
    pub handshake_timeout: Duration,
    /// How often a client's HTTP/2 connection is asked whether anybody is there.
    pub ping_interval: Duration,
    /// How long it has to answer.
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16 * 1024,
            memory: None,
            series: crate::metrics::MAX_SERIES,
            handshake_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(10),
            // reliability.md §1.3, as towards upstreams.
            ping_timeout: Duration::from_secs(3),
        }
    }
}
