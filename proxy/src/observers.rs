//! Who wants to know of every finished request and connection, beside the counters.
//!
//! `record` asks [`Observers::any`] when one begins, and copies nothing while the answer is no: a few loads per request.

use mesh_proto::tap::TapEvent;

use http::Request;

use crate::{
    access_log::AccessLog,
    tap::{Held, Hub},
    trace::{Span, Traces},
};

/// All of one proxy; clones are the same.
#[derive(Clone, Default)]
pub struct Observers {
    /// Live view.
    pub tap: Hub,
    /// Access log, where it is on.
    pub access_log: Option<AccessLog>,
    /// Traces, where there is a collector.
    pub traces: Option<Traces>,
}

impl Observers {
    /// A request begins: its span, where it belongs to a sampled trace.
    pub(crate) fn span<B>(&self, request: &mut Request<B>) -> Option<Span> {
        self.traces.as_ref()?.begin(request)
    }

    /// Whether anybody wants to know of everything.
    pub(crate) fn any(&self) -> bool {
        self.tap.is_active() || self.access_log.is_some()
    }

    /// Shows it to everybody who does. Never waits.
    pub(crate) fn show(&self, event: TapEvent, span: Option<Span>, tapped: Option<Held>) {
        if let Some(log) = &self.access_log {
            log.write(&event, span.as_ref().map(Span::trace_id).as_deref());
        }
        if let (Some(traces), Some(span)) = (&self.traces, &span) {
            traces.end(span, &event);
        }
        if tapped.is_some() {
            self.tap.publish(|| event);
        }
    }
}
