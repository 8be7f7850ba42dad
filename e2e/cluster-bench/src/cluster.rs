//! The API server as the measurements use it: objects as JSON, each request with a deadline, many at a time.
//!
//! Knows no kind and nothing of the mesh.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::{AsyncBufReadExt as _, Stream, StreamExt as _, TryStreamExt as _, stream};
use http::{Request, header};
use kube::{Client, core::WatchEvent};
use serde_json::Value;
use tokio::time::timeout;

/// Longest for one answer: an API server gives up after a minute itself.
const ANSWER: Duration = Duration::from_secs(90);
/// Longest for anything to come about, on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(4);
/// Between two looks at what nobody announces.
const PAUSE: Duration = Duration::from_millis(100);
/// Requests at a time where only the end is of interest.
pub(crate) const WIDE: usize = 16;

/// The cluster of `KUBECONFIG`.
#[derive(Clone)]
pub(crate) struct Cluster(Client);

impl Cluster {
    /// Makes no connection yet.
    pub(crate) async fn open() -> anyhow::Result<Self> {
        Ok(Self(Client::try_default().await.context("find the cluster; is KUBECONFIG set?")?))
    }

    /// An object, or a list.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, None).await
    }

    /// What is no object: metrics, a page of a pod.
    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let asked = timeout(ANSWER, self.0.request_text(request("GET", path, None)?)).await;
        asked.with_context(|| format!("GET {path}: no answer in {ANSWER:?}"))?.with_context(|| format!("GET {path}"))
    }

    /// Creates it and returns it as it was stored, or would be.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        self.ask("POST", path, Some(object)).await
    }

    /// Merges it into what is there.
    pub(crate) async fn patch(&self, path: &str, change: &Value) -> anyhow::Result<Value> {
        self.ask("PATCH", path, Some(change)).await
    }

    /// Deletes an object, or what a list lists. That it is not there is no error.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        match self.ask("DELETE", path, None).await {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether it is there.
    pub(crate) async fn has(&self, path: &str) -> anyhow::Result<bool> {
        match self.get(path).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The lines of an answer that goes on: a log that is followed.
    pub(crate) async fn lines(&self, path: &str) -> anyhow::Result<impl Stream<Item = anyhow::Result<String>> + use<>> {
        let lines = self.0.request_stream(request("GET", path, None)?).await.with_context(|| format!("GET {path}"))?;
        Ok(lines.lines().map_err(anyhow::Error::from))
    }

    /// Every object that a watch tells of until one of them is as wanted.
    pub(crate) async fn watch_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let watch = async {
            let events = self.0.request_events::<Value>(request("GET", path, None)?).await?;
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event? {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) if wanted(&object) => return Ok(()),
                    WatchEvent::Error(status) => anyhow::bail!("{}", status.message),
                    _ => {}
                }
            }
            anyhow::bail!("the watch has ended")
        };
        let watched = timeout(DEADLINE, watch).await.with_context(|| format!("not within {DEADLINE:?}"));
        watched.and_then(|watched| watched).with_context(|| format!("watch {path}"))
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let asked = timeout(ANSWER, self.0.request(request(method, path, body)?)).await;
        let what = || format!("{method} {path}");
        asked.with_context(|| format!("{}: no answer in {ANSWER:?}", what()))?.with_context(what)
    }
}

fn request(method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Request<Vec<u8>>> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
    Ok(Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, kind).body(body)?)
}

fn is_absent(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404)
}

/// Does `each` with everything, so many at a time, until one fails.
pub(crate) async fn all<T, F: Future<Output = anyhow::Result<()>>>(
    things: impl IntoIterator<Item = T>,
    width: usize,
    each: impl FnMut(T) -> F,
) -> anyhow::Result<()> {
    stream::iter(things).map(Ok).try_for_each_concurrent(width, each).await
}

/// Looks until there is something to see.
pub(crate) async fn until<T, F: Future<Output = anyhow::Result<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match look().await {
            Ok(seen) => return Ok(seen),
            Err(error) if tokio::time::Instant::now() > deadline => {
                return Err(error.context(format!("{what}: not within {DEADLINE:?}")));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
