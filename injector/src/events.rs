//! What was decided about a pod, as an Event on its owner: `kubectl describe` of the ReplicaSet, StatefulSet, Job … shows it.
//!
//! [`Told`] is made by `review` (pure) and queued by `server`, or by `reconcile` about the pod itself, and written by
//! [`Writer::run`], which `app` runs where there is an API server. An Event is a help and never a condition: nobody waits for
//! one, and what cannot be written is counted and forgotten. A rollout of a thousand pods says the same thing once.

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

use crate::{pod::Reference, problem::Problem};

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
    /// The owner of the pod, or the pod.
    pub regarding: Reference,
    /// There is one such Event of it at a time, whoever writes it; else one more is written each time.
    pub once: bool,
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
    said: Recently,
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
        let writer = Writer { client, queue, said: Recently::new(REPEAT_AFTER), counted: counted.clone() };
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
        let mut known = Problem::default();
        while let Some(told) = self.queue.recv().await {
            if !self.said.is_news(&told.regarding.uid, told.reason, Instant::now()) {
                self.counted.add("repeated");
                continue;
            }
            let events: Api<Event> = Api::namespaced(self.client.clone(), &told.namespace);
            let event = event(&told, SystemTime::now());
            let options = PostParams::default();
            let problem = match tokio::time::timeout(DEADLINE, events.create(&options, &event)).await {
                Ok(Ok(_)) => None,
                Ok(Err(kube::Error::Api(status))) if told.once && status.is_already_exists() => {
                    self.counted.add("repeated");
                    continue;
                }
                Ok(Err(error)) => Some(error.to_string().chars().take(200).collect()),
                Err(_elapsed) => Some(format!("no answer within {DEADLINE:?}")),
            };
            self.counted.add(if problem.is_some() { "failed" } else { "written" });
            if known.changes(problem.as_deref())
                && let Some(problem) = &problem
            {
                tracing::warn!(namespace = told.namespace, "failed to write an event about an injection: {problem}");
            }
        }
    }
}

/// What was said or done of late, oldest first.
#[derive(Debug)]
pub(crate) struct Recently {
    within: Duration,
    what: VecDeque<(Instant, String, &'static str)>,
}

impl Recently {
    /// Nothing yet; what happened is forgotten after `within`.
    pub(crate) fn new(within: Duration) -> Self {
        Self { within, what: VecDeque::new() }
    }

    /// Whether this did not happen to this object of late; from now on it did.
    pub(crate) fn is_news(&mut self, uid: &str, reason: &'static str, now: Instant) -> bool {
        while self.what.front().is_some_and(|(at, ..)| now.duration_since(*at) >= self.within) {
            self.what.pop_front();
        }
        if self.what.iter().any(|(_, of, why)| of == uid && *why == reason) {
            return false;
        }
        if self.what.len() == REMEMBERED {
            self.what.pop_front();
        }
        self.what.push_back((now, uid.to_owned(), reason));
        true
    }
}

fn event(told: &Told, now: SystemTime) -> Event {
    let Reference { api_version, kind, name, uid } = told.regarding.clone();
    let prefix = format!("{}-", names::INJECTOR_NAME);
    let once = told.once.then(|| format!("{prefix}{uid}"));
    let namespace = Some(told.namespace.clone());
    Event {
        metadata: ObjectMeta {
            generate_name: once.is_none().then_some(prefix),
            name: once,
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
        let regarding = Reference {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "web-5d8".into(),
            uid: uid.to_owned(),
        };
        Told {
            namespace: "shop".into(),
            regarding,
            once: false,
            reason,
            is_warning: reason != "injected",
            note: "ü".repeat(1000),
        }
    }

    #[test]
    fn the_same_is_said_once_in_ten_minutes_of_an_owner() {
        let (mut said, start) = (Recently::new(REPEAT_AFTER), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(said.is_news("a", "injected", start));
        assert!(!said.is_news("a", "injected", after(599)));
        assert!(said.is_news("a", "name-taken", after(599)), "something else");
        assert!(said.is_news("b", "injected", after(599)), "of another");
        assert!(said.is_news("a", "injected", after(600)));
        for owner in 0..2 * REMEMBERED {
            said.is_news(&owner.to_string(), "injected", after(601));
        }
        assert_eq!(said.what.len(), REMEMBERED);
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
