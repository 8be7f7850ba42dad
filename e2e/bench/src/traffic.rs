//! What the data plane costs, beside Envoy: every contestant does the same tests in turns, with fresh processes in each round, so
//! that what else happens on the machine hits all alike.

mod table;

use std::{collections::HashMap, thread, time::Duration};

use anyhow::Context as _;
use mesh_measure::{Figures, Missing};
use tokio::time::Instant;

use self::table::{BARS, Figure, Measurement, Test};
use crate::{
    contestant::{Between, Contestant, Programs, Running},
    host,
    load::{
        client::{self, Plan, Seen, What},
        server::{BYTES_PORT, CALLS_PORT, HTTP_PORT},
        stream,
    },
};

/// Connections that do nothing, to see what one costs.
const IDLE_CONNECTIONS: u32 = 1000;
/// Before memory is read: what was needed for a moment may be given back by then.
const SETTLE: Duration = Duration::from_millis(300);

/// How long, how often, and who.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) rounds: u8,
    /// Of each test.
    pub(crate) time: Duration,
    pub(crate) contestants: Vec<Contestant>,
    /// Part of a figure's name; tests that have no such figure are left out.
    pub(crate) figure: String,
}

impl Settings {
    fn wants(&self, figure: &str) -> bool {
        figure.contains(&self.figure)
    }
}

/// Whom ours is compared with.
const PEERS: [&str; 2] = [Contestant::Envoy(Between::Http1).name(), Contestant::Envoy(Between::Http2).name()];

/// Measures and prints all of it.
pub(crate) fn measure(programs: Programs<'_>, settings: &Settings) -> anyhow::Result<Figures> {
    let names: Vec<_> = settings.contestants.iter().map(|contestant| contestant.name()).collect();
    let mut figures = Figures::new(&names);
    for round in 1..=settings.rounds {
        let mut direct = HashMap::new();
        for contestant in &settings.contestants {
            let begun = Instant::now();
            let (direct, figures) = (&mut direct, &mut figures);
            Turn { contestant: *contestant, round, settings, direct, loaded: None, figures }.run(programs)?;
            mesh_measure::tell(&format!("round {round}: {} took {:.0?}", contestant.name(), begun.elapsed()));
        }
    }
    figures.print()?;
    figures.judge(Contestant::Ours.name(), &PEERS, &BARS)?;
    Ok(figures)
}

/// An error where so much could not be measured that the run says too little.
pub(crate) fn complete(figures: &Figures) -> anyhow::Result<()> {
    let lacking = figures.lacking(Contestant::Ours.name(), &PEERS, &BARS);
    anyhow::ensure!(lacking.is_empty(), "not measured: {}", lacking.join("; "));
    Ok(())
}

/// A figure's name, its unit, and one value.
type Sample = (&'static str, &'static str, f64);

/// All measurements of one contestant in one round.
struct Turn<'a> {
    contestant: Contestant,
    round: u8,
    settings: &'a Settings,
    /// Latencies without proxies in this round, by the figure that says how much a contestant adds to them.
    direct: &'a mut HashMap<&'static str, f64>,
    /// Memory when it was looked at last: what a failure leaves behind must not count as there before where it is made once more.
    loaded: Option<f64>,
    figures: &'a mut Figures,
}

impl Turn<'_> {
    fn run(&mut self, programs: Programs<'_>) -> anyhow::Result<()> {
        // Before anything runs beside it.
        self.add(vec![(table::HOST, "ms", millis(host::computation()?))]);
        let (contestant, settings) = (self.contestant, self.settings);
        let is_wanted = |one: &Measurement| {
            matches!(one, Measurement::Memory(_)) || one.figures().iter().any(|name| settings.wants(name))
        };
        let wanted: Vec<_> = Measurement::all().filter(is_wanted).collect();
        let all = || wanted.iter().flat_map(|one| one.figures()).chain([table::READY]).collect();
        let Some(running) = self.made("start", all, |_| Running::start(contestant, programs)) else { return Ok(()) };
        self.add(running.ready().map(|ready| (table::READY, "ms", millis(ready))).collect());
        for one in &wanted {
            let samples = self.made(one.name(), || one.figures(), |turn| turn.one(*one, &running));
            self.add(samples.unwrap_or_default());
        }
        Ok(())
    }

    /// Makes it, and once more where it fails. What fails again is missing, and the others go on.
    fn made<T>(
        &mut self,
        what: &'static str,
        figures: impl Fn() -> Vec<&'static str>,
        mut make: impl FnMut(&mut Self) -> anyhow::Result<T>,
    ) -> Option<T> {
        let (contestant, round) = (self.contestant.name(), self.round);
        let made = twice(&format!("{contestant}, {what}, round {round}"), || make(self));
        let missing = |why| Missing { contestant, what, figures: figures(), round, why };
        made.map_err(|why| self.figures.miss(missing(why))).ok()
    }

    fn one(&mut self, measurement: Measurement, running: &Running) -> anyhow::Result<Vec<Sample>> {
        // A client that ends while calls are under way makes a proxy say so to the server, which is no reason for what comes now.
        running.server.complaint();
        let samples = match measurement {
            Measurement::Test(test) => self.test(test, running),
            Measurement::Stream => self.stream(running),
            // Without proxies there is no memory to look at.
            _ if self.contestant == Contestant::Direct => Ok(Vec::new()),
            Measurement::Memory(name) => self.memory(name, running),
            Measurement::MemoryEach => self.idle_connections(running),
        };
        samples.map_err(|error| match running.server.complaint() {
            Some(said) => anyhow::anyhow!("{error:#}; the server says: {said}"),
            None => error,
        })
    }

    fn test(&mut self, test: &Test, running: &Running) -> anyhow::Result<Vec<Sample>> {
        let plan = Plan { connections: test.connections, what: test.what, pace: test.pace, time: self.settings.time };
        let to = running.to(if let What::Calls(_) = test.what { CALLS_PORT } else { HTTP_PORT });
        let seen = running.as_client(|| client::run(to, &plan, || running.cpu()))??;
        let mut samples = Vec::new();
        for (name, figure) in test.figures {
            match figure {
                Figure::Cpu if self.contestant == Contestant::Direct => {}
                Figure::Cpu => samples.push((*name, "µs", micros(seen.cpu) / seen.answers as f64)),
                Figure::Answers => samples.push((*name, "1/s", seen.answers as f64 / seen.time.as_secs_f64())),
                Figure::Latency(percent) => samples.push((*name, "µs", percentile(&seen, *percent)?)),
                Figure::Added(percent) => {
                    let latency = percentile(&seen, *percent)?;
                    if self.contestant == Contestant::Direct {
                        self.direct.insert(name, latency);
                    } else if let Some(direct) = self.direct.get(name).copied() {
                        samples.push((*name, "µs", latency - direct));
                    }
                }
            }
        }
        Ok(samples)
    }

    fn stream(&self, running: &Running) -> anyhow::Result<Vec<Sample>> {
        let to = running.to(BYTES_PORT);
        let sent = running.as_client(|| stream::run(to, self.settings.time, || running.cpu()))??;
        let mut samples = vec![(table::STREAM, "Gbit/s", sent.bytes as f64 * 8.0 / 1e9 / sent.time.as_secs_f64())];
        if self.contestant != Contestant::Direct {
            samples.push((table::STREAM_CPU, "s", sent.cpu.as_secs_f64() / (sent.bytes as f64 / 1e9)));
        }
        Ok(samples)
    }

    fn memory(&mut self, name: &'static str, running: &Running) -> anyhow::Result<Vec<Sample>> {
        self.loaded = None;
        thread::sleep(SETTLE);
        let memory = running.memory()?;
        self.loaded = Some(memory);
        Ok(vec![(name, "MiB", memory)])
    }

    fn idle_connections(&self, running: &Running) -> anyhow::Result<Vec<Sample>> {
        let before = self.loaded.context("memory without them is not known")?;
        let to = running.to(HTTP_PORT);
        let connections = running.as_client(|| client::idle(to, IDLE_CONNECTIONS))??;
        thread::sleep(SETTLE);
        let added = running.memory()? - before;
        drop(connections);
        Ok(vec![(table::MEMORY_EACH, "KiB", added * 1024.0 / f64::from(IDLE_CONNECTIONS))])
    }

    fn add(&mut self, samples: Vec<Sample>) {
        for (name, unit, value) in samples {
            self.figures.add(name, unit, self.contestant.name(), value);
        }
    }
}

/// What comes of it, or of the second time where the first fails; or why that failed, in one line.
fn twice<T>(whose: &str, mut make: impl FnMut() -> anyhow::Result<T>) -> Result<T, String> {
    let mut once = |next| {
        make().map_err(|error| {
            let why = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
            mesh_measure::tell(&format!("{whose} {next}: {why}"));
            why
        })
    };
    once("is made once more").or_else(|_| once("is left out"))
}

/// The smallest latency that so many percent do not exceed, in microseconds.
fn percentile(seen: &Seen, percent: f64) -> anyhow::Result<f64> {
    anyhow::ensure!(!seen.latencies.is_empty(), "no request was due");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list of some thousands")]
    let rank = (seen.latencies.len() as f64 * percent / 100.0).ceil() as usize;
    Ok(micros(seen.latencies[rank.clamp(1, seen.latencies.len()) - 1]))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_made_once_more_and_no_third_time() {
        for (fails, outcome, made) in [(0, Ok(1), 1), (1, Ok(2), 2), (2, Err("this is time 2".to_owned()), 2)] {
            let mut times = 0;
            let came = twice("a measurement", || {
                times += 1;
                anyhow::ensure!(times > fails, "this is\r\ntime {times}");
                Ok(times)
            });
            assert_eq!((came, times), (outcome, made));
        }
    }
}
