//! What was decided about a pod, as an Event on its owner: `kubectl describe` of the ReplicaSet, StatefulSet, Job … shows it.
//!
//! [`Told`] is made by `review` (pure), queued by `server`, and written by [`Writer::run`], which `app` runs where there is
//! an API server. An Event is a help and never a condition: nobody waits for one, and what cannot be written is counted and
//! forgotten. A rollout of a thousand pods says the same thing once.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use mesh_proto::names;
use mesh_runtime::metrics::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio::{sync::mpsc, time::Instant};

use crate::pod::Owner;

/// Most that wait to be written; more are counted as dropped.
const QUEUE: usize = 256;
/// For so long the same is not said again of the same owner.
const REPEAT_AFTER: Duration = Duration::from_mins(10);
/// Most owners and reasons remembered for that; the API server keeps an Event for an hour.
const REMEMBERED: usize = 1024;
/// Longest that writing one may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The API server refuses longer notes.
const MAX_NOTE: usize = 1024;
/// What was done, in the terms of the API: an action by a controller.
const ACTION: &str = "InjectSidecar";

/// One decision, for the owner of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Namespace of pod and owner.
    pub namespace: String,
    /// Whose pod it is.
    pub owner: Owner,
    /// `injected`, or the stable code of why not.
    pub reason: &'static str,
    /// Whether somebody asked for a sidecar and gets none.
    pub is_warning: bool,
    /// A sentence, with the fix where there is one.
    pub note: String,
}

/// Where decisions are handed in; clones share the queue.
#[derive(Debug, Clone)]
pub struct Events {
    queue: Option<mpsc::Sender<Told>>,
    counted: Counts,
}

/// Writes what was handed in.
pub struct Writer {
    client: Client,
    queue: mpsc::Receiver<Told>,
    said: Said,
    counted: Counts,
}

/// `injection_event_total`.
#[derive(Debug, Clone, Default)]
struct Counts(Family<Labels, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    /// `written`, `repeated`, `dropped` or `failed`.
    result: &'static str,
}

impl Counts {
    fn add(&self, result: &'static str) {
        self.0.get_or_create(&Labels { result }).inc();
    }
}

impl Events {
    /// With no API server nobody reads them.
    pub fn nowhere() -> Self {
        Self { queue: None, counted: Counts::default() }
    }

    /// Written to `client` as long as the writer runs.
    pub fn new(client: Client) -> (Self, Writer) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let counted = Counts::default();
        let writer = Writer { client, queue, said: Said::default(), counted: counted.clone() };
        (Self { queue: Some(sender), counted }, writer)
    }

    /// Adds the family to those of the process.
    pub fn register(&self, metrics: &Metrics) {
        let help = "events about injections: written, not repeated, dropped as too many, or refused by the API server";
        metrics.register("injection_event", help, &["result"], self.counted.0.clone());
    }

    /// Hands one in. Never waits.
    pub fn tell(&self, told: Told) {
        if let Some(queue) = &self.queue
            && queue.try_send(told).is_err()
        {
            self.counted.add("dropped");
        }
    }
}

impl Writer {
    /// Writes until all [`Events`] are gone. A problem is logged once, and again when it changes.
    pub async fn run(mut self) {
        let mut last_problem = None;
        while let Some(told) = self.queue.recv().await {
            if !self.said.is_news(&told, Instant::now()) {
                self.counted.add("repeated");
                continue;
            }
            let events: Api<Event> = Api::namespaced(self.client.clone(), &told.namespace);
            let event = event(&told, SystemTime::now());
            let options = PostParams::default();
            let problem = match tokio::time::timeout(DEADLINE, events.create(&options, &event)).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string().chars().take(200).collect()),
                Err(_elapsed) => Some(format!("no answer within {DEADLINE:?}")),
            };
            self.counted.add(if problem.is_some() { "failed" } else { "written" });
            if problem != last_problem
                && let Some(problem) = &problem
            {
                tracing::warn!(namespace = told.namespace, "failed to write an event about an injection: {problem}");
            }
            last_problem = problem;
        }
    }
}

/// What was said of late, oldest first.
#[derive(Debug, Default)]
struct Said(VecDeque<(Instant, String, &'static str)>);

impl Said {
    /// Whether it was not said of this owner within [`REPEAT_AFTER`]; from now on it was.
    fn is_news(&mut self, told: &Told, now: Instant) -> bool {
        while self.0.front().is_some_and(|(at, ..)| now.duration_since(*at) >= REPEAT_AFTER) {
            self.0.pop_front();
        }
        if self.0.iter().any(|(_, uid, reason)| *uid == told.owner.uid && *reason == told.reason) {
            return false;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((now, told.owner.uid.clone(), told.reason));
        true
    }
}

fn event(told: &Told, now: SystemTime) -> Event {
    let Owner { api_version, kind, name, uid } = told.owner.clone();
    let namespace = Some(told.namespace.clone());
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", names::INJECTOR_NAME)),
            namespace: namespace.clone(),
            ..ObjectMeta::default()
        },
        action: Some(ACTION.into()),
        event_time: Some(MicroTime(Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH))),
        note: Some(told.note.chars().scan(0, within).collect()),
        reason: Some(told.reason.into()),
        regarding: Some(ObjectReference {
            api_version: Some(api_version),
            kind: Some(kind),
            name: Some(name),
            namespace,
            uid: Some(uid),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(format!("{}/{}", names::GROUP, names::INJECTOR_NAME)),
        reporting_instance: Some(names::INJECTOR_NAME.into()),
        type_: Some(if told.is_warning { "Warning" } else { "Normal" }.into()),
        ..Event::default()
    }
}

/// The characters that fit into a note.
fn within(length: &mut usize, c: char) -> Option<char> {
    *length += c.len_utf8();
    (*length <= MAX_NOTE).then_some(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(uid: &str, reason: &'static str) -> Told {
        let owner = Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "web-5d8".into(),
            uid: uid.to_owned(),
        };
        Told { namespace: "shop".into(), owner, reason, is_warning: reason != "injected", note: "ü".repeat(1000) }
    }

    #[test]
    fn the_same_is_said_once_in_ten_minutes_of_an_owner() {
        let (mut said, start) = (Said::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(said.is_news(&told("a", "injected"), start));
        assert!(!said.is_news(&told("a", "injected"), after(599)));
        assert!(said.is_news(&told("a", "name-taken"), after(599)), "something else");
        assert!(said.is_news(&told("b", "injected"), after(599)), "of another");
        assert!(said.is_news(&told("a", "injected"), after(600)));
        for owner in 0..2 * REMEMBERED {
            said.is_news(&told(&owner.to_string(), "injected"), after(601));
        }
        assert_eq!(said.0.len(), REMEMBERED);
    }

    #[test]
    fn an_event_is_one_that_the_api_server_takes() {
        let event = event(&told("a", "name-taken"), SystemTime::now());
        assert!(event.note.unwrap().len() <= MAX_NOTE);
        // What a real one said of `mesh-injector.`: the prefix by itself is to be a name, but for a dash at its end.
        assert!(event.metadata.generate_name.unwrap().trim_end_matches('-').ends_with(char::is_alphanumeric));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.regarding.unwrap().uid.as_deref(), Some("a"));
    }

    #[tokio::test]
    async fn what_nobody_writes_in_time_is_dropped_and_counted() {
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
        let (events, _writer) = Events::new(client);
        for _ in 0..QUEUE + 3 {
            events.tell(told("a", "injected"));
        }
        assert_eq!(events.counted.0.get_or_create(&Labels { result: "dropped" }).get(), 3);
    }
}
