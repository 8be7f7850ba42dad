//! Picks an endpoint: the better of two taken at random, by load (peak EWMA of the latency times requests in flight).
//!
//! One [`Balancer`] per backend of a target, per worker. The load belongs to the endpoint (`pool::Upstream`), which
//! outlives updates of the policy. Knows nothing of connections.

pub(crate) mod ewma;
pub(crate) mod silence;

use std::rc::Rc;

use rand::Rng as _;

use crate::outbound::target::Member;

/// The endpoints of one backend.
pub(crate) struct Balancer {
    endpoints: Vec<Rc<Member>>,
}

impl Balancer {
    /// Over these endpoints.
    pub(crate) fn new(endpoints: Vec<Rc<Member>>) -> Self {
        Self { endpoints }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether this very endpoint is among them.
    pub(crate) fn contains(&self, member: &Rc<Member>) -> bool {
        self.endpoints.iter().any(|endpoint| Rc::ptr_eq(endpoint, member))
    }

    /// The better of two at random. `not` is left out (an endpoint that has just failed) unless it is the only one, and so is
    /// one that does not answer unless none does.
    pub(crate) fn pick(&self, not: Option<&Rc<Member>>) -> Option<Rc<Member>> {
        let (now, len) = (tokio::time::Instant::now(), self.endpoints.len());
        let not = not.and_then(|not| self.endpoints.iter().position(|endpoint| Rc::ptr_eq(endpoint, not)));
        let index = power_of_two(
            len,
            not,
            |bound| rand::rng().random_range(0..bound),
            |index| self.endpoints[index].upstream.load.estimate(now),
        )?;
        let index = awake(len, index, not, |index| self.endpoints[index].upstream.silence.holds(now));
        Some(Rc::clone(&self.endpoints[index]))
    }
}

/// Index of the better of two of `len`, without `not` where there is another. `random(n)` is uniform over `0..n`.
fn power_of_two(
    len: usize,
    not: Option<usize>,
    mut random: impl FnMut(usize) -> usize,
    load: impl Fn(usize) -> f64,
) -> Option<usize> {
    // Numbers the candidates 0..count without `not`.
    let not = not.filter(|_| len > 1);
    let count = len - usize::from(not.is_some());
    let candidate = |n: usize| n + usize::from(not.is_some_and(|not| n >= not));
    match count {
        0 => None,
        1 => Some(candidate(0)),
        _ => {
            let first = random(count);
            // Uniform over the others: a step of 1..count from the first, around the ring.
            let second = (first + 1 + random(count - 1)) % count;
            let (first, second) = (candidate(first), candidate(second));
            Some(if load(second) < load(first) { second } else { first })
        }
    }
}

/// `index`, or the next one that is not silent where it is.
fn awake(len: usize, index: usize, not: Option<usize>, is_silent: impl Fn(usize) -> bool) -> usize {
    let around = (0..len).map(|step| (index + step) % len);
    around.filter(|other| Some(*other) != not).find(|other| !is_silent(*other)).unwrap_or(index)
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::SmallRng};

    use super::*;

    fn shares(loads: &[f64], not: Option<usize>) -> Vec<usize> {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut counts = vec![0; loads.len()];
        for _ in 0..30_000 {
            let picked = power_of_two(loads.len(), not, |n| rng.random_range(0..n), |i| loads[i]).unwrap();
            counts[picked] += 1;
        }
        counts
    }

    #[test]
    fn equal_endpoints_get_equal_shares() {
        assert!(shares(&[1.0; 3], None).iter().all(|n| (9_500..10_500).contains(n)));
    }

    #[test]
    fn the_worst_of_three_gets_nothing_and_the_best_two_thirds() {
        let counts = shares(&[1.0, 2.0, 3.0], None);
        assert!((19_500..20_500).contains(&counts[0]) && (9_500..10_500).contains(&counts[1]), "{counts:?}");
        assert_eq!(counts[2], 0);
    }

    #[test]
    fn a_failed_endpoint_is_left_out_unless_it_is_the_only_one() {
        for not in 0..3 {
            let counts = shares(&[1.0; 3], Some(not));
            assert_eq!(counts[not], 0);
            assert!(counts.iter().enumerate().all(|(i, n)| i == not || (14_500..15_500).contains(n)), "{counts:?}");
        }
        assert_eq!(shares(&[1.0], Some(0)), [30_000]);
        assert_eq!(power_of_two(2, Some(1), |_| 0, |_| 0.0), Some(0));
        assert_eq!(power_of_two(0, None, |_| 0, |_| 0.0), None);
    }

    #[test]
    fn a_silent_endpoint_is_left_out_unless_all_are() {
        for (index, not, silent, expected) in [
            (1, None, &[][..], 1),
            (1, None, &[1], 2),
            (2, None, &[2], 0),
            (1, None, &[1, 2], 0),
            (1, Some(2), &[1], 0),
            (1, None, &[0, 1, 2], 1),
            (1, Some(0), &[1, 2], 1),
        ] {
            let found = awake(3, index, not, |index| silent.contains(&index));
            assert_eq!(found, expected, "{index} without {not:?}, silent: {silent:?}");
        }
    }
}
