//! Namespaces with pods of the mesh, or that ask for them: where roots of trust are kept for pods to mount.
//!
//! Called by [`super`] for each namespace of which something was touched. It does not know who listens.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

use crate::index::Facts;

/// The namespaces.
pub(super) struct Meshed(watch::Sender<BTreeSet<Arc<str>>>);

impl Meshed {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(BTreeSet::new()))
    }

    pub(super) fn listen(&self) -> watch::Receiver<BTreeSet<Arc<str>>> {
        self.0.subscribe()
    }

    /// Takes in that something about these may have changed.
    pub(super) fn touched(&self, facts: &Facts, namespaces: &BTreeSet<&Arc<str>>) {
        let known = |namespace: &Arc<str>| self.0.borrow().contains(namespace);
        let different = namespaces.iter().filter(|namespace| is_meshed(facts, namespace) != known(namespace));
        let different: Vec<Arc<str>> = different.map(|namespace| Arc::clone(namespace)).collect();
        if different.is_empty() {
            return;
        }
        self.0.send_modify(|all| {
            for namespace in different {
                if !all.remove(&namespace) {
                    all.insert(namespace);
                }
            }
        });
    }
}

/// A namespace that is on its way out takes no object any more.
fn is_meshed(facts: &Facts, name: &str) -> bool {
    let namespace = facts.namespace(name);
    let (asks, ending) = namespace.map_or((false, false), |namespace| (namespace.asks, namespace.ending));
    !ending && (asks || facts.pods_in(name).any(|pod| pod.meshed.is_some()))
}
