//! Keeps the roots of trust where pods can mount them: a ConfigMap in each namespace with pods of the mesh, and in the
//! mesh's own for the injector (contracts §6).
//!
//! Only who leads writes ([`crate::lease`]), and only where something is different. What is there is asked for from time
//! to time: a deleted or changed one is made good. One in a namespace that needs it no longer stays, and stays true. It
//! does not know what a namespace is to the mesh, nor where roots come from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use k8s_openapi::api::core::v1::ConfigMap;
use mesh_proto::names;
use mesh_runtime::backoff::Backoff;
use tokio::sync::watch;

use crate::{
    api::{Api, Failure, objects},
    lease::Leading,
};

/// Writes under way at once.
const AT_ONCE: usize = 8;
/// Waits after a failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The ConfigMaps of one cluster.
pub struct Bundles {
    api: Api,
    leading: Leading,
    namespaces: watch::Receiver<BTreeSet<Arc<str>>>,
    /// How often it is looked at what is there.
    look: Duration,
}

impl Bundles {
    /// For these namespaces, and the mesh's own.
    pub fn new(api: Api, leading: Leading, namespaces: watch::Receiver<BTreeSet<Arc<str>>>, look: Duration) -> Self {
        Self { api, leading, namespaces, look }
    }

    /// Keeps them like `roots` (PEM), for ever; what cannot be done is told to `problem` (none: all is well).
    pub async fn keep(mut self, mut roots: watch::Receiver<Arc<str>>, problem: impl Fn(Option<String>)) {
        let mut backoff = Backoff::new(FIRST_RETRY.min(self.look), self.look);
        loop {
            if !self.leading.now() {
                problem(None);
                self.leading.wait().await;
            }
            let namespaces = self.namespaces.borrow_and_update().clone();
            let pem = Arc::clone(&roots.borrow_and_update());
            let failed = self.pass(&namespaces, &pem).await.err();
            let ended = failed.is_none();
            problem(failed);
            if !ended {
                tokio::time::sleep(backoff.wait()).await;
                continue;
            }
            backoff.reset();
            tokio::select! {
                () = changed(&mut self.namespaces) => {}
                () = changed(&mut roots) => {}
                () = tokio::time::sleep(self.look) => {}
            }
        }
    }

    async fn pass(&self, namespaces: &BTreeSet<Arc<str>>, pem: &str) -> Result<(), String> {
        let found: Vec<ConfigMap> = self.api.named(names::TRUST_BUNDLE_NAME).await.map_err(|failure| {
            let what = "find those that are there";
            say(what, &failure)
        })?;
        let writes = stream::iter(writes(namespaces, &found, pem)).map(async |write| {
            // Not for longer than it is ours to do.
            if !self.leading.now() {
                return None;
            }
            self.write(&write).await.err().map(|failure| {
                let namespace = write.metadata.namespace.as_deref().unwrap_or_default();
                say(&format!("write the one of the namespace {namespace}"), &failure)
            })
        });
        let failures: Vec<String> = writes.buffer_unordered(AT_ONCE).filter_map(async |failed| failed).collect().await;
        match failures.first() {
            None => Ok(()),
            Some(first) if failures.len() == 1 => Err(first.clone()),
            Some(first) => Err(format!("{first} (and {} more)", failures.len() - 1)),
        }
    }

    async fn write(&self, write: &ConfigMap) -> Result<(), Failure> {
        let done = match write.metadata.resource_version {
            Some(_) => self.api.replace(write).await,
            None => self.api.create(write).await,
        };
        match done {
            Ok(_) => Ok(()),
            // Somebody else wrote it, or it or its namespace is gone: the next look finds out.
            Err(failure) if matches!(failure.status(), Some(StatusCode::CONFLICT | StatusCode::NOT_FOUND)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

/// A sender that is gone changes nothing any more.
async fn changed<T>(value: &mut watch::Receiver<T>) {
    if value.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What must be written: with a version where one is to be replaced.
fn writes(namespaces: &BTreeSet<Arc<str>>, found: &[ConfigMap], pem: &str) -> Vec<ConfigMap> {
    let namespace = |found: &ConfigMap| found.metadata.namespace.clone().unwrap_or_default();
    let there: BTreeMap<String, &ConfigMap> = found.iter().map(|found| (namespace(found), found)).collect();
    let data = BTreeMap::from([(names::TRUST_BUNDLE_KEY.to_owned(), pem.to_owned())]);
    let mut wanted: BTreeSet<String> = namespaces.iter().map(ToString::to_string).collect();
    wanted.insert(names::SYSTEM_NAMESPACE.to_owned());
    wanted.extend(found.iter().filter(|found| is_ours(found)).map(namespace));
    let different = wanted.into_iter().filter_map(|namespace| {
        let found = there.get(&namespace);
        if found.is_some_and(|found| found.data.as_ref() == Some(&data) && is_ours(found)) {
            return None;
        }
        let version = found.and_then(|found| found.metadata.resource_version.as_deref());
        let metadata = objects::metadata(&namespace, names::TRUST_BUNDLE_NAME, version);
        Some(ConfigMap { metadata, data: Some(data.clone()), ..ConfigMap::default() })
    });
    different.collect()
}

fn is_ours(found: &ConfigMap) -> bool {
    let labels = found.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(names::LABEL_PART_OF)).is_some_and(|part_of| part_of == names::PART_OF)
}

fn say(what: &str, failure: &Failure) -> String {
    let fix = match failure.status() {
        Some(StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => {
            "allow the controller's service account to create configmaps and to get, list and update these \
             (ClusterRole mesh-controller)"
        }
        _ => "sidecars that start there meanwhile trust what the injector gave them",
    };
    format!("{what}: {failure}; {fix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(namespace: &str, pem: &str, ours: bool) -> ConfigMap {
        let mut metadata = objects::metadata(namespace, names::TRUST_BUNDLE_NAME, Some("7"));
        metadata.labels = metadata.labels.filter(|_| ours);
        let data = BTreeMap::from([(names::TRUST_BUNDLE_KEY.to_owned(), pem.to_owned())]);
        ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn only_what_is_missing_or_different_is_written() {
        for (namespaces, found, expected) in [
            (&[][..], vec![], vec![("mesh-system", None)]),
            (&["shop"], vec![], vec![("mesh-system", None), ("shop", None)]),
            (&["shop"], vec![bundle("shop", "new", true)], vec![("mesh-system", None)]),
            (&["shop"], vec![bundle("shop", "old", true)], vec![("mesh-system", None), ("shop", Some("7"))]),
            // Whoever made it: pods trust what is in it.
            (&["shop"], vec![bundle("shop", "theirs", false)], vec![("mesh-system", None), ("shop", Some("7"))]),
            // Needed no longer: it stays true. One that is nobody's business is left alone.
            (&[], vec![bundle("old", "old", true)], vec![("mesh-system", None), ("old", Some("7"))]),
            (&[], vec![bundle("other", "theirs", false)], vec![("mesh-system", None)]),
        ] {
            let namespaces = namespaces.iter().map(|namespace| Arc::from(*namespace)).collect();
            let written = writes(&namespaces, &found, "new");
            let written: Vec<(&str, Option<&str>)> = written
                .iter()
                .map(|write| {
                    let metadata = &write.metadata;
                    (metadata.namespace.as_deref().unwrap(), metadata.resource_version.as_deref())
                })
                .collect();
            assert_eq!(written, expected);
        }
    }
}
