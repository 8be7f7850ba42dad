//! Looks into the workers: the admin port asks, every worker answers on its own thread, from what only it knows.
//!
//! Nothing is shared for it, so that nothing on a request's path locks; a worker that is asked pays for one answer.

use std::{collections::HashMap, sync::Arc, time::Duration};

use mesh_proto::{admin, endpoint::Endpoint};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::connections::Shown;

/// Longest a worker may take to answer: its loop is never busy for so long with one thing.
const ANSWER: Duration = Duration::from_secs(2);
/// Questions that wait for a worker.
const QUEUE: usize = 8;

/// Asks all workers; clones ask the same ones.
#[derive(Clone, Default)]
pub struct Inspect(Arc<Mutex<Vec<mpsc::Sender<Question>>>>);

/// What a worker is asked.
pub(crate) enum Question {
    /// The oldest open connections, and the last that ended.
    Connections(oneshot::Sender<Shown>),
    /// The load of every endpoint in use.
    Loads(oneshot::Sender<Vec<(Endpoint, admin::Load)>>),
}

/// A worker did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("look into a worker: it did not answer within {ANSWER:?}; is the proxy ending, or out of processor time?")]
pub struct NoAnswer;

impl Inspect {
    /// A worker that will answer.
    pub(crate) fn join(&self) -> mpsc::Receiver<Question> {
        let (sender, questions) = mpsc::channel(QUEUE);
        self.0.lock().push(sender);
        questions
    }

    /// Open connections of all workers, oldest first, and those that ended last; at most [`admin::MAX_ITEMS`] of each.
    pub async fn connections(&self) -> Result<admin::Connections, NoAnswer> {
        let answers = self.ask(Question::Connections).await?;
        let (mut items, mut closed, mut all, mut forgotten) = (Vec::new(), Vec::new(), 0, 0);
        for shown in answers {
            items.extend(shown.open);
            closed.extend(shown.closed);
            all += shown.all;
            forgotten += shown.forgotten;
        }
        items.sort_by(|a, b| b.age_seconds.total_cmp(&a.age_seconds));
        items.truncate(admin::MAX_ITEMS);
        closed.sort_by(|a, b| a.closed_seconds.total_cmp(&b.closed_seconds));
        forgotten += closed.len().saturating_sub(admin::MAX_ITEMS) as u64;
        closed.truncate(admin::MAX_ITEMS);
        Ok(admin::Connections {
            api_version: admin::API_VERSION.to_owned(),
            kind: "Connections".to_owned(),
            left_out: all.saturating_sub(items.len()),
            items,
            closed,
            forgotten,
        })
    }

    /// Load of every endpoint in use, all workers together.
    pub async fn loads(&self) -> Result<HashMap<Endpoint, admin::Load, ahash::RandomState>, NoAnswer> {
        let mut loads = HashMap::default();
        for (endpoint, load) in self.ask(Question::Loads).await?.into_iter().flatten() {
            loads
                .entry(endpoint)
                .and_modify(|sum: &mut admin::Load| {
                    sum.latency_ms = sum.latency_ms.max(load.latency_ms);
                    sum.in_flight += load.in_flight;
                    sum.connections += load.connections;
                })
                .or_insert(load);
        }
        Ok(loads)
    }

    async fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Question) -> Result<Vec<T>, NoAnswer> {
        let workers = self.0.lock().clone();
        let answers = workers.into_iter().map(|worker| {
            let (sender, answer) = oneshot::channel();
            let asked = worker.try_send(question(sender));
            async move {
                asked.map_err(|_| NoAnswer)?;
                answer.await.map_err(|_| NoAnswer)
            }
        });
        tokio::time::timeout(ANSWER, futures_util::future::try_join_all(answers)).await.unwrap_or(Err(NoAnswer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_answer_is_an_error_and_not_an_empty_page() {
        let inspect = Inspect::default();
        let mut questions = inspect.join();
        assert_eq!(inspect.connections().await, Err(NoAnswer));
        for _ in 0..QUEUE {
            assert_eq!(inspect.loads().await.err(), Some(NoAnswer));
        }
        while questions.try_recv().is_ok() {}
        drop(questions);
        assert_eq!(inspect.connections().await, Err(NoAnswer));
    }

    #[tokio::test]
    async fn the_loads_of_all_workers_are_one_and_no_worker_is_no_load() {
        let inspect = Inspect::default();
        assert!(inspect.loads().await.unwrap().is_empty());
        let workers = [inspect.join(), inspect.join()];
        let endpoint = Endpoint { address: ([10, 0, 0, 1], 80).into(), identity: None, pod: None };
        let answer = async |mut questions: mpsc::Receiver<Question>, latency_ms| {
            let Some(Question::Loads(answer)) = questions.recv().await else { panic!("another question") };
            answer.send(vec![(endpoint.clone(), admin::Load { latency_ms, in_flight: 2, connections: 3 })]).unwrap();
        };
        let [first, second] = workers;
        let (loads, (), ()) = tokio::join!(inspect.loads(), answer(first, 1.0), answer(second, 7.0));
        assert_eq!(loads.unwrap()[&endpoint], admin::Load { latency_ms: 7.0, in_flight: 4, connections: 6 });
    }
}
