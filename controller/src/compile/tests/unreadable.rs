//! What is in force of documents that cannot be read and never could: the strictest that they may have meant.

use mesh_proto::{
    inbound::{DefaultPolicy, InboundPolicy},
    outbound::OutboundPolicy,
};

use super::{
    facts,
    inbound::{EVERYONE, NOBODY, ONLY_LOAD, allowed, namespace, policy},
    pod, service,
};
use crate::{
    compile::Reads,
    index::{Facts, Name},
    source::manifest::{self, Format},
};

/// Facts of what can be read, with stand-ins for the rest, and how often nothing could stand in.
fn standing_in(manifest: &str) -> (Facts, usize) {
    let mut facts = Facts::new("cluster.local");
    let read = manifest::parse(manifest, Format::Yaml);
    let stand_ins = read.mistakes.iter().filter_map(|mistake| mistake.stand_in.as_ref());
    for object in read.objects.iter().map(|(_, object)| object).chain(stand_ins) {
        assert_eq!(facts.apply(object).problems, [""; 0], "{manifest}");
    }
    (facts, read.mistakes.iter().filter(|mistake| mistake.stand_in.is_none()).count())
}

fn inbound(facts: &Facts) -> InboundPolicy {
    let web = Name::new("shop", "web-1");
    crate::compile::inbound(facts, &web, DefaultPolicy::Allow, &mut Reads::default()).unwrap()
}

/// What is closed by a policy that cannot be read: nothing, or these ports.
#[test]
fn an_unreadable_policy_lets_nobody_in_where_its_target_can_be_read() {
    let (both, one, open) = ([NOBODY, NOBODY], [NOBODY, EVERYONE], [EVERYONE, EVERYONE]);
    for (spec, expected) in [
        // What is left when the last entry is commented out.
        ("{from: }", both),
        ("{from: []}", both),
        ("{from: [{}]}", both),
        ("{from: [null]}", both),
        ("{from: [{serviceAccounts: }]}", both),
        ("{from: [{serviceAccounts: []}]}", both),
        ("{from: [{serviceAccount: [load]}]}", both),
        ("{ports: [8080], from: }", one),
        ("{ports: [8080], from: [{serviceAccounts: load}]}", one),
        ("{ports: , from: [{serviceAccounts: [load]}]}", both),
        ("{ports: [], from: [{serviceAccounts: [load]}]}", both),
        ("{ports: [http], from: [{serviceAccounts: [load]}]}", both),
        ("{ports: [0], from: [{serviceAccounts: [load]}]}", both),
        ("{ports: [8080, 99999], from: [{serviceAccounts: [load]}]}", both),
        ("{action: Permit, from: [{serviceAccounts: [load]}]}", both),
        ("{targetRefs: [{kind: Service, name: web}], from: }", both),
        ("{targetRefs: [{kind: Service, name: web}, {kind: Deployment, name: x}]}", both),
        ("{selector: {matchLabels: {app: web}}, from: }", both),
        ("{selector: {matchLabels: {app: web}}, form: []}", both),
        // The target is somebody else.
        ("{targetRefs: [{kind: Service, name: next}], from: }", open),
        ("{selector: {matchLabels: {app: next}}, from: }", open),
        // The target cannot be told.
        ("", open),
        ("[]", open),
        ("{targetRefs: }", open),
        ("{targetRefs: []}", open),
        ("{targetRefs: [{kind: Deployment, name: web}]}", open),
        ("{selector: }", open),
        ("{selector: {matchLabels: }}", open),
        ("{selector: {matchLabels: {app: [web]}}}", open),
        ("{selectr: {matchLabels: {app: web}}}", open),
    ] {
        let next = service("next", "10.9.0.2");
        let manifest = pod("web", "10.1.0.1", true) + &service("web", "10.9.0.1") + &next + &policy("a", spec);
        let (facts, nothing) = standing_in(&manifest);
        let found = inbound(&facts);
        assert_eq!([allowed(&found, 8080), allowed(&found, 9090)], expected, "{spec}");
        let told = !spec.contains("next") && expected == open;
        assert_eq!(nothing, usize::from(told), "{spec}: nothing stands in");
    }
}

/// Another policy may let in whom an unreadable Deny, or what may be one, was to keep out.
#[test]
fn an_unreadable_deny_denies_whom_another_policy_allows() {
    let allow = policy("b", "{from: [{serviceAccounts: [load]}]}");
    for (spec, expected) in [
        ("{from: }", ONLY_LOAD),
        ("{action: Allow, from: }", ONLY_LOAD),
        ("{action: Deny, from: }", NOBODY),
        ("{action: , from: [{serviceAccounts: [load]}]}", NOBODY),
        ("{selector: {}, acton: Deny, from: [{serviceAccounts: [load]}]}", NOBODY),
        ("{from: [{serviceAccounts: [other]}], from: [{serviceAccounts: [load]}]}", ONLY_LOAD),
    ] {
        let (facts, _) = standing_in(&(pod("web", "10.1.0.1", true) + &policy("a", spec) + &allow));
        assert_eq!(allowed(&inbound(&facts), 8080), expected, "{spec}");
    }
}

#[test]
fn an_unreadable_namespace_keeps_its_default_policy_or_gets_the_strictest() {
    let broken = |text: &str| text.to_owned() + "spec: {finalizers: 5}\n";
    let plain = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: ";
    for (namespace, expected) in [
        (broken(&namespace("authenticated")), DefaultPolicy::Authenticated),
        (broken(&namespace("[deny]")), DefaultPolicy::Deny),
        (broken(&format!("{plain}[]}}\n")), DefaultPolicy::Deny),
        (broken(&format!("{plain}{{other: x}}}}\n")), DefaultPolicy::Allow),
        (broken("---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"), DefaultPolicy::Allow),
    ] {
        let (facts, _) = standing_in(&(pod("web", "10.1.0.1", true) + &namespace));
        assert_eq!(inbound(&facts).default.default, expected, "{namespace}");
    }
}

#[test]
fn an_unreadable_pod_counts_as_meshed() {
    let broken = pod("web", "10.1.0.1", false).replace("containerPort: 8080", "containerPort: many");
    let (facts, _) = standing_in(&broken);
    let policy =
        crate::compile::outbound(&facts, "10.1.0.1:8080".parse().unwrap(), None, &mut Reads::default()).unwrap();
    let OutboundPolicy::Pod(target) = policy else { panic!("{policy:?}") };
    assert_eq!(target.endpoint.identity.unwrap().service_account(), "web");
    assert!(!facts.pod(&Name::new("shop", "web-1")).unwrap().ready);
}

#[test]
fn an_unreadable_service_is_not_outside_the_mesh_and_policies_about_it_protect_its_pods() {
    let next = service("next", "10.9.0.2");
    let broken = service("web", "10.9.0.1").replace("port: 80,", "port: eighty,");
    let target = policy("a", "{targetRefs: [{kind: Service, name: web}], from: [{serviceAccounts: [load]}]}");
    let (facts, _) = standing_in(&(pod("web", "10.1.0.1", true) + &broken + &next + &target));
    let dialled =
        |address: &str| crate::compile::outbound(&facts, address.parse().unwrap(), None, &mut Reads::default());
    assert_eq!(dialled("10.9.0.1:80"), None);
    assert_eq!(dialled("10.9.0.1:81"), None);
    assert_eq!(dialled("10.9.0.2:81"), Some(OutboundPolicy::External), "one that can be read has no other port");
    assert_eq!(allowed(&inbound(&facts), 8080), ONLY_LOAD);
}

/// A port that is left out leads to pods that may have an identity.
#[test]
fn a_port_that_makes_no_sense_leaves_the_other_ports_and_nothing_is_outside_the_mesh() {
    let mut facts = Facts::new("cluster.local");
    let manifest = pod("web", "10.1.0.1", true) + &service("web", "10.9.0.1").replace("port: 9000", "port: 99000");
    let read = manifest::parse(&manifest, Format::Yaml);
    let problems: Vec<String> = read.objects.iter().flat_map(|(_, object)| facts.apply(object).problems).collect();
    assert_eq!(problems, ["spec.ports: 99000 is not a port"]);
    let dialled =
        |address: &str| crate::compile::outbound(&facts, address.parse().unwrap(), None, &mut Reads::default());
    assert!(matches!(dialled("10.9.0.1:80"), Some(OutboundPolicy::Service(_))));
    assert_eq!(dialled("10.9.0.1:9000"), None);
}

#[test]
fn what_can_be_read_needs_no_stand_in() {
    let (facts, problems) =
        facts(&(pod("web", "10.1.0.1", true) + &policy("a", "{from: [{serviceAccounts: [load]}]}")));
    assert_eq!((allowed(&inbound(&facts), 8080), problems.len()), (ONLY_LOAD, 0));
}
