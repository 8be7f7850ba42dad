//! Reads the text that Prometheus scrapes: values of series, and quantiles of a histogram. Pure.

use anyhow::Context as _;

/// The value of the series of `name` whose labels contain all of `labels`; of several, their sum.
pub(crate) fn value(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let mut found = series(page, name, labels).map(|(_, value)| value).peekable();
    found.peek()?;
    Some(found.sum())
}

/// Upper bounds with how many observations do not exceed them, ascending.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// Of all series of `name` whose labels contain all of `labels`. Empty where there is none.
    pub(crate) fn read(page: &str, name: &str, labels: &[&str]) -> Self {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (found, count) in series(page, &format!("{name}_bucket"), labels) {
            let bound = found.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
            let Some(bound) = bound.and_then(|bound| bound.replace("+Inf", "inf").parse().ok()) else { continue };
            match buckets.iter_mut().find(|(known, _)| f64::total_cmp(known, &bound).is_eq()) {
                Some((_, known)) => *known += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        Self(buckets)
    }

    /// What was observed since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let known = |bound: f64| before.0.iter().find(|(known, _)| f64::total_cmp(known, &bound).is_eq());
        Self(self.0.iter().map(|&(bound, count)| (bound, count - known(bound).map_or(0.0, |known| known.1))).collect())
    }

    /// How many observations.
    pub(crate) fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |last| last.1)
    }

    /// How many do not exceed `bound`, which is one of its own.
    pub(crate) fn within(&self, bound: f64) -> Option<f64> {
        self.0.iter().find(|(known, _)| f64::total_cmp(known, &bound).is_eq()).map(|found| found.1)
    }

    /// As `histogram_quantile`: within a bucket, observations are taken to be spread evenly.
    pub(crate) fn quantile(&self, share: f64) -> anyhow::Result<f64> {
        let rank = share * self.count();
        let (mut low, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if count >= rank && count > below {
                return Ok(if bound.is_finite() {
                    low + (bound - low) * (rank - below) / (count - below)
                } else {
                    low
                });
            }
            (low, below) = (bound, count);
        }
        None.context("nothing was observed")
    }
}

/// Labels and value of each series.
fn series<'a>(page: &'a str, name: &'a str, labels: &'a [&str]) -> impl Iterator<Item = (&'a str, f64)> {
    page.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (found, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        // A time may follow.
        let value = value.split(' ').next()?.parse().ok()?;
        labels.iter().all(|label| found.contains(label)).then_some((found, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE took histogram
took_bucket{name=\"a\",le=\"0.005\"} 10
took_bucket{name=\"a\",le=\"0.025\"} 90
took_bucket{name=\"a\",le=\"+Inf\"} 100
took_bucket{name=\"b\",le=\"0.005\"} 1
took_sum{name=\"a\"} 3
resident 12.5
resident_more{name=\"a\"} 7 1700000000
resident_more{name=\"b\"} 3
";

    #[test]
    fn a_series_is_found_by_its_name_and_labels() {
        for (name, labels, expected) in [
            ("resident", &[][..], Some(12.5)),
            ("resident_more", &["name=\"a\""], Some(7.0)),
            ("resident_more", &[], Some(10.0)),
            ("resident_more", &["name=\"c\""], None),
            ("absent", &[], None),
        ] {
            assert_eq!(value(PAGE, name, labels), expected, "{name} {labels:?}");
        }
    }

    #[test]
    fn a_quantile_lies_within_its_bucket_and_counts_what_came_since() {
        let all = Histogram::read(PAGE, "took", &["name=\"a\""]);
        for (share, expected) in [(0.05, 0.0025), (0.1, 0.005), (0.5, 0.015), (0.9, 0.025), (0.99, 0.025)] {
            let found = all.quantile(share).expect("there are observations");
            assert!((found - expected).abs() < 1e-9, "{share}: {found}");
        }
        assert_eq!((all.count(), all.within(0.025)), (100.0, Some(90.0)));
        let none = all.since(&all);
        assert!(none.quantile(0.5).is_err() && none.count() < 1.0);
        assert_eq!(all.since(&Histogram::read("", "took", &[])), all);
    }
}
