//! The proxy's certificate: asked for at start, renewed before it ends, in force without a broken connection.
//!
//! One task, made by [`crate::app`]. The key never leaves the process. A refusal is logged with the controller's code and
//! tried again, slower and slower; the old certificate serves until it expires, and after that nothing does
//! (`identity-unavailable`). Who proves what to whom is decided by the controller and [`crate::tls`].

mod certify;
mod csr;

use std::{path::PathBuf, time::SystemTime};

use mesh_runtime::{backoff::Backoff, readiness::BlockReady};
use tokio::time::{Duration, Instant};

pub use certify::CertifyError;

use crate::{
    control_metrics::ControlMetrics,
    controller::Controller,
    tls::{CertificateFacts, Credentials},
    trust::Trust,
};

/// Waits between attempts.
const RETRY_LEAST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(10);
/// How often the clock is looked at while a certificate is good.
const LOOK: Duration = Duration::from_secs(5);

/// Keeps a certificate in force.
#[derive(Debug)]
pub struct Renewal {
    /// Whom to ask.
    pub controller: Controller,
    /// Where it is put.
    pub credentials: Credentials,
    /// Whom to trust; a bundle comes with every certificate.
    pub trust: Trust,
    /// The bootstrap token; read anew for every request.
    pub token_file: PathBuf,
    /// When to renew.
    pub schedule: Schedule,
    /// What is counted.
    pub metrics: ControlMetrics,
}

/// When to renew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// After this part of what is left of its life.
    pub after: f64,
    /// Earlier or later by up to this part of it, so that proxies started together do not return together.
    pub jitter: f64,
    /// Not sooner than this, however short its life.
    pub at_least: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        // reliability.md §1.3: a proxy whose clock is wrong, or whose certificates are short, keeps off the controller.
        Self { after: 0.7, jitter: 0.05, at_least: Duration::from_secs(10) }
    }
}

impl Schedule {
    /// How long to wait with `left` of a certificate's life; `random` is uniform over 0 to 1.
    pub fn wait(&self, left: Duration, random: f64) -> Duration {
        let part = self.after + self.jitter * (2.0 * random - 1.0);
        left.mul_f64(part.clamp(0.0, 1.0)).max(self.at_least)
    }
}

impl Renewal {
    /// Runs until dropped. `ready` is let go with the first certificate.
    pub async fn run(self, ready: BlockReady) {
        let mut ready = Some(ready);
        loop {
            let facts = self.obtain().await;
            drop(ready.take());
            let left = facts.not_after.duration_since(SystemTime::now()).unwrap_or_default();
            let wait = self.schedule.wait(left, rand::random());
            tracing::info!(
                identity = %facts.identity,
                serial = facts.serial,
                valid_for = ?Duration::from_secs(left.as_secs()),
                renewal_in = ?Duration::from_secs(wait.as_secs()),
                "certificate in force"
            );
            pass(wait).await;
        }
    }

    /// Asks until a certificate is in force.
    async fn obtain(&self) -> CertificateFacts {
        let mut backoff = Backoff::new(RETRY_LEAST, RETRY_MOST);
        loop {
            let error = match self.certify().await {
                Ok(facts) => {
                    self.metrics.certified(facts.not_after);
                    return facts;
                }
                Err(error) => error,
            };
            let wait = backoff.wait();
            self.metrics.not_certified(error.code());
            let code = error.code();
            match self.credentials.facts() {
                Some(facts) if facts.not_after > SystemTime::now() => {
                    tracing::warn!(%error, code, retry_in = ?wait, "the certificate was not renewed; the old one serves on");
                }
                Some(_) => {
                    tracing::error!(%error, code, retry_in = ?wait, "the certificate has expired and was not renewed");
                }
                None => tracing::warn!(%error, code, retry_in = ?wait, "no certificate was obtained"),
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// Waits that long by either clock: certificates go by the one that jumps, and that goes on while a machine sleeps.
async fn pass(wait: Duration) {
    let (end, due) = (Instant::now() + wait, SystemTime::now() + wait);
    while Instant::now() < end && SystemTime::now() < due {
        tokio::time::sleep_until(end.min(Instant::now() + LOOK)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_over_when_it_is_over_by_the_clock_that_timers_go_by() {
        let begun = Instant::now();
        pass(Duration::from_mins(1)).await;
        assert_eq!(begun.elapsed(), Duration::from_mins(1));
    }

    #[test]
    fn a_certificate_is_renewed_at_seventy_percent_with_jitter_and_not_in_a_hurry() {
        let schedule = Schedule::default();
        let day = Duration::from_hours(24);
        for (left, random, low, high) in [(day, 0.0, 0.649, 0.651), (day, 0.5, 0.699, 0.701), (day, 1.0, 0.749, 0.751)]
        {
            let wait = schedule.wait(left, random);
            assert!(wait > day.mul_f64(low) && wait < day.mul_f64(high), "{wait:?}");
        }
        assert_eq!(schedule.wait(Duration::ZERO, 0.5), Duration::from_secs(10));
        assert_eq!(schedule.wait(Duration::from_secs(12), 0.5), Duration::from_secs(10));
        assert_eq!(schedule.wait(Duration::from_secs(20), 1.0), Duration::from_secs(15));
    }
}
