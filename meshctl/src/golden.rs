//! The golden numbers of `stat`: success, rate, latency, connections, from what the proxies count themselves.
//!
//! Reads nothing: the command takes two samples of every proxy's metrics, [`samples`] parses them, this module
//! subtracts and sums. It knows the metric names of `docs/metrics.md` and nothing of clusters.

pub(crate) mod samples;

use std::{collections::BTreeMap, time::Duration};

use mesh_proto::outcome::Outcome;
use samples::{Sample, Samples};

/// What happened at one place during a window.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Golden {
    /// Answers by status class: 1xx..5xx, and none at all at index 0.
    pub(crate) responses: [f64; 6],
    /// Answers that count as a success (`classification="success"`: no 5xx, no failing gRPC status).
    pub(crate) successes: f64,
    /// Requests that were sent to a second endpoint (outbound).
    pub(crate) retries: f64,
    /// Opened connections.
    pub(crate) tcp_opened: f64,
    /// Bytes of opaque connections, from and to their clients.
    pub(crate) tcp_read: f64,
    pub(crate) tcp_written: f64,
    /// Cumulative latency histogram: upper bound in milliseconds -> answers at or below.
    latency: BTreeMap<Bound, f64>,
}

/// Upper bound of a histogram bucket, in milliseconds; ordered as a number.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bound(f64);

impl Eq for Bound {}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Golden {
    /// What one proxy counted in `direction` between two readings, for the series that `select` accepts.
    /// A counter that fell (the proxy restarted) counts from zero.
    pub(crate) fn between(
        before: &Samples,
        after: &Samples,
        direction: &str,
        select: impl Fn(&Sample) -> bool,
    ) -> Self {
        let mut golden = Self::default();
        for sample in after.iter().filter(|sample| sample.label("direction") == Some(direction) && select(sample)) {
            let grown = grown(before, &sample);
            match sample.name.as_str() {
                "response_total" => {
                    let class = sample.label("status_code").and_then(|code| code.chars().next());
                    let class = class.and_then(|digit| digit.to_digit(10)).unwrap_or(0);
                    golden.responses[(class as usize).min(5)] += grown;
                    if sample.label("classification") == Some("success") {
                        golden.successes += grown;
                    }
                }
                "response_latency_ms_bucket" => {
                    if let Some(bound) = sample.label("le").and_then(bound) {
                        *golden.latency.entry(Bound(bound)).or_default() += grown;
                    }
                }
                "request_retry_total" => golden.retries += grown,
                "tcp_open_total" => golden.tcp_opened += grown,
                "tcp_read_bytes_total" => golden.tcp_read += grown,
                "tcp_write_bytes_total" => golden.tcp_written += grown,
                _ => {}
            }
        }
        golden
    }

    /// Adds what another proxy counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, value) in self.responses.iter_mut().zip(other.responses) {
            *sum += value;
        }
        self.successes += other.successes;
        self.retries += other.retries;
        self.tcp_opened += other.tcp_opened;
        self.tcp_read += other.tcp_read;
        self.tcp_written += other.tcp_written;
        for (bound, count) in &other.latency {
            *self.latency.entry(*bound).or_default() += count;
        }
    }

    /// All answers, and requests that got none.
    pub(crate) fn total(&self) -> f64 {
        self.responses.iter().sum()
    }

    /// Whether nothing happened.
    pub(crate) fn is_empty(&self) -> bool {
        self.total() == 0.0 && self.tcp_opened == 0.0
    }

    /// Requests per second.
    pub(crate) fn rate(&self, window: Duration) -> f64 {
        self.total() / window.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Share of successes, none where nothing was answered.
    pub(crate) fn success(&self) -> Option<f64> {
        (self.total() > 0.0).then(|| self.successes / self.total())
    }

    /// Latency in milliseconds that `quantile` of the answers stayed below, interpolated within its bucket as
    /// Prometheus' `histogram_quantile` does. None without answers; the last finite bound where it lies beyond.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let total = *self.latency.values().next_back()?;
        if total <= 0.0 {
            return None;
        }
        let rank = quantile * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (Bound(bound), &count) in &self.latency {
            if count >= rank {
                if bound.is_infinite() || count <= below {
                    return Some(lower);
                }
                return Some(lower + (bound - lower) * (rank - below) / (count - below));
            }
            (lower, below) = (*bound, count);
        }
        Some(lower)
    }
}

/// Requests and connections that one proxy ended at a time limit between two readings, in both directions.
pub(crate) fn timeouts(before: &Samples, after: &Samples) -> f64 {
    let is_timeout = |sample: &Sample| {
        let code = sample.label("code").unwrap_or_default();
        sample.name == "mesh_error_total"
            && [Outcome::ConnectTimeout, Outcome::HeadTimeout].iter().any(|it| it.code() == code)
    };
    after.iter().filter(is_timeout).fold(0.0, |sum, sample| sum + grown(before, &sample))
}

/// By how much a counter grew; one that fell (the proxy restarted) grew from zero.
fn grown(before: &Samples, sample: &Sample) -> f64 {
    let earlier = before.value(sample).unwrap_or(0.0);
    if sample.value < earlier { sample.value } else { sample.value - earlier }
}

fn bound(text: &str) -> Option<f64> {
    if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "counts are whole numbers")]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
response_total{direction="inbound",status_code="200",classification="success"} 10
response_latency_ms_bucket{direction="inbound",le="1.0"} 5
"#;
    const AFTER: &str = r#"
response_total{direction="inbound",status_code="200",classification="success"} 100
response_total{direction="inbound",status_code="503",classification="failure"} 10
response_total{direction="outbound",status_code="200",classification="success"} 7
response_latency_ms_bucket{direction="inbound",le="1.0"} 55
response_latency_ms_bucket{direction="inbound",le="10.0"} 95
response_latency_ms_bucket{direction="inbound",le="+Inf"} 100
tcp_open_total{direction="inbound"} 3
"#;

    fn golden() -> Golden {
        Golden::between(&Samples::parse(BEFORE), &Samples::parse(AFTER), "inbound", |_| true)
    }

    #[test]
    fn a_window_is_the_difference_of_two_readings() {
        let golden = golden();
        assert_eq!(golden.responses, [0.0, 0.0, 90.0, 0.0, 0.0, 10.0]);
        assert_eq!(golden.success(), Some(0.9));
        assert_eq!(golden.rate(Duration::from_secs(10)), 10.0);
        assert_eq!(golden.tcp_opened, 3.0);
    }

    #[test]
    fn a_proxy_that_restarted_counts_from_zero() {
        let golden = Golden::between(&Samples::parse(AFTER), &Samples::parse(BEFORE), "inbound", |_| true);
        assert_eq!(golden.total(), 10.0);
    }

    #[test]
    fn quantiles_interpolate_within_their_bucket() {
        let golden = golden();
        assert_eq!(golden.quantile(0.25), Some(0.5));
        assert_eq!(golden.quantile(0.50), Some(1.0));
        assert_eq!(golden.quantile(0.725), Some(1.0 + 9.0 * 0.5));
        assert_eq!(golden.quantile(0.99), Some(10.0), "beyond the last finite bound");
        assert_eq!(Golden::default().quantile(0.5), None);
    }

    #[test]
    fn timeouts_are_told_by_their_codes() {
        let (before, after) = (
            r#"mesh_error_total{direction="outbound",code="connect-timeout"} 2"#,
            concat!(
                "mesh_error_total{direction=\"outbound\",code=\"connect-timeout\"} 5\n",
                "mesh_error_total{direction=\"inbound\",code=\"head-timeout\"} 1\n",
                "mesh_error_total{direction=\"inbound\",code=\"denied\"} 9\n",
            ),
        );
        assert_eq!(timeouts(&Samples::parse(before), &Samples::parse(after)), 4.0);
    }

    #[test]
    fn several_proxies_add_up() {
        let mut sum = golden();
        sum.add(&golden());
        assert_eq!((sum.total(), sum.success(), sum.quantile(0.5)), (200.0, Some(0.9), Some(1.0)));
    }
}
