//! The admin pages of several proxies at once: who is asked, what came, and what to do about those that did not answer.
//!
//! A proxy that cannot be read is said by name and makes the command fail in the end; the others are shown all the same.

use futures_util::future::join_all;

use super::{admin, select};
use crate::{
    cluster::{Cluster, PodInfo},
    failure::{Exit, Failure},
    printer::Printer,
    resource::Resource,
};

/// What the selected proxies answered.
pub(crate) struct Pages<T> {
    /// Of each proxy that could be read.
    pub(crate) read: Vec<(PodInfo, T)>,
    /// The first failure of the others.
    failure: Option<Failure>,
}

/// The meshed pods that `resource` selects; an error where there is none.
pub(crate) async fn meshed(
    cluster: &Cluster,
    namespace: Option<&str>,
    resource: Option<&Resource>,
) -> Result<Vec<PodInfo>, Failure> {
    let pods = select(cluster.pods(namespace).await?, resource)?;
    let meshed: Vec<PodInfo> = pods.into_iter().filter(|pod| pod.meshed).collect();
    if meshed.is_empty() {
        return Err(Failure::new(Exit::NotFound, "no meshed pod is selected").fix("meshctl list shows which are"));
    }
    Ok(meshed)
}

/// Asks all of them for `path` and reads each answer.
pub(crate) async fn of<T>(
    cluster: &Cluster,
    pods: Vec<PodInfo>,
    path: &str,
    read: impl Fn(&PodInfo, &str) -> Result<T, Failure>,
    printer: &Printer,
) -> Pages<T> {
    let answers = join_all(pods.iter().map(|pod| admin::get(cluster, pod, path))).await;
    let mut pages = Pages { read: Vec::new(), failure: None };
    for (pod, answer) in pods.into_iter().zip(answers) {
        match answer.and_then(|text| read(&pod, &text)) {
            Ok(page) => pages.read.push((pod, page)),
            Err(failure) => {
                printer.say(format!("warning: pod {}/{}: {}", pod.namespace, pod.name, failure.message));
                pages.failure.get_or_insert(failure);
            }
        }
    }
    pages
}

/// Reads a page of JSON.
pub(crate) fn json<T: serde::de::DeserializeOwned>(path: &str, text: &str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::new(Exit::Bad, format!("the proxy's {path} cannot be read: {error}")))
}

impl<T> Pages<T> {
    /// After all was shown: the failure of the first proxy that could not be read.
    pub(crate) fn done(self) -> Result<(), Failure> {
        self.failure.map_or(Ok(()), Err)
    }
}
