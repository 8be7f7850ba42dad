//! The trust bundle as a topic: one value for every stream.

use std::sync::Arc;

use mesh_proto::{config::Value, trust::TrustBundle};
use tokio::{sync::watch, time::Instant};

use crate::publish::{Latest, Published};

/// The trust bundle as a topic, to be replaced and to be listened to.
pub fn trust_bundle(bundle: TrustBundle) -> (Trusted, watch::Receiver<Latest>) {
    let (sender, receiver) = watch::channel(None);
    let trusted = Trusted(sender);
    trusted.replace(bundle);
    (trusted, receiver)
}

/// The trust bundle that every stream sends.
pub struct Trusted(watch::Sender<Latest>);

impl Trusted {
    /// Sends another bundle to everybody.
    pub fn replace(&self, bundle: TrustBundle) {
        self.0.send_if_modified(|latest| {
            let value = Value::TrustBundle(bundle);
            let version = latest.as_ref().map_or(1, |latest| latest.version + 1);
            let same = latest.as_ref().is_some_and(|latest| *latest.value == value);
            if !same {
                *latest = Some(Published { version, value: Arc::new(value), since: Instant::now() });
            }
            !same
        });
    }
}
