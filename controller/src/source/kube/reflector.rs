//! Keeps the index told of one kind: lists it, follows what changes, and lists again when it can follow no longer.
//!
//! What is known is withdrawn only by the API's own word: a deletion that a watch reports, or a list that came to its
//! end. Whatever fails in between is waited for, and what is known stays in force.

use http::StatusCode;
use mesh_runtime::backoff::Backoff;
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    Kube, Pace,
    known::{Instead, Known, Received},
    request::{self, Change, Page},
};
use crate::{
    api::{Api, Failure},
    metrics::Metrics,
    problems::Problems,
    source::{Event, Kind, ObjectRef},
};

/// A watch may fail to be resumed this often in a row before the kind is listed again: an API server that was restored
/// from a backup does not know the version that we have, and never will.
const MOST_RESUMES: u32 = 4;
/// A kind of a resource definition must be found missing this often in a row before its objects count as gone.
const MOST_ABSENT: u32 = 3;

/// Follows one kind.
pub(super) struct Reflector {
    kind: Kind,
    api: Api,
    pace: Pace,
    problems: Problems,
    metrics: Metrics,
    events: mpsc::Sender<Event>,
    known: Known,
    backoff: Backoff,
    /// How often in a row the cluster did not have the kind.
    absent: u32,
}

/// Why a list has no end.
enum Stop {
    /// Nobody listens any more.
    Closed,
    /// It failed.
    Failed(Failure),
}

/// Nobody listens any more.
struct Closed;

impl From<Closed> for Stop {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// How a watch ended.
enum End {
    /// When its time was over.
    InOrder,
    /// It can be resumed where it was.
    Failed(Failure),
    /// It cannot.
    Lost(String),
}

impl Reflector {
    /// For `kind`, as `kube` says, told to `events`.
    pub(super) fn new(kind: Kind, kube: &Kube, events: mpsc::Sender<Event>) -> Self {
        Self {
            kind,
            api: kube.api.clone(),
            pace: kube.pace,
            problems: kube.problems.clone(),
            metrics: kube.metrics.clone(),
            events,
            known: Known::new(kind),
            backoff: Backoff::new(kube.pace.first_retry, kube.pace.longest_retry),
            absent: 0,
        }
    }

    /// Runs until nobody listens. `complete` is told when everything that was there at the start has been sent.
    pub(super) async fn run(mut self, complete: oneshot::Sender<()>) {
        let mut complete = Some(complete);
        let mut listed = || complete.take().map(|complete| complete.send(()));
        loop {
            let wait = match self.list().await {
                Ok(version) => {
                    listed();
                    match self.follow(version).await {
                        Ok(()) => self.backoff.wait(),
                        Err(Closed) => return,
                    }
                }
                Err(Stop::Closed) => return,
                Err(Stop::Failed(failure)) if self.is_absent(&failure) => {
                    if self.count_absent().await.is_err() {
                        return;
                    }
                    listed();
                    self.backoff.wait()
                }
                Err(Stop::Failed(failure)) => {
                    self.report("list", &failure);
                    failure.retry_after().unwrap_or_default().max(self.backoff.wait())
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends what is there and withdraws what is not. Gives the version of the list.
    async fn list(&mut self) -> Result<String, Stop> {
        self.metrics.listed(self.kind);
        self.known.begin_list();
        let mut next: Option<String> = None;
        loop {
            let page: Page = self.api.call(request::page(self.kind, next.as_deref())?, self.pace.answer).await?;
            let (after, version) = (page.next().map(str::to_owned), page.version().map(str::to_owned));
            for item in page.items.into_iter().flatten() {
                self.apply(item).await?;
            }
            if after.is_some() {
                next = after;
                continue;
            }
            let version = version.ok_or_else(|| Failure::Nonsense("a list without a version".into()))?;
            for object in self.known.end_list() {
                self.delete(object).await?;
            }
            self.absent = 0;
            self.well();
            return Ok(version);
        }
    }

    /// Follows what changes after `version` for as long as that is possible.
    async fn follow(&mut self, mut version: String) -> Result<(), Closed> {
        let mut failures = 0;
        loop {
            let (started, before) = (Instant::now(), version.clone());
            let end = self.watch(&mut version).await?;
            if version != before || started.elapsed() >= self.pace.watch {
                failures = 0;
                self.backoff.reset();
            }
            match end {
                // One that ends long before its time and has brought nothing is not asked anew at once.
                End::InOrder if version != before || started.elapsed() >= self.pace.watch / 2 => {}
                End::InOrder => tokio::time::sleep(self.backoff.wait()).await,
                End::Lost(reason) => {
                    tracing::info!(kind = self.kind.as_str(), %reason, "cannot follow from here; lists again");
                    return Ok(());
                }
                End::Failed(failure) => {
                    self.report("watch", &failure);
                    failures += 1;
                    if failures > MOST_RESUMES {
                        return Ok(());
                    }
                    tokio::time::sleep(failure.retry_after().unwrap_or_default().max(self.backoff.wait())).await;
                }
            }
        }
    }

    async fn watch(&mut self, version: &mut String) -> Result<End, Closed> {
        let deadline = Instant::now() + self.pace.watch + self.pace.grace;
        let request = match request::watch(self.kind, version, self.pace.watch) {
            Ok(request) => request,
            Err(failure) => return Ok(End::Failed(failure)),
        };
        let mut lines = match self.api.stream(request, self.pace.answer).await {
            Ok(lines) => lines,
            Err(failure) => return Ok(end(failure)),
        };
        self.well();
        let mut silent = true;
        loop {
            let line = match timeout_at(deadline, lines.next()).await {
                Ok(Ok(Some(line))) => line,
                Ok(Err(failure)) => return Ok(end(failure)),
                Err(_) if silent => return Ok(End::Failed(Failure::Silent(self.pace.watch + self.pace.grace))),
                Ok(Ok(None)) | Err(_) => return Ok(End::InOrder),
            };
            silent = false;
            match Change::parse(&line) {
                Ok(Change::Applied(object)) => {
                    request::version(&object).unwrap_or(version).to_owned().clone_into(version);
                    self.apply(object).await?;
                }
                Ok(Change::Deleted(object)) => {
                    request::version(&object).unwrap_or(version).to_owned().clone_into(version);
                    if let Some(object) = self.known.forget(&object) {
                        self.delete(object).await?;
                    }
                }
                Ok(Change::Bookmark(at)) => *version = at,
                Ok(Change::Failed(failure)) => return Ok(end(failure)),
                Err(reason) => return Ok(End::Lost(reason)),
            }
        }
    }

    async fn apply(&mut self, value: Value) -> Result<(), Closed> {
        match self.known.receive(value) {
            Received::Unchanged => Ok(()),
            Received::Changed(object) => {
                self.problems.set(&owner(&object.object_ref()), Vec::new());
                self.send(Event::Apply(object)).await
            }
            Received::Unreadable { object, reason, instead } => {
                self.problems.set(&owner(&object), vec![reason]);
                match instead {
                    Instead::Before => Ok(()),
                    Instead::StandIn(stand_in) => self.send(Event::Apply(stand_in)).await,
                    Instead::Nothing => self.send(Event::Delete(object)).await,
                }
            }
            Received::Nameless => {
                let reason = "an object without a name or namespace is passed over";
                tracing::warn!(kind = self.kind.as_str(), reason);
                Ok(())
            }
        }
    }

    async fn delete(&self, object: ObjectRef) -> Result<(), Closed> {
        self.problems.set(&owner(&object), Vec::new());
        self.send(Event::Delete(object)).await
    }

    async fn send(&self, event: Event) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)
    }
}

/// What the world is told of all this.
impl Reflector {
    /// Whether the cluster does not have the kind: an answer, other than not being allowed to look.
    fn is_absent(&self, failure: &Failure) -> bool {
        failure.status() == Some(StatusCode::NOT_FOUND) && !request::is_built_in(self.kind)
    }

    /// The kind counts as empty. What is known of it is withdrawn when it stays away: an API server that has only just
    /// started may not have read its resource definitions yet.
    async fn count_absent(&mut self) -> Result<(), Closed> {
        self.well();
        self.absent = self.absent.saturating_add(1);
        if self.absent == 1 {
            let resource = request::resource(self.kind);
            tracing::warn!(kind = self.kind.as_str(), "the cluster has no {resource}; none are in force until it does");
        }
        if self.absent >= MOST_ABSENT && !self.known.is_empty() {
            self.known.begin_list();
            for object in self.known.end_list() {
                self.delete(object).await?;
            }
        }
        Ok(())
    }

    fn report(&self, act: &str, failure: &Failure) {
        self.metrics.source_failed(self.kind);
        let resource = request::resource(self.kind);
        let fix = match failure.status() {
            Some(StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => {
                format!(
                    "allow the controller's service account to get, list and watch {resource} (ClusterRole mesh-controller)"
                )
            }
            _ => "what is known stays in force".to_owned(),
        };
        self.problems.set(&format!("{act} {resource}"), vec![format!("{failure}; {fix}")]);
    }

    fn well(&self) {
        let resource = request::resource(self.kind);
        for act in ["list", "watch"] {
            self.problems.set(&format!("{act} {resource}"), Vec::new());
        }
    }
}

/// Under which name the problems of reading an object are kept; those of its meaning are the index's.
fn owner(object: &ObjectRef) -> String {
    format!("{object} (as the API has it)")
}

fn end(failure: Failure) -> End {
    match failure.status() {
        // 410: the version is too old. 404: the kind is gone, and a list finds out.
        Some(StatusCode::GONE | StatusCode::NOT_FOUND) => End::Lost(failure.to_string()),
        _ => End::Failed(failure),
    }
}
