//! The owner of every task, and the only place that spawns one.
//!
//! The wiring of each process makes one [`Tasks`], hands clones to its parts, and ends with [`Tasks::shutdown`]. It
//! knows a task only by its static name. The data path spawns one task per connection through it, so a spawn costs a
//! short lock and no allocation beyond the task itself; there is no span.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// A set of tasks that are cancelled and awaited together; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    running: Arc<Running>,
}

/// How a [`Tasks::shutdown`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a task that did not stop is worth a log line"]
pub struct Stopped {
    /// What was still running at the deadline, with how many of each; empty after a clean stop.
    pub still_running: Vec<(&'static str, usize)>,
}

/// Spawns what hyper needs to spawn (streams of an HTTP/2 connection) as tasks of a [`Tasks`].
#[derive(Clone, Debug)]
pub struct TaskExecutor {
    tasks: Tasks,
    name: &'static str,
}

/// As [`TaskExecutor`], on the thread it is called on.
#[derive(Clone, Debug)]
pub struct LocalTaskExecutor {
    tasks: Tasks,
    name: &'static str,
}

impl Tasks {
    /// An empty set, not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Tasks::spawn`]; at the cancellation it is dropped where it stands, having nothing to clean up.
    pub fn spawn_until_cancelled(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let cancelled = self.cancelled();
        self.spawn(name, async move {
            tokio::select! {
                () = future => {}
                () = cancelled => {}
            }
        });
    }

    /// Runs `future` on the current runtime. A panic ends that task alone and is logged with `name`.
    #[expect(clippy::disallowed_methods, reason = "this is the owner that the rule asks for")]
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.tracker.track_future(self.watched(name, future)));
    }

    /// As [`Tasks::spawn`], on the current thread: needs a `LocalSet` or a local runtime.
    #[expect(clippy::disallowed_methods, reason = "this is the owner that the rule asks for")]
    pub fn spawn_local(&self, name: &'static str, future: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(self.tracker.track_future(self.watched(name, future)));
    }

    /// An executor for hyper and tonic, whose tasks are owned here under `name`.
    pub fn executor(&self, name: &'static str) -> TaskExecutor {
        TaskExecutor { tasks: self.clone(), name }
    }

    /// As [`Tasks::executor`], for a local runtime.
    pub fn local_executor(&self, name: &'static str) -> LocalTaskExecutor {
        LocalTaskExecutor { tasks: self.clone(), name }
    }

    /// Resolves when shutdown begins.
    pub fn cancelled(&self) -> WaitForCancellationFutureOwned {
        self.token.clone().cancelled_owned()
    }

    /// The token that shutdown cancels, for child tokens and `select!`.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// What runs now, with how many of each name, in the order the names were first used.
    pub fn running(&self) -> Vec<(&'static str, usize)> {
        self.running.list()
    }

    /// Cancels the token and waits for every task to end, at most for `deadline`. Tasks that do not end are reported,
    /// not aborted: the process is about to exit and takes them along.
    pub async fn shutdown(&self, deadline: Duration) -> Stopped {
        self.token.cancel();
        self.tracker.close();
        let still_running = match tokio::time::timeout(deadline, self.tracker.wait()).await {
            Ok(()) => Vec::new(),
            Err(_elapsed) => self.running(),
        };
        Stopped { still_running }
    }

    /// Combinators, not an async block: a block would hold `future` twice, and its size is what a connection costs.
    fn watched<F: Future<Output = ()>>(&self, name: &'static str, future: F) -> impl Future<Output = ()> + use<F> {
        let counted = self.running.count(name);
        AssertUnwindSafe(future).catch_unwind().map(move |outcome| {
            // The whole value: naming one field alone would move only that field in here.
            let counted = counted;
            if let Err(panic) = outcome {
                tracing::error!(task = counted.name, panic = panic_text(&*panic), "a task panicked");
            }
        })
    }
}

impl Stopped {
    /// Whether everything ended in time.
    pub fn is_clean(&self) -> bool {
        self.still_running.is_empty()
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("all tasks ended");
        }
        f.write_str("still running:")?;
        for (name, count) in &self.still_running {
            write!(f, " {count} x {name};")?;
        }
        Ok(())
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for TaskExecutor {
    fn execute(&self, future: F) {
        self.tasks.spawn(self.name, future);
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalTaskExecutor {
    fn execute(&self, future: F) {
        // tokio moves a task's future some five times in its life, a large one at the price of an allocation each time.
        if size_of::<F>() > WORTH_A_BOX {
            self.tasks.spawn_local(self.name, Box::pin(future));
        } else {
            self.tasks.spawn_local(self.name, future);
        }
    }
}

/// Bytes of a future. What hyper spawns per request of HTTP/2 is as large as its largest kind, a whole connection.
const WORTH_A_BOX: usize = 512;

/// How many tasks of each name run. A process has a score of names at most, so a list is quicker than a map.
#[derive(Debug, Default)]
struct Running {
    counts: Mutex<Vec<(&'static str, usize)>>,
}

impl Running {
    fn count(self: &Arc<Self>, name: &'static str) -> Counted {
        let mut counts = self.counts.lock();
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
        Counted { name, running: Arc::clone(self) }
    }

    fn list(&self) -> Vec<(&'static str, usize)> {
        self.counts.lock().iter().filter(|(_, count)| *count > 0).copied().collect()
    }
}

/// One running task in [`Running`]; ends with it, also when the runtime drops the task unfinished.
#[derive(Debug)]
struct Counted {
    name: &'static str,
    running: Arc<Running>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.running.counts.lock();
        if let Some((_, count)) = counts.iter_mut().find(|(known, _)| *known == self.name) {
            *count -= 1;
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("not a text")
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn shutdown_waits_for_tasks_that_clean_up() {
        let tasks = Tasks::new();
        let (cleaned, was_cleaned) = oneshot::channel();
        let cancelled = tasks.cancelled();
        tasks.spawn("worker", async move {
            cancelled.await;
            tokio::task::yield_now().await;
            let _ = cleaned.send(());
        });
        assert_eq!(tasks.running(), [("worker", 1)]);
        let stopped = tasks.shutdown(SOON).await;
        assert!(stopped.is_clean(), "{stopped}");
        was_cleaned.await.expect("the task ran to its end");
        assert!(tasks.running().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_task_is_named_at_the_deadline() {
        let tasks = Tasks::new();
        tasks.spawn("stuck", pending());
        tasks.spawn("stuck", pending());
        tasks.spawn("quick", async {});
        let begun = tokio::time::Instant::now();
        let stopped = tasks.shutdown(Duration::from_secs(5)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        assert_eq!(stopped.still_running, [("stuck", 2)]);
        assert_eq!(stopped.to_string(), "still running: 2 x stuck;");
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_own_task() {
        let tasks = Tasks::new();
        let (sent, received) = oneshot::channel();
        tasks.spawn("bad", async { panic!("on purpose") });
        tasks.spawn("good", async move {
            let _ = sent.send(());
        });
        received.await.expect("the other task ran");
        assert!(tasks.shutdown(SOON).await.is_clean());
    }

    #[tokio::test]
    async fn local_tasks_are_owned_too() {
        let tasks = Tasks::new();
        let local = tokio::task::LocalSet::new();
        let owned = tasks.clone();
        let not_send = std::rc::Rc::new(1);
        let cancelled = tasks.cancelled();
        local.spawn_local_owned(&owned, async move {
            cancelled.await;
            drop(not_send);
        });
        let stopped = local.run_until(tasks.shutdown(SOON)).await;
        assert!(stopped.is_clean(), "{stopped}");
    }

    #[tokio::test]
    async fn a_task_costs_its_future_once() {
        let tasks = Tasks::new();
        let large = [0_u8; 4096];
        let future = async move {
            tokio::task::yield_now().await;
            assert_eq!(large.len(), 4096);
            assert!(large.iter().all(|byte| *byte == 0));
        };
        let alone = size_of_val(&future);
        let watched = size_of_val(&tasks.watched("large", future));
        assert!(watched < alone + 64, "{watched} bytes for a future of {alone}");
    }

    /// Spawns from outside the set, as the wiring of a worker thread does.
    trait SpawnLocalOwned {
        fn spawn_local_owned(&self, tasks: &Tasks, future: impl Future<Output = ()> + 'static);
    }

    impl SpawnLocalOwned for tokio::task::LocalSet {
        fn spawn_local_owned(&self, tasks: &Tasks, future: impl Future<Output = ()> + 'static) {
            let _entered = self.enter();
            tasks.spawn_local("local", future);
        }
    }
}
