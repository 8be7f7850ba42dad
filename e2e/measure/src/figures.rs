//! Figures of several contestants, measured in turns in one run, and how one of them compares with others.
//!
//! A figure of one contestant has a sample per round; its median stands for it, the least and the most say how far to trust it.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use serde::{Serialize, Serializer};

use crate::{Missing, Samples};

/// All figures of all contestants.
#[derive(Debug)]
pub struct Figures {
    contestants: Vec<&'static str>,
    /// In the order in which they were measured first.
    rows: Vec<Row>,
    /// What the medians are without.
    missing: Vec<Missing>,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    unit: &'static str,
    samples: BTreeMap<&'static str, Vec<f64>>,
}

/// What is promised of a figure of ours, as a ratio to the better of the peers, or as a value where that says it better.
#[derive(Debug, Clone, Copy)]
pub enum Bar {
    /// Less is better: at most so much of the peers' least, and where it should go.
    Most(f64, f64),
    /// More is better: at least so much of the peers' most, and where it should go.
    Least(f64, f64),
    /// Less is better: this value, and where it should go.
    Value(f64, f64),
}

impl Figures {
    /// None yet, of contestants in the order of the table's columns.
    pub fn new(contestants: &[&'static str]) -> Self {
        Self { contestants: contestants.to_vec(), rows: Vec::new(), missing: Vec::new() }
    }

    /// One more sample.
    pub fn add(&mut self, name: &'static str, unit: &'static str, contestant: &'static str, value: f64) {
        let place = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name, unit, samples: BTreeMap::new() });
            self.rows.len() - 1
        });
        self.rows[place].samples.entry(contestant).or_default().push(value);
    }

    /// One measurement failed for good: its figures are without a sample.
    pub fn miss(&mut self, missing: Missing) {
        self.missing.push(missing);
    }

    /// What failed for good, in the order in which it did.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// What failed that a comparison of `ours` with `peers` needs: every measurement of ours, and of each contestant one sample of
    /// every figure that has a bar.
    pub fn lacking(&self, ours: &str, peers: &[&str], bars: &[(&str, Bar)]) -> Vec<String> {
        let own = self.missing.iter().filter(|missing| missing.contestant == ours);
        let mut lacking: Vec<_> = own.map(Missing::named).collect();
        for (figure, _) in bars {
            let missing = self.missing.iter().filter(|missing| missing.figures.contains(figure));
            let whose: Vec<_> = missing.map(|missing| missing.contestant).collect();
            if whose.is_empty() {
                continue;
            }
            // What failed of ours is named already; what another's failure took from it is not.
            let needed = |name: &str| peers.contains(&name) || name == ours && !whose.contains(&ours);
            let row = self.rows.iter().find(|row| row.name == *figure);
            let is_there = |name: &str| row.and_then(|row| row.of(name)).is_some();
            let without = self.contestants.iter().filter(|name| needed(name) && !is_there(name));
            lacking.extend(without.map(|name| format!("{name}, {figure}, every round")));
        }
        lacking
    }

    /// As a table: median, and least to most; then what is missing in it.
    ///
    /// # Errors
    /// Where standard output cannot be written to.
    pub fn print(&self) -> io::Result<()> {
        let mut table = vec![vec!["FIGURE: median (least..most)".to_owned(), "UNIT".to_owned()]];
        table[0].extend(self.contestants.iter().map(|name| name.to_uppercase()));
        for row in &self.rows {
            let mut cells = vec![row.name.to_owned(), row.unit.to_owned()];
            cells.extend(
                self.contestants.iter().map(|name| row.of(name).map_or("-".to_owned(), |samples| spread(&samples))),
            );
            table.push(cells);
        }
        let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..table[0].len()).map(width).collect();
        let mut out = io::stdout().lock();
        for row in &table {
            let (words, numbers) = row.split_at(2);
            write!(out, "{:name$}  {:unit$}", words[0], words[1], name = widths[0], unit = widths[1])?;
            for (cell, width) in numbers.iter().zip(&widths[2..]) {
                write!(out, "  {cell:>width$}")?;
            }
            writeln!(out)?;
        }
        for missing in &self.missing {
            writeln!(out, "NOT MEASURED: {}: {}", missing.named(), missing.why)?;
        }
        Ok(())
    }

    /// What is promised of `ours`, beside the best of `peers`: one line each, met or MISSED. A bar of what was not measured has no
    /// line.
    ///
    /// # Errors
    /// Where standard output cannot be written to.
    pub fn judge(&self, ours: &str, peers: &[&str], bars: &[(&str, Bar)]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let name = bars.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        writeln!(out, "{:name$} {:>9} {:>9} {:>9}  VERDICT", "PROMISED", "MEASURED", "BAR", "STRETCH")?;
        for (figure, bar) in bars {
            let Some(row) = self.rows.iter().find(|row| row.name == *figure) else { continue };
            let Some(Verdict { measured, words }) = row.verdict(ours, peers, *bar) else { continue };
            let (sign, promise, stretch) = match bar {
                Bar::Most(promise, stretch) | Bar::Value(promise, stretch) => ("<=", promise, stretch),
                Bar::Least(promise, stretch) => (">=", promise, stretch),
            };
            writeln!(
                out,
                "{figure:name$} {:>9} {:>9} {:>9}  {words}",
                short(measured),
                format!("{sign} {promise}"),
                format!("{sign} {stretch}"),
            )?;
        }
        Ok(())
    }
}

/// How a figure compares with its bar.
struct Verdict {
    measured: f64,
    words: &'static str,
}

impl Row {
    fn of(&self, contestant: &str) -> Option<Samples> {
        Samples::new(self.samples.get(contestant)?.clone()).ok()
    }

    fn verdict(&self, ours: &str, peers: &[&str], bar: Bar) -> Option<Verdict> {
        let ours = self.of(ours)?.median();
        let medians = || peers.iter().filter_map(|peer| Some(self.of(peer)?.median()));
        let (measured, met, stretched) = match bar {
            Bar::Most(promise, stretch) => {
                let ratio = ours / medians().reduce(f64::min)?;
                (ratio, ratio <= promise, ratio <= stretch)
            }
            Bar::Least(promise, stretch) => {
                let ratio = ours / medians().reduce(f64::max)?;
                (ratio, ratio >= promise, ratio >= stretch)
            }
            Bar::Value(promise, stretch) => (ours, ours <= promise, ours <= stretch),
        };
        let words = match (met, stretched) {
            (true, true) => "met, stretch too",
            (true, false) => "met",
            (false, _) => "MISSED",
        };
        Some(Verdict { measured, words })
    }
}

/// As `[{name, unit, contestants: {NAME: {median, min, max}}}]`.
impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Figure<'a> {
            name: &'a str,
            unit: &'a str,
            contestants: BTreeMap<&'a str, Spread>,
        }
        #[derive(Serialize)]
        struct Spread {
            median: f64,
            min: f64,
            max: f64,
        }
        serializer.collect_seq(self.rows.iter().map(|row| {
            Figure {
                name: row.name,
                unit: row.unit,
                contestants: row
                    .samples
                    .keys()
                    .filter_map(|contestant| {
                        let samples = row.of(contestant)?;
                        let spread =
                            Spread { median: samples.median(), min: samples.percentile(0), max: samples.most() };
                        Some((*contestant, spread))
                    })
                    .collect(),
            }
        }))
    }
}

fn spread(samples: &Samples) -> String {
    format!("{} ({}..{})", short(samples.median()), short(samples.percentile(0)), short(samples.most()))
}

/// With as many places as say something.
fn short(value: f64) -> String {
    let places = match value.abs() {
        ..10.0 => 2,
        ..1000.0 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let mut figures = Figures::new(&["a", "b", "us"]);
        for (contestant, values) in
            [("a", [100.0, 90.0, 110.0]), ("b", [80.0, 200.0, 70.0]), ("us", [40.0, 38.0, 44.0])]
        {
            for value in values {
                figures.add("cost", "µs", contestant, value);
            }
        }
        figures
    }

    #[test]
    fn a_ratio_is_to_the_better_peer() {
        let figures = figures();
        for (bar, measured, words) in [
            (Bar::Most(0.5, 0.3), 0.5, "met"),
            (Bar::Most(0.45, 0.3), 0.5, "MISSED"),
            (Bar::Most(0.6, 0.5), 0.5, "met, stretch too"),
            (Bar::Least(0.4, 2.0), 0.4, "met"),
            (Bar::Least(0.41, 2.0), 0.4, "MISSED"),
            (Bar::Value(40.0, 20.0), 40.0, "met"),
            (Bar::Value(39.0, 20.0), 40.0, "MISSED"),
        ] {
            let verdict = figures.rows[0].verdict("us", &["a", "b"], bar).expect("measured");
            assert!((verdict.measured - measured).abs() < 1e-9, "{bar:?}: {}", verdict.measured);
            assert_eq!(verdict.words, words, "{bar:?}");
        }
        assert!(figures.rows[0].verdict("us", &["c"], Bar::Most(1.0, 1.0)).is_none(), "nobody to compare with");
    }

    #[test]
    fn a_comparison_lacks_what_is_ours_and_what_a_bar_has_no_sample_for() {
        let bars = [("cost", Bar::Most(0.5, 0.3)), ("added", Bar::Most(0.5, 0.3))];
        let lacking = |contestant, figure| {
            let mut figures = figures();
            figures.miss(Missing { contestant, what: "test", figures: vec![figure], round: 2, why: "closed".into() });
            figures.lacking("us", &["a", "b", "absent"], &bars)
        };
        assert!(figures().lacking("us", &["a", "b"], &bars).is_empty(), "a figure that was not asked for");
        assert!(lacking("a", "cost").is_empty(), "a has samples of other rounds");
        assert!(lacking("a", "told").is_empty(), "nothing is promised of it");
        assert_eq!(lacking("us", "cost"), ["us, test, round 2"], "though there are samples of other rounds");
        assert_eq!(lacking("us", "added")[0], "us, test, round 2");
        assert!(!lacking("us", "added").contains(&"us, added, every round".to_owned()), "it is said already");
        let all = ["a, added, every round", "b, added, every round", "us, added, every round"];
        assert_eq!(lacking("direct", "added"), all, "what others need is missing to them");
    }

    #[test]
    fn the_report_has_median_and_extremes_of_each_contestant() {
        let json = serde_json::to_value(figures()).expect("plain values");
        assert_eq!(
            json,
            serde_json::json!([{"name": "cost", "unit": "µs", "contestants": {
                "a": {"median": 100.0, "min": 90.0, "max": 110.0},
                "b": {"median": 80.0, "min": 70.0, "max": 200.0},
                "us": {"median": 40.0, "min": 38.0, "max": 44.0},
            }}])
        );
    }
}
