//! Failures, counted and in the log: also those that come before there is a record.

use std::{cell::Cell, time::Duration};

use mesh_proto::identity::Identity;
use tokio::time::Instant;

use super::Side;
use crate::{error::ProxyError, worker::Worker};

/// Counts a failure, and logs it as far as the log's limit allows.
pub(crate) fn report(worker: &Worker, side: &Side, error: &ProxyError) {
    side.live.failed(error.outcome);
    worker.shared.metrics.error(side.direction, error.outcome);
    if worker.log_limit.allows() {
        tracing::info!(
            direction = side.direction.as_str(),
            source = %side.source,
            client = side.source_identity.as_ref().map(Identity::as_str),
            destination = %side.destination,
            code = error.outcome.code(),
            detail = %error.detail,
            "not carried"
        );
    }
}

/// At most so many lines a second, so that a flood of refused connections is not a flood of log lines as well.
pub(crate) struct LogLimit {
    window: Cell<Instant>,
    used: Cell<u32>,
    left_out: Cell<u64>,
}

const LINES_PER_SECOND: u32 = 20;

impl LogLimit {
    /// With everything still to spend.
    pub(crate) fn new() -> Self {
        Self { window: Cell::new(Instant::now()), used: Cell::new(0), left_out: Cell::new(0) }
    }

    fn allows(&self) -> bool {
        let now = Instant::now();
        if now.saturating_duration_since(self.window.get()) >= Duration::from_secs(1) {
            self.window.set(now);
            self.used.set(0);
            let left_out = self.left_out.take();
            if left_out > 0 {
                tracing::info!(lines = left_out, "left out of the log: more than {LINES_PER_SECOND} a second");
            }
        }
        let allowed = self.used.get() < LINES_PER_SECOND;
        if allowed {
            self.used.set(self.used.get() + 1);
        } else {
            self.left_out.set(self.left_out.get() + 1);
        }
        allowed
    }
}
