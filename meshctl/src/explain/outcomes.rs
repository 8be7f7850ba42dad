//! Pages of the outcomes, and of the statuses that they answer with.

use std::collections::BTreeMap;

use mesh_proto::{
    names,
    outcome::{Outcome, Side},
};

use super::{About, Page};

pub(super) fn pages() -> Vec<Page> {
    Outcome::ALL.into_iter().map(page).collect()
}

fn page(outcome: Outcome) -> Page {
    let facts = outcome.facts();
    let cause = match facts.side {
        Side::Client => "whoever asked",
        Side::Server => "whoever should have answered",
        Side::Mesh => "the mesh itself",
    };
    let retry = match outcome {
        _ if facts.retry_safe => "no byte of the request reached the application, so the mesh may try another endpoint",
        Outcome::UpstreamReset | Outcome::UpstreamProtocolError => {
            "the mesh does not try again: the application may have seen the request"
        }
        _ => "the mesh does not try again: the answer would be the same",
    };
    Page {
        name: facts.code.to_owned(),
        about: About::Outcome,
        summary: facts.text.to_owned(),
        details: vec![format!(
            "  answer   HTTP {}, gRPC status {}, header {}: {}\n  cause    {cause}\n  retry    {retry}",
            facts.http_status,
            facts.grpc_status,
            names::HEADER_ERROR,
            facts.code,
        )],
        fix: Some(facts.fix.to_owned()),
        example: Some(format!("meshctl tap --status {} -o wide", facts.http_status)),
    }
}

/// One page per status, with the codes that it can stand for.
pub(super) fn statuses() -> Vec<Page> {
    let mut by_status: BTreeMap<u16, Vec<Outcome>> = BTreeMap::new();
    for outcome in Outcome::ALL {
        by_status.entry(outcome.facts().http_status).or_default().push(outcome);
    }
    by_status.into_iter().map(|(status, outcomes)| status_page(status, &outcomes)).collect()
}

fn status_page(status: u16, outcomes: &[Outcome]) -> Page {
    let list: Vec<String> =
        outcomes.iter().map(|outcome| format!("  {:<28} {}", outcome.code(), short(outcome.facts().text))).collect();
    Page {
        name: status.to_string(),
        about: About::Status,
        summary: format!(
            "With the header {} the mesh answered, not the application; the header's value is one of these codes:",
            names::HEADER_ERROR
        ),
        details: vec![
            list.join("\n"),
            "Without the header the answer is the application's own: its log knows more.".to_owned(),
        ],
        fix: Some("See which it is with tap, then meshctl explain CODE.".to_owned()),
        example: Some(format!("meshctl tap --status {status} -o wide")),
    }
}

fn short(text: &str) -> String {
    const MOST: usize = 68;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST - 1).chain(['…']).collect() }
}
