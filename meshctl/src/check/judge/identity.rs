//! Roots of trust, as the proxies tell it, and the issuer, as the controller does.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use mesh_proto::admin::Config;

use super::name;
use crate::{
    check::{Finding, observe::Observed},
    cluster::PodInfo,
    filter::show_span,
};

/// A root must last so much longer: replacing one takes as long as the slowest rollout.
const ANCHOR_LEAST: SignedDuration = SignedDuration::from_hours(60 * 24);
/// An issuer must last so much longer: the controller renews its own with 120 days left.
const ISSUER_LEAST: SignedDuration = SignedDuration::from_hours(7 * 24);

fn configs(observed: &Observed) -> impl Iterator<Item = (&PodInfo, &Config)> {
    observed.proxies.iter().filter_map(|(pod, config)| Some((pod, config.as_ref().ok()?)))
}

/// Roots in force anywhere, with their ends.
fn anchors(observed: &Observed) -> BTreeMap<&str, Option<Timestamp>> {
    let bundles = configs(observed).filter_map(|(_, config)| config.trust_bundle.as_ref());
    let roots = bundles.flat_map(|bundle| &bundle.root_list);
    roots.map(|root| (root.subject.as_str(), time(root.not_after.as_ref()))).collect()
}

fn time(text: Option<&String>) -> Option<Timestamp> {
    text.and_then(|text| text.parse().ok())
}

pub(super) fn anchors_valid(observed: &Observed) -> Vec<Finding> {
    let expired = anchors(observed).into_iter().filter_map(|(subject, not_after)| {
        let end = not_after.filter(|end| *end <= observed.now)?;
        Some(Finding::new(format!("root {subject:?} expired at {end}")))
    });
    let without =
        configs(observed).filter(|(_, config)| config.trust_bundle.as_ref().is_none_or(|bundle| bundle.roots == 0));
    expired.chain(without.map(|(pod, _)| Finding::new(format!("pod {} trusts no root", name(pod))))).collect()
}

pub(super) fn anchors_expiring(observed: &Observed) -> Vec<Finding> {
    let soon = anchors(observed).into_iter().filter_map(|(subject, not_after)| {
        let end = not_after?;
        let left = end.duration_since(observed.now);
        let soon = left > SignedDuration::ZERO && left < ANCHOR_LEAST;
        soon.then(|| Finding::new(format!("root {subject:?} expires in {}, at {end}", show_span(left.unsigned_abs()))))
    });
    soon.collect()
}

pub(super) fn anchors_agree(observed: &Observed) -> Vec<Finding> {
    let mut sets: BTreeMap<BTreeSet<&str>, Vec<String>> = BTreeMap::new();
    for (pod, config) in configs(observed) {
        let Some(bundle) = &config.trust_bundle else { continue };
        let roots = bundle.root_list.iter().map(|root| root.subject.as_str()).collect();
        sets.entry(roots).or_default().push(name(pod));
    }
    // The set that most proxies trust is taken as the one that is meant.
    let usual = sets.values().map(Vec::len).max().unwrap_or_default();
    let usual = sets.iter().find(|(_, pods)| pods.len() == usual).map(|(roots, _)| roots.clone());
    let others = sets.iter().filter(|(roots, _)| Some(*roots) != usual.as_ref());
    others
        .map(|(roots, pods)| {
            let roots = roots.iter().copied().collect::<Vec<_>>().join(", ");
            Finding::new(format!("{} trusts other roots than most: {roots}", pods.join(", ")))
        })
        .collect()
}

fn issuer_ends(observed: &Observed) -> Option<Timestamp> {
    observed.controller.as_ref()?.as_ref().ok()?.issuer_ends
}

pub(super) fn issuer_valid(observed: &Observed) -> Vec<Finding> {
    let ended = issuer_ends(observed).filter(|end| *end <= observed.now);
    ended.map(|end| Finding::new(format!("it expired at {end}"))).into_iter().collect()
}

pub(super) fn issuer_expiring(observed: &Observed) -> Vec<Finding> {
    let Some(end) = issuer_ends(observed) else { return Vec::new() };
    let left = end.duration_since(observed.now);
    if left <= SignedDuration::ZERO || left >= ISSUER_LEAST {
        return Vec::new();
    }
    vec![Finding::new(format!("it expires in {}, at {end}", show_span(left.unsigned_abs())))]
}
