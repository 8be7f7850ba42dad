//! What the data plane costs, beside Envoy: every contestant does the same tests in turns, with fresh processes in each round, so
//! that what else happens on the machine hits all alike.

mod table;

use std::{collections::HashMap, thread, time::Duration};

use mesh_measure::Figures;
use tokio::time::Instant;

use self::table::{BARS, Figure, TESTS, Test};
use crate::{
    contestant::{Between, Contestant, Programs, Running},
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

/// Measures and prints all of it.
pub(crate) fn measure(programs: Programs<'_>, settings: &Settings) -> anyhow::Result<Figures> {
    let names: Vec<_> = settings.contestants.iter().map(|contestant| contestant.name()).collect();
    let mut figures = Figures::new(&names);
    for round in 1..=settings.rounds {
        let mut direct = HashMap::new();
        for contestant in &settings.contestants {
            let begun = Instant::now();
            let mut turn = Turn { contestant: *contestant, settings, direct: &mut direct, figures: &mut figures };
            // What fails is told and has no figures; the others go on.
            if let Err(error) = turn.run(programs) {
                mesh_measure::complain(&error.context(format!("{}, round {round}", contestant.name())));
            }
            mesh_measure::tell(&format!("round {round}: {} took {:.0?}", contestant.name(), begun.elapsed()));
        }
    }
    figures.print()?;
    let peers = [Between::Http1, Between::Http2].map(|between| Contestant::Envoy(between).name());
    figures.judge(Contestant::Ours.name(), &peers, &BARS)?;
    Ok(figures)
}

/// All tests of one contestant in one round.
struct Turn<'a> {
    contestant: Contestant,
    settings: &'a Settings,
    /// Latencies without proxies in this round, by the figure that says how much a contestant adds to them.
    direct: &'a mut HashMap<&'static str, f64>,
    figures: &'a mut Figures,
}

impl Turn<'_> {
    fn run(&mut self, programs: Programs<'_>) -> anyhow::Result<()> {
        let running = Running::start(self.contestant, programs)?;
        for ready in running.ready() {
            self.add(table::READY, "ms", millis(ready));
        }
        self.memory(&running, table::MEMORY_IDLE)?;
        let settings = self.settings;
        for test in TESTS.iter().filter(|test| test.figures.iter().any(|(name, _)| settings.wants(name))) {
            let seen = self.test(&running, test).and_then(|seen| self.tell(test, &seen));
            self.complain(seen, &running, test.figures[0].0);
        }
        if [table::STREAM, table::STREAM_CPU].iter().any(|name| settings.wants(name)) {
            let streamed = self.stream(&running);
            self.complain(streamed, &running, table::STREAM);
        }
        self.memory(&running, table::MEMORY)?;
        if settings.wants(table::MEMORY_EACH) {
            let idle = self.idle_connections(&running);
            self.complain(idle, &running, table::MEMORY_EACH);
        }
        Ok(())
    }

    fn test(&self, running: &Running, test: &Test) -> anyhow::Result<Seen> {
        let plan = Plan { connections: test.connections, what: test.what, pace: test.pace, time: self.settings.time };
        let to = running.to(if let What::Calls(_) = test.what { CALLS_PORT } else { HTTP_PORT });
        running.as_client(|| client::run(to, &plan, || running.cpu()))?
    }

    fn tell(&mut self, test: &Test, seen: &Seen) -> anyhow::Result<()> {
        for (name, figure) in test.figures {
            match figure {
                Figure::Cpu if self.contestant == Contestant::Direct => {}
                Figure::Cpu => self.add(name, "µs", micros(seen.cpu) / seen.answers as f64),
                Figure::Answers => self.add(name, "1/s", seen.answers as f64 / seen.time.as_secs_f64()),
                Figure::Latency(percent) => self.add(name, "µs", percentile(seen, *percent)?),
                Figure::Added(percent) => {
                    let latency = percentile(seen, *percent)?;
                    if self.contestant == Contestant::Direct {
                        self.direct.insert(name, latency);
                    } else if let Some(direct) = self.direct.get(name).copied() {
                        self.add(name, "µs", latency - direct);
                    }
                }
            }
        }
        Ok(())
    }

    fn stream(&mut self, running: &Running) -> anyhow::Result<()> {
        let to = running.to(BYTES_PORT);
        let sent = running.as_client(|| stream::run(to, self.settings.time, || running.cpu()))??;
        self.add(table::STREAM, "Gbit/s", sent.bytes as f64 * 8.0 / 1e9 / sent.time.as_secs_f64());
        if self.contestant != Contestant::Direct {
            self.add(table::STREAM_CPU, "s", sent.cpu.as_secs_f64() / (sent.bytes as f64 / 1e9));
        }
        Ok(())
    }

    fn memory(&mut self, running: &Running, name: &'static str) -> anyhow::Result<()> {
        if self.contestant != Contestant::Direct {
            thread::sleep(SETTLE);
            self.add(name, "MiB", running.memory()?);
        }
        Ok(())
    }

    fn idle_connections(&mut self, running: &Running) -> anyhow::Result<()> {
        if self.contestant == Contestant::Direct {
            return Ok(());
        }
        let before = running.memory()?;
        let to = running.to(HTTP_PORT);
        let connections = running.as_client(|| client::idle(to, IDLE_CONNECTIONS))??;
        thread::sleep(SETTLE);
        let added = running.memory()? - before;
        drop(connections);
        self.add(table::MEMORY_EACH, "KiB", added * 1024.0 / f64::from(IDLE_CONNECTIONS));
        Ok(())
    }

    fn add(&mut self, name: &'static str, unit: &'static str, value: f64) {
        self.figures.add(name, unit, self.contestant.name(), value);
    }

    /// What failed has no figure; the rest goes on.
    fn complain(&self, result: anyhow::Result<()>, running: &Running, what: &str) {
        if let Err(error) = result {
            let server = running.server.complaint().map(|said| format!("; the server says: {said}"));
            let whose = format!("{}, {what}{}", self.contestant.name(), server.unwrap_or_default());
            mesh_measure::complain(&error.context(whose));
        }
    }
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
