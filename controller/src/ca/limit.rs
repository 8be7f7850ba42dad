//! How many certificates one pod may ask for. Pure: the caller tells the time.
//!
//! A pod needs one per life of a certificate, and one per start of its proxy, which crashes in bursts. Called by
//! [`crate::grpc::identity`] after the proof: a stranger cannot use up what belongs to a pod.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// Certificates that a pod can have at once.
pub const BURST: u32 = 10;
/// After which time it can have one more, at most; for short lives a twentieth of it.
const REFILL: Duration = Duration::from_secs(30);
/// Most pods that are counted; more than one controller serves.
const MOST_PODS: usize = 100_000;

/// What each pod has left.
#[derive(Debug)]
pub struct Limit {
    refill: Duration,
    /// When the pod has its whole burst again.
    full_at: HashMap<String, Instant>,
}

impl Limit {
    /// For certificates with this life.
    pub fn new(leaf_lifetime: Duration) -> Self {
        Self { refill: REFILL.min(leaf_lifetime / 20), full_at: HashMap::new() }
    }

    /// Takes one for the pod with this uid; an error says how long until there is one.
    pub fn take(&mut self, pod: &str, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.get(pod).copied().unwrap_or(now).max(now);
        let wait = (full_at + self.refill).saturating_duration_since(now + self.refill * BURST);
        if !wait.is_zero() {
            return Err(wait);
        }
        if self.full_at.len() >= MOST_PODS && !self.full_at.contains_key(pod) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= MOST_PODS {
                return Err(self.refill);
            }
        }
        self.full_at.insert(pod.to_owned(), full_at + self.refill);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_a_burst_and_then_one_per_refill_and_takes_nothing_from_others() {
        let start = Instant::now();
        let mut limit = Limit::new(Duration::from_hours(24));
        for _ in 0..BURST {
            assert_eq!(limit.take("a", start), Ok(()));
        }
        assert_eq!(limit.take("a", start), Err(REFILL));
        assert_eq!(limit.take("b", start), Ok(()));
        assert_eq!(limit.take("a", start + REFILL), Ok(()));
        assert_eq!(limit.take("a", start + REFILL), Err(REFILL));
        let later = start + REFILL * 2 * BURST;
        for _ in 0..BURST {
            assert_eq!(limit.take("a", later), Ok(()));
        }
        assert!(limit.take("a", later).is_err());
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let start = Instant::now();
        let mut limit = Limit::new(Duration::from_secs(20));
        for pod in 0..MOST_PODS {
            assert_eq!(limit.take(&pod.to_string(), start), Ok(()));
        }
        assert!(limit.take("more", start).is_err());
        assert_eq!(limit.take("more", start + Duration::from_secs(1)), Ok(()));
        assert_eq!(limit.full_at.len(), 1);
    }
}
