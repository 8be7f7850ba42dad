//! The order in which objects come changes nothing, and what is published is what would be compiled afresh.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use mesh_proto::{config::Value, inbound::DefaultPolicy, outbound::OutboundPolicy};
use mesh_runtime::metrics::Metrics as Registry;
use proptest::{prelude::*, sample::Index};
use tokio::sync::{mpsc, watch};

use super::{objects, pod, service};
use crate::{
    compile::{self, Reads},
    index::{Facts, Name},
    metrics::Metrics,
    problems::Problems,
    publish::{self, Latest, Topic},
    source::{Event, Object, ObjectRef},
};

/// Versions of objects that touch each other in every way: addresses, labels, names, slices, routes, policies.
fn versions() -> Vec<Arc<Object>> {
    let web = pod("web", "10.1.0.1", true);
    let routed = |backend: &str| {
        format!(
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: web}}]
  rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]
"
        )
    };
    let slice = |name: &str, service: &str, pod: &str| {
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: ['10.1.0.1'] {pod}}}]
"
        )
    };
    let policy = |spec: &str| {
        format!(
            "---
apiVersion: meshctl.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: a, namespace: shop}}
spec: {spec}
"
        )
    };
    let namespace = |default: &str| {
        format!(
            "---
apiVersion: v1
kind: Namespace
metadata: {{name: shop, annotations: {{meshctl.dev/default-policy: {default}}}}}
"
        )
    };
    let all = [
        web.clone(),
        web.replace("'True'", "'False'"),
        web.replace("app: web", "app: next"),
        web.replace("10.1.0.1", "10.1.0.3"),
        pod("web", "10.1.0.1", false),
        pod("next", "10.1.0.2", true),
        pod("next", "10.1.0.1", true),
        service("web", "10.9.0.1"),
        service("web", "10.9.0.3"),
        service("web", "10.9.0.1").replace("app: web", "app: next"),
        service("web", "10.9.0.1").replace("port: 80,", "port: 80, appProtocol: grpc,"),
        service("next", "10.9.0.2"),
        service("next", "10.9.0.1"),
        slice("s", "web", ""),
        slice("s", "next", ", targetRef: {kind: Pod, name: next-1}"),
        slice("s", "web", ", nodeName: n, zone: west, hints: {forZones: [{name: west}]}"),
        slice("t", "web", ", nodeName: n, zone: east, hints: {forZones: [{name: east}]}")
            .replace("10.1.0.1", "10.1.0.2"),
        routed("next"),
        routed("gone"),
        policy("{from: [{serviceAccounts: [load]}]}"),
        policy("{targetRefs: [{kind: Service, name: web}], ports: [8080]}"),
        namespace("deny"),
        namespace("audit"),
    ];
    objects(&all.concat())
}

fn topics() -> Vec<Topic> {
    let outbound = |address: &str| Topic::Outbound(address.parse::<SocketAddr>().unwrap(), None);
    let mut topics: Vec<Topic> =
        ["web-1", "next-1"].map(|pod| Topic::Inbound(Name::new("shop", pod))).into_iter().collect();
    for ip in ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.9.0.1", "10.9.0.2", "10.9.0.3"] {
        topics.extend(["80", "5432", "8080"].map(|port| outbound(&format!("{ip}:{port}"))));
        topics.push(Topic::Outbound(format!("{ip}:80").parse().unwrap(), Some("east".into())));
    }
    topics
}

fn afresh(objects: &BTreeMap<ObjectRef, Arc<Object>>, reverse: bool, topic: &Topic) -> Option<Value> {
    let mut facts = Facts::new("cluster.local");
    let mut list: Vec<_> = objects.values().collect();
    if reverse {
        list.reverse();
    }
    for object in list {
        facts.apply(object);
    }
    let mut reads = Reads::default();
    match topic {
        Topic::Inbound(pod) => compile::inbound(&facts, pod, DefaultPolicy::Allow, &mut reads).map(Value::Inbound),
        Topic::Outbound(address, zone) => {
            compile::outbound(&facts, *address, zone.as_ref(), &mut reads).map(Value::Outbound)
        }
    }
}

fn settings(remembered: Duration) -> publish::Settings {
    publish::Settings {
        trust_domain: "cluster.local".into(),
        default_policy: DefaultPolicy::Allow,
        remembered,
        problems: Problems::default(),
        metrics: Metrics::new(&Registry::new()),
        synced: Box::new(|| {}),
    }
}

/// Publishes events in bursts, and gives the last value of every topic.
async fn published(events: Vec<Event>, burst: usize) -> Vec<(Topic, Option<Value>)> {
    let (publisher, task) = publish::new(settings(Duration::ZERO));
    let (send, receive) = mpsc::channel(64);
    let feed = async {
        let mut topics_and_values: Vec<(Topic, watch::Receiver<Latest>)> = Vec::new();
        for topic in topics() {
            topics_and_values.push((topic.clone(), publisher.topic(topic).await.unwrap()));
        }
        for (number, event) in events.into_iter().enumerate() {
            send.send(event).await.unwrap();
            if number % burst == 0 {
                // An answer says that everything before has been published.
                publisher.counts().await.unwrap();
            }
        }
        publisher.counts().await.unwrap();
        drop((send, publisher));
        let value = |latest: &Latest| latest.as_ref().map(|latest| Value::clone(&latest.value));
        topics_and_values.into_iter().map(|(topic, latest)| (topic, value(&latest.borrow()))).collect()
    };
    tokio::join!(feed, task.run(receive)).0
}

#[test]
fn nothing_is_published_before_the_source_has_said_everything() {
    let events = versions().into_iter().map(Event::Apply).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for (topic, value) in runtime.block_on(published(events, 1)) {
        assert_eq!(value, None, "{topic:?}");
    }
}

/// It may still run: its address is not a place outside the mesh at once, and is one later.
#[tokio::test(start_paused = true)]
async fn the_address_of_a_meshed_pod_that_is_gone_is_not_outside_the_mesh_at_once() {
    let remembered = Duration::from_mins(5);
    let (publisher, task) = publish::new(settings(remembered));
    let (send, receive) = mpsc::channel(64);
    let [meshed, plain] = [true, false].map(|sidecar| objects(&pod("web", "10.1.0.1", sidecar)).remove(0));
    let test = async {
        let ask = async || publisher.topic(Topic::Outbound(([10, 1, 0, 1], 8080).into(), None)).await.unwrap();
        let mut topic = ask().await;
        let told =
            |topic: &watch::Receiver<Latest>| match topic.borrow().as_ref().map(|latest| Arc::clone(&latest.value)) {
                None => "nothing".to_owned(),
                Some(value) => match &*value {
                    Value::Outbound(OutboundPolicy::External) => "outside".to_owned(),
                    Value::Outbound(OutboundPolicy::Pod(pod)) => format!("pod {}", pod.endpoint.identity.is_some()),
                    other => panic!("{other:?}"),
                },
            };
        send.send(Event::Synced).await.unwrap();
        let expect = async |event: Event, expected: &str| {
            send.send(event).await.unwrap();
            publisher.counts().await.unwrap();
            assert_eq!(told(&topic), expected);
        };
        let gone = || Event::Delete(meshed.object_ref());
        expect(gone(), "outside").await;
        expect(Event::Apply(Arc::clone(&plain)), "pod false").await;
        expect(gone(), "outside").await;
        expect(Event::Apply(Arc::clone(&meshed)), "pod true").await;
        // Who knows it keeps the identity, who asks now gets no answer.
        expect(gone(), "pod true").await;
        expect(Event::Apply(Arc::clone(&plain)), "pod false").await;
        expect(Event::Apply(Arc::clone(&meshed)), "pod true").await;
        expect(gone(), "pod true").await;
        let late = publisher.topic(Topic::Outbound(([10, 1, 0, 1], 9090).into(), None)).await.unwrap();
        assert_eq!(told(&late), "nothing");
        let start = tokio::time::Instant::now();
        topic.mark_unchanged();
        topic.changed().await.unwrap();
        assert_eq!((told(&topic), told(&late)), ("outside".into(), "outside".into()));
        assert!(start.elapsed() >= remembered);
        drop((send, publisher));
    };
    tokio::join!(test, task.run(receive));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_order_of_events_changes_nothing(
        steps in prop::collection::vec((any::<Index>(), prop::bool::weighted(0.2)), 1..60),
        synced_after in 0_usize..20,
        burst in 1_usize..8,
    ) {
        let versions = versions();
        let mut there = BTreeMap::new();
        let mut events = Vec::new();
        for (index, delete) in steps {
            let object = index.get(&versions);
            let name = object.object_ref();
            if delete {
                there.remove(&name);
                events.push(Event::Delete(name));
            } else {
                there.insert(name, Arc::clone(object));
                events.push(Event::Apply(Arc::clone(object)));
            }
        }
        events.insert(synced_after.min(events.len()), Event::Synced);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for (topic, value) in runtime.block_on(published(events, burst)) {
            let (forward, backward) = (afresh(&there, false, &topic), afresh(&there, true, &topic));
            prop_assert_eq!(&forward, &backward, "{:?}", topic);
            // A pod that is gone keeps what it was told last.
            if forward.is_some() {
                prop_assert_eq!(&value, &forward, "{:?}", topic);
            }
        }
    }
}
