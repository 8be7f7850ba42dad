//! The Kubernetes API as a source: one reflector per kind, all into the channel of the index.
//!
//! Kinds do not wait for each other: one that is slow, forbidden or not there holds up none of the rest. Only the first
//! [`Event::Synced`] waits for all, because before it absence means nothing. It does not know what the objects mean.

mod known;
mod reflector;
mod request;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use self::reflector::Reflector;
use super::{Event, Kind};
use crate::{api::Api, lease, metrics::Metrics, problems::Problems};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A watch is asked anew after this time (in whole seconds, below the five minutes that API servers allow).
    pub watch: Duration,
    /// A watch that the server has not ended this long after its time hangs.
    pub grace: Duration,
    /// Longest for a page of a list, and for a watch to begin.
    pub answer: Duration,
    /// First wait after a failure; each further one doubles it.
    pub first_retry: Duration,
    /// Longest wait after a failure.
    pub longest_retry: Duration,
    /// How often the Secret of the certificate authority is looked at.
    pub mirror: Duration,
    /// How often the ConfigMaps with the roots of trust are looked at.
    pub bundles: Duration,
    /// Of the election of the one that writes them.
    pub lease: lease::Pace,
}

impl Default for Pace {
    /// A watch that hangs is noticed within 70 s, for one request per kind and minute. API servers themselves give a
    /// list 60 s. One that comes back is found within 5 s: a failed request per kind and controller costs it nothing.
    fn default() -> Self {
        Self {
            watch: Duration::from_mins(1),
            grace: Duration::from_secs(10),
            answer: Duration::from_mins(1),
            first_retry: Duration::from_millis(200),
            longest_retry: Duration::from_secs(5),
            mirror: Duration::from_secs(10),
            bundles: Duration::from_secs(30),
            lease: lease::Pace::default(),
        }
    }
}

/// The source.
pub struct Kube {
    api: Api,
    pace: Pace,
    problems: Problems,
    metrics: Metrics,
}

impl Kube {
    /// Reads from `api`; failures and objects that cannot be read go to `problems`.
    pub fn new(api: Api, pace: Pace, problems: Problems, metrics: Metrics) -> Self {
        Self { api, pace, problems, metrics }
    }

    /// Sends what is there, then every change, until the receiver is gone.
    pub async fn run(self, events: mpsc::Sender<Event>) {
        let (mut reflectors, mut firsts) = (Vec::new(), Vec::new());
        for kind in Kind::ALL {
            let (complete, first) = oneshot::channel();
            let reflector = Reflector::new(kind, &self, events.clone());
            reflectors.push(reflector.run(complete));
            firsts.push(first);
        }
        let synced = async {
            // An end without a first list: the receiver is gone, and nobody is left to be told.
            if join_all(firsts).await.iter().all(Result::is_ok) {
                let _ = events.send(Event::Synced).await;
            }
        };
        futures_util::future::join(join_all(reflectors), synced).await;
    }
}
