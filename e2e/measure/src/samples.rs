//! Numbers measured again and again, and what they come to.

/// Sorted.
#[derive(Debug, Clone)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Of at least one number.
    ///
    /// # Errors
    /// Where there is none.
    pub fn new(mut numbers: Vec<f64>) -> anyhow::Result<Self> {
        anyhow::ensure!(!numbers.is_empty(), "nothing was measured");
        numbers.sort_by(f64::total_cmp);
        Ok(Self(numbers))
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest number that half of them do not exceed.
    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// The smallest number that so many percent do not exceed (nearest rank).
    pub fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1]
    }

    /// The largest.
    pub fn most(&self) -> f64 {
        self.percentile(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let samples = |most: u32| Samples::new((1..=most).rev().map(f64::from).collect()).expect("not empty");
        for (most, percent, expected) in
            [(1, 50, 1.0), (11, 50, 6.0), (200, 50, 100.0), (200, 99, 198.0), (100, 99, 99.0), (3, 100, 3.0)]
        {
            let found = samples(most).percentile(percent);
            assert!((found - expected).abs() < f64::EPSILON, "{percent} % of {most}: {found}");
        }
    }
}
