//! Which of several controllers writes what all of them share: the one that holds a Lease.
//!
//! Made and run by [`crate::app`] where there is a cluster; [`crate::bundles`] asks [`Leading`] before each write. A
//! Lease does not fence: a holder that was asleep may write once more. So whoever writes also names the version that it
//! replaces, and two writers at once do no harm. Serving proxies needs no Lease. It does not know what is written.

mod rules;

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use mesh_proto::names;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use self::rules::Step;
use crate::api::{Api, Failure};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long a holder that is gone keeps the Lease (in whole seconds).
    pub duration: Duration,
    /// How long a holder that cannot renew it still counts itself as the holder: less, so that there are never two.
    pub believed: Duration,
    /// How often it is looked at, and renewed; also the longest for one answer.
    pub look: Duration,
}

impl Default for Pace {
    /// As Kubernetes' own components.
    fn default() -> Self {
        Self { duration: Duration::from_secs(15), believed: Duration::from_secs(10), look: Duration::from_secs(2) }
    }
}

/// Takes part in the election.
pub struct Election {
    api: Api,
    pace: Pace,
    /// Its name in the Lease.
    me: String,
    /// The Lease as it was seen last, and when it was seen so first.
    seen: Option<(Lease, Instant)>,
    until: watch::Sender<Option<Instant>>,
}

/// Whether this controller holds the Lease. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leading(watch::Receiver<Option<Instant>>);

impl Leading {
    /// Whether it does now.
    pub fn now(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until it does. For ever where nobody tries any more.
    pub async fn wait(&mut self) {
        let held = |until: &Option<Instant>| until.is_some_and(|until| Instant::now() < until);
        if self.0.wait_for(held).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Election {
    /// Not yet elected. `host` tells people which controller it is.
    pub fn new(api: Api, pace: Pace, host: &str) -> (Self, Leading) {
        let (until, leading) = watch::channel(None);
        // Two containers may have one host name, and a restarted one is another.
        let me = format!("{host}_{:016x}", rand::random::<u64>());
        (Self { api, pace, me, seen: None, until }, Leading(leading))
    }

    /// Tries to get and to keep the Lease until `cancelled`, then lets go of it, so that the next one need not wait. What
    /// cannot be done is told to `problem` (none: all is well).
    pub async fn run(mut self, cancelled: impl Future<Output = ()>, problem: impl Fn(Option<String>)) {
        tokio::pin!(cancelled);
        loop {
            let step = async {
                let done = self.step().await;
                problem(done.err().map(|failure| say(&failure)));
                tokio::time::sleep(self.pace.look).await;
            };
            tokio::select! {
                () = step => {}
                () = &mut cancelled => break,
            }
        }
        self.release().await;
    }

    async fn step(&mut self) -> Result<(), Failure> {
        // Counted from before the question: it is what the others see at the earliest.
        let asked = Instant::now();
        let done = timeout(self.pace.look, self.ask()).await.unwrap_or(Err(Failure::Silent(self.pace.look)));
        let (held, failed) = match done {
            Ok(held) => (held, None),
            // Somebody else was faster: it is theirs.
            Err(failure) if failure.status() == Some(http::StatusCode::CONFLICT) => (false, None),
            Err(failure) => (false, Some(failure)),
        };
        let until = if held {
            Some(asked + self.pace.believed)
        } else {
            // As long as nobody could be asked, what was said before holds for its time.
            failed.as_ref().and_then(|_| *self.until.borrow()).filter(|until| asked < *until)
        };
        let (before, after) = (self.until.send_replace(until).is_some(), until.is_some());
        if before != after {
            tracing::info!(me = %self.me, leads = after, "who writes into the cluster has changed");
        }
        failed.map_or(Ok(()), Err)
    }

    /// Whether the Lease is ours now.
    async fn ask(&mut self) -> Result<bool, Failure> {
        let found: Option<Lease> = self.api.get(names::SYSTEM_NAMESPACE, names::CONTROLLER_NAME).await?;
        let unchanged = self.see(found.clone());
        let lease = rules::held(found.as_ref(), &self.me, Timestamp::now(), self.pace.duration);
        let held = match rules::step(found.as_ref(), &self.me, unchanged) {
            Step::Wait => return Ok(false),
            Step::Create => self.api.create(&lease).await?,
            Step::Hold => self.api.replace(&lease).await?,
        };
        self.see(Some(held));
        Ok(true)
    }

    /// Takes note of the Lease; how long it has been like this.
    fn see(&mut self, found: Option<Lease>) -> Duration {
        let now = Instant::now();
        let since = match (&self.seen, &found) {
            (Some((before, since)), Some(found)) if before == found => *since,
            _ => now,
        };
        self.seen = found.map(|found| (found, since));
        now.duration_since(since)
    }

    async fn release(self) {
        let ours = self.seen.filter(|(lease, _)| rules::holder(lease) == Some(self.me.as_str()));
        self.until.send_replace(None);
        if let Some((lease, _)) = ours {
            // If this fails the Lease ends by itself.
            let _ = timeout(self.pace.look, self.api.replace(&rules::released(&lease))).await;
        }
    }
}

fn say(failure: &Failure) -> String {
    let fix = match failure.status() {
        Some(http::StatusCode::FORBIDDEN | http::StatusCode::UNAUTHORIZED) => {
            "allow the controller's service account to create leases and to get and update this one (Role mesh-controller)"
        }
        _ => "another controller may write meanwhile",
    };
    format!("{failure}; {fix}")
}
