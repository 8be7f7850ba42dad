//! The score of all rows, for people as a table and for programs as JSON.
//!
//! Knows how rows are weighed (reference programme: L 15, F 35, B 25, A 25 of 100; a row is worth its group's share, half of it
//! where a bar is missed by at most twice, nothing in a group whose gate failed). What a peer came to is told beside a row, and weighs
//! nothing. Called by `main`.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::Duration,
};

use serde::Serialize;

use crate::{
    outcome::{Findings, Verdict},
    row::Row,
};

/// What each group is worth.
const GROUPS: [(char, f64); 4] = [('L', 15.0), ('F', 35.0), ('B', 25.0), ('A', 25.0)];
/// Longest cell of the table, in characters; the JSON has everything.
const CELL: usize = 150;

/// How the process of a row ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// With numbers.
    Measured(Findings),
    /// It could not say; a failure.
    Failed(String),
    /// The machine has not what the row needs.
    NotRun(String),
}

/// Every row that was to be run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    score: f64,
    /// Of which 100 would be all groups; less where only some rows were run.
    of: f64,
    gates_failed: Vec<String>,
    rows: Vec<Told>,
}

#[derive(Debug, Serialize)]
struct Told {
    id: &'static str,
    what: &'static str,
    pass: bool,
    /// `pass`, `half`, `FAIL`, `not run`.
    verdict: &'static str,
    measured: String,
    bar: &'static str,
    seconds: u64,
    /// Others that were run beside ours, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    peers: BTreeMap<&'static str, Peer>,
    #[serde(skip)]
    worth: f64,
}

/// The same, of another's proxies.
#[derive(Debug, Serialize)]
struct Peer {
    pass: bool,
    verdict: &'static str,
    measured: String,
    seconds: u64,
}

/// A verdict as a word, with what it is worth, and what was measured.
fn judged(ended: Ended) -> (&'static str, f64, String) {
    match ended {
        Ended::Measured(findings) => {
            let (word, worth) = match findings.verdict() {
                Verdict::Pass => ("pass", 1.0),
                Verdict::Half => ("half", 0.5),
                Verdict::Fail => ("FAIL", 0.0),
            };
            (word, worth, findings.text())
        }
        Ended::Failed(why) => ("FAIL", 0.0, why),
        Ended::NotRun(why) => ("not run", 0.0, why),
    }
}

impl Report {
    pub(crate) fn add(&mut self, row: &Row, ended: Ended, took: Duration) {
        if let Ended::Measured(findings) = &ended {
            self.gates_failed.extend(findings.broken().iter().map(|broken| format!("{}: {broken}", row.id)));
        }
        let (verdict, worth, measured) = judged(ended);
        let (id, what, bar) = (row.id, row.what, row.bar);
        self.rows.push(Told {
            id,
            what,
            pass: verdict == "pass",
            verdict,
            measured,
            bar,
            seconds: took.as_secs(),
            peers: BTreeMap::new(),
            worth,
        });
        self.weigh();
    }

    /// What a peer came to in the last row.
    pub(crate) fn add_peer(&mut self, name: &'static str, ended: Ended, took: Duration) {
        let (verdict, _, measured) = judged(ended);
        if let Some(row) = self.rows.last_mut() {
            row.peers.insert(name, Peer { pass: verdict == "pass", verdict, measured, seconds: took.as_secs() });
        }
    }

    fn weigh(&mut self) {
        (self.score, self.of) = (0.0, 0.0);
        for (group, share) in GROUPS {
            let rows: Vec<_> = self.rows.iter().filter(|row| row.id.starts_with(group)).collect();
            if rows.is_empty() {
                continue;
            }
            self.of += share;
            if !self.gates_failed.iter().any(|gate| gate.starts_with(group)) {
                self.score += share * rows.iter().map(|row| row.worth).sum::<f64>() / rows.len() as f64;
            }
        }
        self.score = (self.score * 10.0).round() / 10.0;
    }

    /// Whether every row passed.
    pub(crate) fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.pass)
    }

    /// The last row, on one line.
    pub(crate) fn print_last(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let Some(row) = self.rows.last() else { return Ok(()) };
        writeln!(out, "{:4} {:8} {:4} s  {}\n     {}", row.id, row.verdict, row.seconds, row.what, row.measured)?;
        for (name, peer) in &row.peers {
            writeln!(out, "     {:8} {:4} s  {name}\n     {}", peer.verdict, peer.seconds, peer.measured)?;
        }
        Ok(())
    }

    /// On standard output, as a table.
    pub(crate) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "\n{:4} {:8} {:>4}  WHAT / BAR / MEASURED", "ROW", "VERDICT", "SEC")?;
        for Told { id, verdict, seconds, what, bar, measured, peers, .. } in &self.rows {
            writeln!(out, "{id:4} {verdict:8} {seconds:4}  {what}\n{:20}bar: {bar}\n{:20}{}", "", "", cut(measured))?;
            for (name, Peer { verdict, seconds, measured, .. }) in peers {
                writeln!(out, "{:4} {verdict:8} {seconds:4}  {name}: {}", "", cut(measured))?;
            }
        }
        let gates = if self.gates_failed.is_empty() { "none".to_owned() } else { self.gates_failed.join(", ") };
        writeln!(out, "score {:.1} of {:.0}; gates failed: {gates}", self.score, self.of)
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROWS;

    fn row(id: &str) -> &'static Row {
        ROWS.iter().find(|row| row.id == id).expect("there is such a row")
    }

    fn findings(value: f64) -> Ended {
        let mut findings = Findings::new(true);
        findings.at_most("a", value, 1.0);
        Ended::Measured(findings)
    }

    #[test]
    fn a_row_is_worth_its_share_of_its_group_and_half_of_it_where_it_misses_by_little() {
        let mut report = Report::default();
        report.add(row("F1"), findings(1.0), Duration::ZERO);
        report.add(row("F2"), findings(2.0), Duration::ZERO);
        report.add(row("B2"), findings(1.0), Duration::ZERO);
        assert!((report.score - (35.0 * 0.75 + 25.0)).abs() < 0.1, "{}", report.score);
        report.add(row("B2"), Ended::NotRun("no tool".into()), Duration::ZERO);
        assert!((report.score - (35.0 * 0.75 + 12.5)).abs() < 0.1, "{}", report.score);
        assert!(!report.is_clean());
    }

    #[test]
    fn what_a_peer_came_to_is_told_beside_ours_and_weighs_nothing() {
        let mut report = Report::default();
        report.add(row("B2"), findings(1.0), Duration::ZERO);
        let alone = serde_json::to_value(&report).expect("a report is JSON");
        assert!(alone["rows"][0].get("peers").is_none(), "{alone}");
        let mut broken = Findings::new(true);
        broken.never("panics", 1);
        report.add_peer("envoy", Ended::Measured(broken), Duration::from_secs(7));
        let told = serde_json::to_value(&report).expect("a report is JSON");
        assert_eq!((&told["score"], &told["gates_failed"]), (&alone["score"], &alone["gates_failed"]));
        let measured = "MISSED panics 1 (≤ 0)";
        let peer = serde_json::json!({"pass": false, "verdict": "FAIL", "measured": measured, "seconds": 7});
        assert_eq!(told["rows"][0]["peers"]["envoy"], peer);
        assert!(report.is_clean(), "{told}");
    }

    #[test]
    fn a_failed_gate_voids_its_group_and_no_other() {
        let mut report = Report::default();
        let mut findings_ = Findings::new(true);
        findings_.never("panics", 1);
        report.add(row("B2"), Ended::Measured(findings_), Duration::ZERO);
        report.add(row("B2"), findings(1.0), Duration::ZERO);
        report.add(row("F1"), findings(1.0), Duration::ZERO);
        assert!((report.score - 35.0).abs() < 0.1, "{}", report.score);
        assert_eq!(report.gates_failed, ["B2: panics: 1"]);
    }
}
