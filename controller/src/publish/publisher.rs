//! The handle by which everybody else asks the task of [`super`].

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot, watch};

use super::Latest;
use crate::{
    compile::Offers,
    index::{Facts, Name, pods::PodFacts},
    source::Kind,
};

/// Questions that wait for the task.
pub(super) const QUESTIONS: usize = 1024;

/// What can be listened to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Inbound policy of a pod.
    Inbound(Name),
    /// What is behind a destination, for clients in a zone, where that is known.
    Outbound(SocketAddr, Option<Arc<str>>),
}

/// What is known of a pod that says hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPod {
    /// Its uid.
    pub uid: String,
    /// Its service account.
    pub service_account: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The zone that it is in, once that is known.
    pub zone: Option<Arc<str>>,
}

/// Nothing more can be listened to, or the task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the controller is shutting down or at its limit of topics")]
pub struct Unavailable;

impl KnownPod {
    pub(super) fn of(facts: &Facts, pod: &PodFacts) -> Self {
        Self {
            uid: pod.uid.clone(),
            service_account: pod.service_account.clone(),
            ips: pod.ips.clone(),
            zone: facts.zone(pod).cloned(),
        }
    }
}

/// Asks the task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher(mpsc::Sender<Question>);

#[derive(Debug)]
pub(super) enum Question {
    Topic(Topic, oneshot::Sender<watch::Receiver<Latest>>),
    Pod(Name, oneshot::Sender<watch::Receiver<Option<KnownPod>>>),
    Offers(Name, oneshot::Sender<Offers>),
    Counts(oneshot::Sender<Vec<(Kind, usize)>>),
}

impl Publisher {
    pub(super) fn new(questions: mpsc::Sender<Question>) -> Self {
        Self(questions)
    }

    /// Listens to a topic. Dropping the receiver ends it.
    pub async fn topic(&self, topic: Topic) -> Result<watch::Receiver<Latest>, Unavailable> {
        self.ask(|reply| Question::Topic(topic, reply)).await
    }

    /// Listens to what is known of a pod.
    pub async fn pod(&self, pod: Name) -> Result<watch::Receiver<Option<KnownPod>>, Unavailable> {
        self.ask(|reply| Question::Pod(pod, reply)).await
    }

    /// Which Services lead to a pod. What was published before the answer agrees with it.
    pub async fn offers(&self, pod: Name) -> Result<Offers, Unavailable> {
        self.ask(|reply| Question::Offers(pod, reply)).await
    }

    /// How many objects are known, by kind.
    pub async fn counts(&self) -> Result<Vec<(Kind, usize)>, Unavailable> {
        self.ask(Question::Counts).await
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.0.send(question(reply)).await.map_err(|_| Unavailable)?;
        answer.await.map_err(|_| Unavailable)
    }
}
