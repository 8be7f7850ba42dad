//! How checks came out, as text for people, JSON for programs and JUnit for CI. Pure.

use std::time::Duration;

use serde::Serialize;

use super::{Category, Check, Finding, Outcome, Verdict};
use crate::{
    explain::wrap,
    printer::{
        API_VERSION,
        table::{Tone, clean},
    },
};

/// Findings of one check that people are shown; JSON has them all.
const SHOWN: usize = 10;
/// Of what belongs to a check.
const INDENT: &str = "    ";
/// Column of the id.
const ID_COLUMN: usize = 53;

/// Counts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) ok: usize,
    pub(crate) warnings: usize,
    pub(crate) errors: usize,
    /// Checks of what this user may not look at.
    pub(crate) not_allowed: usize,
}

impl Summary {
    pub(crate) fn of(outcomes: &[Outcome]) -> Self {
        let count = |verdict| outcomes.iter().filter(|one| one.verdict == verdict).count();
        Self {
            ok: count(Verdict::Ok),
            warnings: count(Verdict::Warning),
            errors: count(Verdict::Error),
            not_allowed: count(Verdict::NotAllowed),
        }
    }
}

/// A run as a document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    api_version: &'static str,
    kind: &'static str,
    success: bool,
    summary: Summary,
    seconds: f64,
    checks: Vec<Item>,
}

/// A check in a document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Item {
    id: &'static str,
    category: Category,
    title: &'static str,
    result: Verdict,
    findings: Vec<Found>,
    /// What the answer does not cover.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    text: String,
    fix: String,
}

pub(crate) fn document(outcomes: &[Outcome], took: Duration) -> Document {
    let summary = Summary::of(outcomes);
    Document {
        api_version: API_VERSION,
        kind: "CheckReport",
        success: summary.errors == 0 && summary.not_allowed == 0,
        summary,
        seconds: (took.as_secs_f64() * 1e3).round() / 1e3,
        checks: items(outcomes),
    }
}

pub(crate) fn items(outcomes: &[Outcome]) -> Vec<Item> {
    let item = |one: &Outcome| {
        let facts = one.check.facts();
        let fix = |found: &Finding| found.fix.clone().unwrap_or_else(|| facts.fix.to_owned());
        Item {
            id: facts.id,
            category: facts.category,
            title: facts.title,
            result: one.verdict,
            findings: one.findings.iter().map(|found| Found { text: found.text.clone(), fix: fix(found) }).collect(),
            note: one.note.clone(),
        }
    };
    outcomes.iter().map(item).collect()
}

/// For people: categories with their checks, and the footer. `short` shows only what is not ok.
/// Findings are set to `width`, where there is one.
pub(crate) fn text(outcomes: &[Outcome], took: Duration, short: bool, color: bool, width: Option<usize>) -> String {
    let mut out = String::new();
    for group in outcomes.chunk_by(|a, b| a.check.facts().category == b.check.facts().category) {
        let shown: Vec<&Outcome> =
            group.iter().filter(|one| !short || one.verdict != Verdict::Ok || one.note.is_some()).collect();
        if shown.is_empty() {
            continue;
        }
        let heading = group[0].check.facts().category.text();
        out.push_str(&format!("{heading}\n{}\n", "-".repeat(heading.chars().count())));
        for one in shown {
            push(&mut out, one, color, width);
        }
        out.push('\n');
    }
    out.push_str(&footer(Summary::of(outcomes), took, color));
    out
}

fn mark(verdict: Verdict) -> (&'static str, Tone) {
    match verdict {
        Verdict::Ok => ("√", Tone::Good),
        Verdict::NotAllowed => ("?", Tone::Warn),
        Verdict::Warning => ("‼", Tone::Warn),
        Verdict::Error => ("×", Tone::Bad),
    }
}

fn push(out: &mut String, one: &Outcome, color: bool, width: Option<usize>) {
    let facts = one.check.facts();
    let paint = |tone: Tone, text: &str| if color { tone.paint(text) } else { text.to_owned() };
    let (mark, tone) = mark(one.verdict);
    out.push_str(&format!("{} {:<ID_COLUMN$}[{}]\n", paint(tone, mark), facts.title, facts.id));
    for line in one.note.iter().flat_map(|note| set(note, width)) {
        out.push_str(&format!("{INDENT}{line}\n"));
    }
    for found in one.findings.iter().take(SHOWN) {
        for line in set(&found.text, width) {
            out.push_str(&format!("{INDENT}{}\n", paint(tone, &line)));
        }
        if let Some(fix) = &found.fix {
            out.push_str(&format!("    fix: {}\n", clean(fix)));
        }
    }
    if one.findings.len() > SHOWN {
        out.push_str(&format!("    and {} more; -o json shows all\n", one.findings.len() - SHOWN));
    }
    if one.verdict != Verdict::Ok {
        if one.findings.iter().any(|found| found.fix.is_none()) {
            out.push_str(&format!("    fix: {}\n", facts.fix));
        }
        out.push_str(&format!("    why: meshctl explain {}\n", facts.id));
    }
}

/// The lines of a text below its check.
fn set(text: &str, width: Option<usize>) -> Vec<String> {
    let lines = wrap(&clean(text), width.unwrap_or(usize::MAX), INDENT);
    lines.lines().map(|line| line.trim_start().to_owned()).collect()
}

fn footer(summary: Summary, took: Duration, color: bool) -> String {
    let worst = match summary {
        Summary { errors: 0, warnings: 0, not_allowed: 0, .. } => Verdict::Ok,
        Summary { errors: 0, not_allowed: 1.., .. } => Verdict::NotAllowed,
        Summary { errors: 0, .. } => Verdict::Warning,
        Summary { .. } => Verdict::Error,
    };
    let (mark, tone) = mark(worst);
    let mark = if color { tone.paint(mark) } else { mark.to_owned() };
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (warnings, errors) = (count(summary.warnings, "warning"), count(summary.errors, "error"));
    let hidden = match summary.not_allowed {
        0 => String::new(),
        count => format!(", {count} not allowed"),
    };
    let took = took.as_secs_f64();
    format!("Status check results are {mark}   {} ok, {warnings}, {errors}{hidden} in {took:.1}s\n", summary.ok)
}

/// For CI systems: one suite per category. Warnings count as failures where `strict`.
pub(crate) fn junit(outcomes: &[Outcome], took: Duration, strict: bool) -> String {
    let fails = |one: &Outcome| one.verdict == Verdict::Error || strict && one.verdict == Verdict::Warning;
    let count = |outcomes: &[Outcome]| outcomes.iter().filter(|one| fails(one)).count();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"meshctl check\" tests=\"{}\" failures=\"{}\" time=\"{:.3}\">\n",
        outcomes.len(),
        count(outcomes),
        took.as_secs_f64()
    );
    for group in outcomes.chunk_by(|a, b| a.check.facts().category == b.check.facts().category) {
        let name = group[0].check.facts().category.text();
        out.push_str(&format!(
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\">\n",
            group.len(),
            count(group)
        ));
        for one in group {
            out.push_str(&case(one, fails(one)));
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn case(one: &Outcome, failed: bool) -> String {
    let facts = one.check.facts();
    let open = format!("    <testcase classname=\"meshctl.check\" name=\"{}\"", facts.id);
    if one.verdict == Verdict::Ok {
        return format!("{open}/>\n");
    }
    let text = |found: &Finding| {
        let fix = found.fix.as_deref().unwrap_or(facts.fix);
        format!("{}\nfix: {}", escape(&found.text), escape(fix))
    };
    let body = one.findings.iter().map(text).collect::<Vec<_>>().join("\n");
    let inner = if one.verdict == Verdict::NotAllowed {
        format!("<skipped message=\"not allowed\">{body}</skipped>")
    } else if failed {
        format!("<failure message=\"{}\">{body}</failure>", escape(&format!("not so: {}", facts.title)))
    } else {
        format!("<system-out>warning: {body}</system-out>")
    };
    format!("{open}>{inner}</testcase>\n")
}

fn escape(text: &str) -> String {
    clean(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What a person is told while waiting: the ids that are not ok.
pub(crate) fn open(outcomes: &[Outcome]) -> Vec<&'static str> {
    outcomes.iter().filter(|one| one.verdict == Verdict::Error).map(|one| Check::id(one.check)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes() -> Vec<Outcome> {
        let many = (0..12).map(|n| Finding::new(format!("pod shop/web-{n} waits for \"<cert>\""))).collect();
        vec![
            Outcome::error(Check::ClusterReachable, Vec::new()),
            Outcome::error(Check::ProxiesReady, many),
            Outcome::warning(
                Check::PodsMeshed,
                vec![Finding::new("pod shop/a\x1b: restart").fix("kubectl rollout restart")],
            ),
        ]
    }

    const TOOK: Duration = Duration::from_millis(2_149);

    #[test]
    fn people_read_categories_with_what_to_do() {
        insta::assert_snapshot!(text(&outcomes(), TOOK, false, false, None), @r#"
        cluster
        -------
        √ the cluster answers                                  [cluster-reachable]

        data plane
        ----------
        × all proxies are ready                                [proxies-ready]
            pod shop/web-0 waits for "<cert>"
            pod shop/web-1 waits for "<cert>"
            pod shop/web-2 waits for "<cert>"
            pod shop/web-3 waits for "<cert>"
            pod shop/web-4 waits for "<cert>"
            pod shop/web-5 waits for "<cert>"
            pod shop/web-6 waits for "<cert>"
            pod shop/web-7 waits for "<cert>"
            pod shop/web-8 waits for "<cert>"
            pod shop/web-9 waits for "<cert>"
            and 2 more; -o json shows all
            fix: kubectl -n NAMESPACE logs POD -c mesh-proxy: it says what it waits for.
            why: meshctl explain proxies-ready

        workloads
        ---------
        ‼ pods that should be meshed are                       [pods-meshed]
            pod shop/a�: restart
            fix: kubectl rollout restart
            why: meshctl explain pods-meshed

        Status check results are ×   1 ok, 1 warning, 1 error in 2.1s
        "#);
        let short = text(&outcomes(), TOOK, true, false, None);
        assert!(!short.contains("cluster-reachable") && short.contains("[proxies-ready]"), "{short}");
        assert!(text(&outcomes(), TOOK, true, true, None).contains("\x1b[31m×\x1b[0m"));
        assert!(
            text(&outcomes()[..1], TOOK, false, false, Some(80))
                .ends_with("results are √   1 ok, 0 warnings, 0 errors in 2.1s\n")
        );
    }

    #[test]
    fn what_may_not_be_looked_at_is_counted_by_itself() {
        let hidden = Finding::new("not allowed to list pods in namespace mesh-system");
        let outcomes = [Outcome::not_allowed(Check::ControllerReady, vec![hidden])];
        let text = text(&outcomes, TOOK, false, false, None);
        assert!(text.contains("? the controller is ready") && text.contains("fix: An administrator"), "{text}");
        assert!(text.ends_with("results are ?   0 ok, 0 warnings, 0 errors, 1 not allowed in 2.1s\n"), "{text}");
        let document = serde_json::to_value(document(&outcomes, TOOK)).unwrap();
        assert_eq!((&document["success"], &document["checks"][0]["result"]), (&false.into(), &"not-allowed".into()));
        assert!(junit(&outcomes, TOOK, true).contains("<skipped message=\"not allowed\">"));
    }

    #[test]
    fn junit_escapes_and_counts_warnings_only_where_they_fail() {
        let loose = junit(&outcomes(), TOOK, false);
        assert!(loose.contains("tests=\"3\" failures=\"1\" time=\"2.149\""), "{loose}");
        assert!(loose.contains("waits for &quot;&lt;cert&gt;&quot;"), "{loose}");
        assert!(loose.contains("<system-out>warning: pod shop/a"), "{loose}");
        assert!(junit(&outcomes(), TOOK, true).contains("failures=\"2\""));
    }

    #[test]
    fn a_document_has_every_finding_with_a_fix() {
        let document = serde_json::to_value(document(&outcomes(), TOOK)).unwrap();
        assert_eq!(document["success"], false);
        assert_eq!(document["summary"], serde_json::json!({"ok": 1, "warnings": 1, "errors": 1, "notAllowed": 0}));
        assert_eq!(document["checks"][1]["id"], "proxies-ready");
        assert_eq!(document["checks"][1]["category"], "data-plane");
        assert_eq!(document["checks"][1]["findings"].as_array().unwrap().len(), 12);
        assert!(document["checks"][1]["findings"][0]["fix"].as_str().unwrap().contains("logs POD"));
        assert_eq!(document["seconds"], 2.149);
    }
}
