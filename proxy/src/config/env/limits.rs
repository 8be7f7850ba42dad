//! Limits in the environment (docs/limits.md).

use std::time::Duration;

use mesh_proto::names;

use super::{Reader, Strings, values::within};
use crate::config::Limits;

/// Most connections that may be asked for: what a process could hold with a million descriptors.
const MAX_CONNECTIONS: usize = 1 << 19;
/// Most series that may be asked for: a page of some 20 MB.
const MAX_SERIES: usize = 100_000;
/// Longest a connect may be given, in milliseconds: the kernel itself gives up after two minutes.
const MAX_CONNECT: u64 = 60_000;
/// Seconds of a limit in time.
const SECONDS: (f64, f64) = (0.1, 3600.0);

impl<S: Strings> Reader<'_, S> {
    /// The limits, and the longest time for a head.
    pub(super) fn limits(&mut self) -> (Limits, Option<Duration>) {
        let default = Limits::default();
        let connections = self.optional(
            names::ENV_MAX_CONNECTIONS,
            |text| within(text, 2, MAX_CONNECTIONS),
            "write the number of client connections",
        );
        let memory = self.optional(
            names::ENV_MEMORY_LIMIT,
            |text| within(text, 1, u64::MAX),
            "write bytes, or leave it out where the container has a memory limit",
        );
        let series = self.optional(
            names::ENV_MAX_SERIES,
            |text| within(text, 0, MAX_SERIES),
            "write the number of series that the traffic may have",
        );
        let head = self.seconds(names::ENV_HEAD_TIMEOUT);
        let limits = Limits {
            connections: connections.unwrap_or(default.connections),
            memory,
            series: series.unwrap_or(default.series),
            handshake_timeout: self.seconds(names::ENV_HANDSHAKE_TIMEOUT).unwrap_or(default.handshake_timeout),
            ping_interval: self.seconds(names::ENV_PING_INTERVAL).unwrap_or(default.ping_interval),
            ping_timeout: self.seconds(names::ENV_PING_TIMEOUT).unwrap_or(default.ping_timeout),
        };
        (limits, head)
    }

    /// Of a TCP connect.
    pub(super) fn milliseconds(&mut self, variable: &'static str) -> Option<Duration> {
        let parse = |text: &str| within(text, 1, MAX_CONNECT).map(Duration::from_millis);
        self.optional(variable, parse, "write milliseconds")
    }

    fn seconds(&mut self, variable: &'static str) -> Option<Duration> {
        let parse = |text: &str| within(text, SECONDS.0, SECONDS.1).map(Duration::from_secs_f64);
        self.optional(variable, parse, "write seconds, e.g. 15 or 0.5")
    }
}
