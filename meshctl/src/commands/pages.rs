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
    unread: Unread,
}

/// Proxies that could not be read: a warning for each, and an error in the end; only that where a single one was asked.
pub(crate) struct Unread {
    asked: usize,
    failures: Vec<(String, Failure)>,
    option: &'static str,
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
    let mut pages = Pages { read: Vec::new(), unread: Unread::of(cluster, pods.len()) };
    for (pod, answer) in pods.into_iter().zip(answers) {
        match answer.and_then(|text| read(&pod, &text)) {
            Ok(page) => pages.read.push((pod, page)),
            Err(failure) => pages.unread.add(&pod.namespace, &pod.name, failure, printer),
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
    /// After all was shown: that it was not all.
    pub(crate) fn done(self) -> Result<(), Failure> {
        self.unread.done()
    }
}

impl Unread {
    /// Of so many that are asked.
    pub(crate) fn of(cluster: &Cluster, asked: usize) -> Self {
        Self { asked, failures: Vec::new(), option: cluster.option() }
    }

    pub(crate) fn add(&mut self, namespace: &str, pod: &str, failure: Failure, printer: &Printer) {
        let name = format!("{namespace}/{pod}");
        if self.asked > 1 {
            printer.warn(format!("pod {name}: {}", failure.message));
        }
        self.failures.push((name, failure));
    }

    /// After all was shown: that it was not all, with the exit code of the first failure.
    pub(crate) fn done(mut self) -> Result<(), Failure> {
        let (missing, asked) = (self.failures.len(), self.asked);
        if missing == 0 {
            return Ok(());
        }
        let (pod, failure) = self.failures.swap_remove(0);
        let message = match asked {
            1 => format!("pod {pod}: {}", failure.message),
            _ => format!("{missing} of {asked} proxies did not answer"),
        };
        let fix = format!("meshctl check{} --proxy -o short says what is wrong there", self.option);
        Err(Failure::new(failure.exit, message).fix(fix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_the_end_with_the_reason_where_only_one_was_asked() {
        let late = || Failure::new(Exit::TimedOut, "timed out").fix("wait");
        let of = |asked| Unread { asked, failures: vec![("shop/web-1".to_owned(), late())], option: " --playground" };
        let fix = "meshctl check --playground --proxy -o short says what is wrong there";
        let of_many = Failure::new(Exit::TimedOut, "1 of 6 proxies did not answer").fix(fix);
        assert_eq!(of(6).done(), Err(of_many));
        assert_eq!(of(1).done(), Err(Failure::new(Exit::TimedOut, "pod shop/web-1: timed out").fix(fix)));
        assert_eq!(Unread { asked: 6, failures: vec![], option: "" }.done(), Ok(()));
    }
}
