//! The one task that owns all facts, and a `watch` per thing that somebody wants to know.
//!
//! Events go in; a burst of them is applied, what it touched is compiled again, and what came out different is
//! published. Nothing is published before the source has said everything once: a Service that has not been read yet
//! would look like a place outside the mesh. It knows no connection; streams hold the receivers.

pub mod departed;
mod meshed;
mod publisher;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use mesh_proto::{config::Value, inbound::DefaultPolicy, outbound::OutboundPolicy};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

pub use self::publisher::{KnownPod, Publisher, Topic, Unavailable};
use self::{
    departed::Departed,
    meshed::Meshed,
    publisher::{QUESTIONS, Question},
};
use crate::{
    compile::{self, Reads},
    index::{Facts, Mark, Name},
    metrics::Metrics,
    problems::Problems,
    source::{Event, Kind},
};

/// Events applied before anything is published.
const LONGEST_BURST: usize = 1024;
/// Most things published at once: ten thousand keys of a hundred busy proxies.
const MOST_TOPICS: usize = 1_000_000;
/// How often topics that nobody listens to are freed.
const SWEEP: Duration = Duration::from_secs(10);

/// The latest value of a topic; none until there is one.
pub type Latest = Option<Published>;

/// A published value.
#[derive(Debug, Clone)]
pub struct Published {
    /// Grows with every value of the topic.
    pub version: u64,
    /// The value.
    pub value: Arc<Value>,
    /// When the first event arrived that led to it.
    pub since: Instant,
}

/// What the task is made of.
pub struct Settings {
    /// Trust domain of the workloads.
    pub trust_domain: String,
    /// In force where neither pod nor namespace set one.
    pub default_policy: DefaultPolicy,
    /// How long the address of a meshed pod that is gone is not taken for a place outside the mesh.
    pub remembered: Duration,
    /// Where objects that make no sense are named.
    pub problems: Problems,
    /// Where it is counted.
    pub metrics: Metrics,
    /// Told when the source has said everything once.
    pub synced: Box<dyn FnOnce() + Send>,
}

/// The task: runs until the source and everyone who asks is gone.
pub struct Task {
    facts: Facts,
    default_policy: DefaultPolicy,
    problems: Problems,
    metrics: Metrics,
    synced: Option<Box<dyn FnOnce() + Send>>,
    version: u64,
    departed: Departed,
    meshed: Meshed,
    topics: HashMap<Topic, Entry>,
    by_mark: HashMap<Mark, HashSet<Topic>>,
    pods: HashMap<Name, watch::Sender<Option<KnownPod>>>,
    questions: mpsc::Receiver<Question>,
}

struct Entry {
    sender: watch::Sender<Latest>,
    reads: Reads,
}

/// Makes the task and the handle to ask it.
pub fn new(settings: Settings) -> (Publisher, Task) {
    let (ask, questions) = mpsc::channel(QUESTIONS);
    let task = Task {
        facts: Facts::new(&settings.trust_domain),
        default_policy: settings.default_policy,
        problems: settings.problems,
        metrics: settings.metrics,
        synced: Some(settings.synced),
        version: 0,
        departed: Departed::new(settings.remembered),
        meshed: Meshed::new(),
        topics: HashMap::new(),
        by_mark: HashMap::new(),
        pods: HashMap::new(),
        questions,
    };
    (Publisher::new(ask), task)
}

impl Task {
    /// Listens to which namespaces have pods of the mesh, or ask for them.
    pub fn namespaces(&self) -> watch::Receiver<BTreeSet<Arc<str>>> {
        self.meshed.listen()
    }

    /// Runs until nobody can send events or questions any more.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut sweep = tokio::time::interval(SWEEP);
        let (mut source_there, mut anyone_there) = (true, true);
        while source_there || anyone_there {
            tokio::select! {
                biased;
                event = events.recv(), if source_there => match event {
                    Some(event) => {
                        self.burst(event, &mut events);
                        // Events come first, but not for ever: whoever waits is answered after each burst.
                        for _ in 0..QUESTIONS {
                            let Ok(question) = self.questions.try_recv() else { break };
                            self.answer(question);
                        }
                    }
                    None => source_there = false,
                },
                question = self.questions.recv(), if anyone_there => match question {
                    Some(question) => self.answer(question),
                    None => anyone_there = false,
                },
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    fn burst(&mut self, first: Event, events: &mut mpsc::Receiver<Event>) {
        let since = Instant::now();
        let mut touched = BTreeSet::new();
        self.event(first, &mut touched);
        for _ in 1..LONGEST_BURST {
            match events.try_recv() {
                Ok(event) => self.event(event, &mut touched),
                Err(_) => break,
            }
        }
        for mark in &touched {
            if let Mark::Address(ip) = mark {
                self.departed.touched(&self.facts, *ip);
            }
        }
        let namespaces = touched.iter().filter_map(|mark| match mark {
            Mark::Namespace(namespace) => Some(namespace),
            Mark::Pod(pod) => Some(&pod.namespace),
            Mark::Address(_) | Mark::Service(_) => None,
        });
        self.meshed.touched(&self.facts, &namespaces.collect());
        if self.synced.is_none() {
            self.publish(&touched, since);
        }
        for kind in Kind::ALL {
            self.metrics.objects(kind, self.facts.count(kind));
        }
        self.metrics.problems(self.problems.count());
    }

    fn event(&mut self, event: Event, touched: &mut BTreeSet<Mark>) {
        match event {
            Event::Apply(object) => {
                let applied = self.facts.apply(&object);
                self.problems.set(&object.object_ref().to_string(), applied.problems);
                touched.extend(applied.marks);
            }
            Event::Delete(object) => {
                self.problems.set(&object.to_string(), Vec::new());
                touched.extend(self.facts.delete(&object));
            }
            Event::Synced => {
                if let Some(synced) = self.synced.take() {
                    synced();
                    // Everything that was asked for before now has its first answer.
                    touched.extend(self.by_mark.keys().cloned());
                    touched.extend(self.pods.keys().cloned().map(Mark::Pod));
                }
            }
        }
    }

    fn publish(&mut self, touched: &BTreeSet<Mark>, since: Instant) {
        let mut stale: HashSet<Topic> = HashSet::new();
        for mark in touched {
            stale.extend(self.by_mark.get(mark).into_iter().flatten().cloned());
            if let Mark::Pod(name) = mark
                && let Some(sender) = self.pods.get(name)
            {
                let known = self.facts.pod(name).map(|pod| KnownPod::of(&self.facts, pod));
                sender.send_if_modified(|before| std::mem::replace(before, known.clone()) != known);
            }
        }
        for topic in stale {
            self.compile(&topic, since);
        }
    }

    /// Compiles a topic again and publishes it if it is different.
    fn compile(&mut self, topic: &Topic, since: Instant) {
        let mut reads = Reads::default();
        let value = match topic {
            Topic::Inbound(pod) => {
                compile::inbound(&self.facts, pod, self.default_policy, &mut reads).map(Value::Inbound)
            }
            // Without an answer a proxy refuses the destination, or keeps the answer that it had.
            Topic::Outbound(address, zone) => compile::outbound(&self.facts, *address, zone.as_ref(), &mut reads)
                .filter(|policy| *policy != OutboundPolicy::External || !self.departed.remembers(address.ip()))
                .map(Value::Outbound),
        };
        let Some(entry) = self.topics.get_mut(topic) else { return };
        if reads != entry.reads {
            forget(&mut self.by_mark, topic, entry.reads.0.difference(&reads.0));
            for mark in reads.0.difference(&entry.reads.0) {
                self.by_mark.entry(mark.clone()).or_default().insert(topic.clone());
            }
            entry.reads = reads;
        }
        // A pod that is gone needs no policy; what it had stays with whoever still listens.
        let Some(value) = value.filter(|_| self.synced.is_none()) else { return };
        let next = self.version + 1;
        let changed = entry.sender.send_if_modified(|latest| {
            let same = latest.as_ref().is_some_and(|latest| *latest.value == value);
            if !same {
                *latest = Some(Published { version: next, value: Arc::new(value), since });
            }
            !same
        });
        if changed {
            self.version = next;
        }
    }

    fn answer(&mut self, question: Question) {
        // Whoever asked may be gone again: then the receiver is dropped here and the topic is swept.
        match question {
            Question::Counts(reply) => {
                let _ = reply.send(Kind::ALL.into_iter().map(|kind| (kind, self.facts.count(kind))).collect());
            }
            Question::Offers(pod, reply) => {
                let _ = reply.send(compile::offers(&self.facts, &pod));
            }
            Question::Pod(name, reply) => {
                let known = self.facts.pod(&name).filter(|_| self.synced.is_none());
                let known = known.map(|pod| KnownPod::of(&self.facts, pod));
                let sender = self.pods.entry(name).or_insert_with(|| watch::Sender::new(known));
                let _ = reply.send(sender.subscribe());
            }
            Question::Topic(topic, reply) => {
                if !self.topics.contains_key(&topic) {
                    // The reply is dropped: whoever asked is told that there is no room. The next sweep may make some.
                    if self.topics.len() >= MOST_TOPICS {
                        return;
                    }
                    let entry = Entry { sender: watch::Sender::new(None), reads: Reads::default() };
                    self.topics.insert(topic.clone(), entry);
                    self.compile(&topic, Instant::now());
                }
                if let Some(entry) = self.topics.get(&topic) {
                    let _ = reply.send(entry.sender.subscribe());
                }
            }
        }
    }

    /// Frees what nobody listens to, and forgets what is long gone.
    fn sweep(&mut self) {
        let forgotten = self.departed.forget().into_iter().map(Mark::Address).collect();
        if self.synced.is_none() {
            self.publish(&forgotten, Instant::now());
        }
        let by_mark = &mut self.by_mark;
        self.topics.retain(|topic, entry| {
            let wanted = entry.sender.receiver_count() > 0;
            if !wanted {
                forget(by_mark, topic, &entry.reads.0);
            }
            wanted
        });
        self.pods.retain(|_, sender| sender.receiver_count() > 0);
        self.metrics.topics(self.topics.len());
    }
}

fn forget<'a>(by_mark: &mut HashMap<Mark, HashSet<Topic>>, topic: &Topic, marks: impl IntoIterator<Item = &'a Mark>) {
    for mark in marks {
        if let Some(topics) = by_mark.get_mut(mark) {
            topics.remove(topic);
            if topics.is_empty() {
                by_mark.remove(mark);
            }
        }
    }
}
