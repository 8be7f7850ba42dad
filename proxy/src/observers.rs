//! Who wants to know of every finished request and connection, beside the counters.
//!
//! `record` asks [`Observers::any`] when one begins, and copies nothing while the answer is no: a few loads per request.

use mesh_proto::tap::TapEvent;

use crate::{access_log::AccessLog, tap::Hub};

/// All of one proxy; clones are the same.
#[derive(Clone, Default)]
pub struct Observers {
    /// Live view.
    pub tap: Hub,
    /// Access log, where it is on.
    pub access_log: Option<AccessLog>,
}

impl Observers {
    /// Whether anybody does.
    pub(crate) fn any(&self) -> bool {
        self.tap.is_active() || self.access_log.is_some()
    }

    /// Shows it to everybody who does. Never waits.
    pub(crate) fn show(&self, event: TapEvent) {
        if let Some(log) = &self.access_log {
            log.write(&event, None);
        }
        self.tap.publish(|| event);
    }
}
