//! What a change touches: what depends on it and, among however many objects, nothing else.

use std::collections::BTreeSet;

use super::{objects, pod, service};
use crate::index::{Facts, Mark, Name};

/// Services in one namespace, each with two pods.
const SERVICES: usize = 300;

fn name(number: usize) -> String {
    format!("app-{number}")
}

fn two_pods(number: usize) -> String {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    let second = pod(&name(number), &format!("10.2.{high}.{low}"), true).replace("-1, namespace", "-2, namespace");
    pod(&name(number), &format!("10.1.{high}.{low}"), true) + &second
}

fn ip(number: usize) -> String {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    format!("10.9.{high}.{low}")
}

fn crowd() -> Facts {
    let mut facts = Facts::new("cluster.local");
    for number in 0..SERVICES {
        for object in objects(&(two_pods(number) + &service(&name(number), &ip(number)))) {
            facts.apply(&object);
        }
    }
    facts
}

/// What applying a manifest touches.
fn touched(facts: &mut Facts, manifest: &str) -> BTreeSet<Mark> {
    objects(manifest).iter().flat_map(|object| facts.apply(object).marks).collect()
}

fn marks(number: usize) -> (Mark, Mark, [Mark; 2]) {
    let pods = [1, 2].map(|pod| Mark::Pod(Name::new("shop", &format!("{}-{pod}", name(number)))));
    (Mark::Service(Name::new("shop", &name(number))), Mark::Address(ip(number).parse().unwrap()), pods)
}

#[test]
fn a_service_touches_itself_and_the_pods_that_it_picks_or_picked() {
    let mut facts = crowd();
    let (service_7, address_7, pods_7) = marks(7);
    let port = service(&name(7), &ip(7)).replace("port: 5432", "port: 5433");
    let own: BTreeSet<Mark> = [service_7, address_7].into_iter().chain(pods_7).collect();
    assert_eq!(touched(&mut facts, &port), own);
    let moved = port.replace("selector: {app: app-7}", "selector: {app: app-8}");
    let (_, _, pods_8) = marks(8);
    assert_eq!(touched(&mut facts, &moved), own.into_iter().chain(pods_8).collect());
    assert_eq!(touched(&mut facts, &moved), BTreeSet::new(), "the same again is no change");
}

#[test]
fn a_pod_touches_itself_and_the_services_that_pick_it() {
    let mut facts = crowd();
    let (service_7, _, [pod_7, _]) = marks(7);
    let gone = pod(&name(7), "10.1.0.7", true).replace("status: 'True'", "status: 'False'");
    let address = Mark::Address("10.1.0.7".parse().unwrap());
    assert_eq!(touched(&mut facts, &gone), BTreeSet::from([service_7, pod_7, address]));
}

/// A selector is compared as a whole, not only the label by which a Service is found.
#[test]
fn a_pod_with_one_of_two_labels_is_not_picked() {
    let mut facts = crowd();
    let both = service("both", "10.10.0.1").replace("selector: {app: both}", "selector: {app: app-7, tier: front}");
    let (_, _, pods_7) = marks(7);
    let touches = touched(&mut facts, &both);
    assert!(pods_7.iter().all(|pod| !touches.contains(pod)), "{touches:?}");
    let labelled = pod(&name(7), "10.1.0.7", true).replace("labels: {app: app-7}", "labels: {app: app-7, tier: front}");
    assert!(touched(&mut facts, &labelled).contains(&Mark::Service(Name::new("shop", "both"))));
}
