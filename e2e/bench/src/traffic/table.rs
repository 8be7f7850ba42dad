//! What is measured in a turn, what the figures are called, and what is promised of them.

use mesh_measure::Bar;

use crate::load::client::{Pace, What};

/// One test over connections of one kind.
pub(super) struct Test {
    pub(super) what: What,
    pub(super) connections: usize,
    pub(super) pace: Pace,
    pub(super) figures: &'static [(&'static str, Figure)],
}

/// What a test is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Figure {
    /// Processors' time of both proxies, µs per request.
    Cpu,
    /// Answers per second.
    Answers,
    /// A percentile of the latency, µs.
    Latency(f64),
    /// By how much that is more than without proxies.
    Added(f64),
}

/// What is measured by itself, and once more by itself where it fails.
#[derive(Clone, Copy)]
pub(super) enum Measurement {
    Test(&'static Test),
    /// One stream of bytes.
    Stream,
    /// Of both proxies at that time.
    Memory(&'static str),
    /// What idle connections add to it.
    MemoryEach,
}

impl Measurement {
    /// All of a turn, in the order in which they are made.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let loads = TESTS.iter().map(Self::Test).chain([Self::Stream]);
        [Self::Memory(MEMORY_IDLE)].into_iter().chain(loads).chain([Self::Memory(MEMORY), Self::MemoryEach])
    }

    pub(super) fn figures(self) -> Vec<&'static str> {
        match self {
            Self::Test(test) => test.figures.iter().map(|(name, _)| *name).collect(),
            Self::Stream => vec![STREAM, STREAM_CPU],
            Self::Memory(name) => vec![name],
            Self::MemoryEach => vec![MEMORY_EACH],
        }
    }

    /// What it is called: what the names of its figures have in common.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Test(test) => before_colon(test.figures[0].0),
            Self::Stream => before_colon(STREAM),
            Self::Memory(name) => name,
            Self::MemoryEach => MEMORY_EACH,
        }
    }
}

fn before_colon(figure: &'static str) -> &'static str {
    figure.split_once(": ").map_or(figure, |(name, _)| name)
}

const KIB: usize = 1 << 10;

const CPU_64: &str = "HTTP/1.1, 64 connections: CPU per request";
const CPU_16: &str = "HTTP/1.1, 16 connections: CPU per request";
const CPU_1000: &str = "HTTP/1.1, 1,000/s: CPU per request";
const CPU_LARGE: &str = "HTTP/1.1, 64 KiB answers: CPU per request";
const CPU_CALLS: &str = "gRPC, 8 connections with 8 calls each: CPU per call";
const CPU_FRESH: &str = "HTTP/1.1, a new connection each: CPU per request";
const MOST_64: &str = "HTTP/1.1, 64 connections: requests";
const ADDED_1000: &str = "HTTP/1.1, 1,000/s: added p50";
pub(super) const STREAM_CPU: &str = "TCP, one stream: CPU per GB";
pub(super) const STREAM: &str = "TCP, one stream: throughput";
pub(super) const MEMORY_IDLE: &str = "memory of both (RSS): idle";
pub(super) const MEMORY: &str = "memory of both (RSS): after load";
pub(super) const MEMORY_EACH: &str = "memory of both (RSS): added per idle connection";
pub(super) const HOST: &str = "host: a fixed computation";
pub(super) const READY: &str = "start to ready, with certificate";

/// In the order in which they are done. Those at a fixed rate come first: what the others leave behind would be in their latencies.
static TESTS: [Test; 9] = [
    Test {
        what: What::Http1(KIB),
        connections: 16,
        pace: Pace::Rate(1000),
        figures: &[
            (CPU_1000, Figure::Cpu),
            ("HTTP/1.1, 1,000/s: p50", Figure::Latency(50.0)),
            ("HTTP/1.1, 1,000/s: p99", Figure::Latency(99.0)),
            ("HTTP/1.1, 1,000/s: p99.9", Figure::Latency(99.9)),
            (ADDED_1000, Figure::Added(50.0)),
            ("HTTP/1.1, 1,000/s: added p99", Figure::Added(99.0)),
            ("HTTP/1.1, 1,000/s: added p99.9", Figure::Added(99.9)),
        ],
    },
    Test {
        what: What::Http1(KIB),
        connections: 32,
        pace: Pace::Rate(4000),
        figures: &[
            ("HTTP/1.1, 4,000/s: CPU per request", Figure::Cpu),
            ("HTTP/1.1, 4,000/s: p50", Figure::Latency(50.0)),
            ("HTTP/1.1, 4,000/s: p99", Figure::Latency(99.0)),
            ("HTTP/1.1, 4,000/s: p99.9", Figure::Latency(99.9)),
            ("HTTP/1.1, 4,000/s: added p50", Figure::Added(50.0)),
            ("HTTP/1.1, 4,000/s: added p99", Figure::Added(99.0)),
            ("HTTP/1.1, 4,000/s: added p99.9", Figure::Added(99.9)),
        ],
    },
    Test {
        what: What::Calls(4),
        connections: 4,
        pace: Pace::Rate(1000),
        figures: &[
            ("gRPC, 1,000/s: CPU per call", Figure::Cpu),
            ("gRPC, 1,000/s: p50", Figure::Latency(50.0)),
            ("gRPC, 1,000/s: added p50", Figure::Added(50.0)),
        ],
    },
    Test {
        what: What::Http1(KIB),
        connections: 64,
        pace: Pace::Closed,
        figures: &[(CPU_64, Figure::Cpu), (MOST_64, Figure::Answers)],
    },
    Test {
        what: What::Http1(KIB),
        connections: 16,
        pace: Pace::Closed,
        figures: &[(CPU_16, Figure::Cpu), ("HTTP/1.1, 16 connections: requests", Figure::Answers)],
    },
    Test {
        what: What::Http1(64 * KIB),
        connections: 16,
        pace: Pace::Closed,
        figures: &[(CPU_LARGE, Figure::Cpu), ("HTTP/1.1, 64 KiB answers: requests", Figure::Answers)],
    },
    Test {
        what: What::Http1(64 * KIB),
        connections: 64,
        pace: Pace::Closed,
        figures: &[
            ("HTTP/1.1, 64 KiB answers, 64 connections: CPU per request", Figure::Cpu),
            ("HTTP/1.1, 64 KiB answers, 64 connections: requests", Figure::Answers),
        ],
    },
    Test {
        what: What::Calls(8),
        connections: 8,
        pace: Pace::Closed,
        figures: &[(CPU_CALLS, Figure::Cpu), ("gRPC, 8 connections with 8 calls each: calls", Figure::Answers)],
    },
    Test {
        what: What::Fresh(KIB),
        connections: 16,
        pace: Pace::Closed,
        figures: &[(CPU_FRESH, Figure::Cpu), ("HTTP/1.1, a new connection each: requests", Figure::Answers)],
    },
];

/// What is promised: as ratios to Envoy's better flavour, with how far it should go one day.
pub(super) const BARS: [(&str, Bar); 13] = [
    (CPU_64, Bar::Most(0.5, 0.3)),
    (CPU_16, Bar::Most(0.5, 0.33)),
    (CPU_1000, Bar::Most(0.5, 0.33)),
    (CPU_CALLS, Bar::Most(0.4, 0.16)),
    (CPU_FRESH, Bar::Most(0.65, 0.5)),
    (MOST_64, Bar::Least(2.0, 3.5)),
    (ADDED_1000, Bar::Most(0.5, 0.3)),
    (CPU_LARGE, Bar::Most(0.75, 0.6)),
    (STREAM_CPU, Bar::Most(0.95, 0.85)),
    (STREAM, Bar::Least(1.1, 1.2)),
    (MEMORY, Bar::Most(0.25, 0.17)),
    (MEMORY_EACH, Bar::Most(0.6, 0.3)),
    (READY, Bar::Value(30.0, 15.0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_of_a_figure_that_is_measured() {
        let measured: Vec<_> = Measurement::all().flat_map(Measurement::figures).chain([HOST, READY]).collect();
        for (place, name) in measured.iter().enumerate() {
            assert!(!measured[..place].contains(name), "two figures are called {name}");
        }
        for (name, _) in BARS {
            assert!(measured.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_measurement_is_called_what_all_its_figures_begin_with_and_no_other_does() {
        let names: Vec<_> = Measurement::all().map(Measurement::name).collect();
        for (place, measurement) in Measurement::all().enumerate() {
            let name = measurement.name();
            assert!(measurement.figures().iter().all(|figure| figure.starts_with(name)), "{name}");
            assert!(!names[..place].contains(&name), "two are called {name}");
        }
    }
}
