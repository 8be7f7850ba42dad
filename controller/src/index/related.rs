//! Which objects belong to a key, by name; and which Services may pick which pods. Used by [`super::Facts`] only.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::RandomState},
    hash::{BuildHasher as _, Hash},
};

use super::Name;

/// Which objects belong to a key.
#[derive(Debug)]
pub(super) struct Related<K>(HashMap<K, BTreeSet<Name>>);

impl<K> Default for Related<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Related<K> {
    /// By name.
    pub(super) fn of<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a Name> + use<'a, K> {
        self.0.get(key).into_iter().flatten()
    }

    /// The object belongs to these keys no longer, and to those.
    pub(super) fn update(
        &mut self,
        name: &Name,
        before: impl IntoIterator<Item = K>,
        after: impl IntoIterator<Item = K>,
    ) {
        for key in before {
            if let Some(names) = self.0.get_mut(&key) {
                names.remove(name);
                if names.is_empty() {
                    self.0.remove(&key);
                }
            }
        }
        for key in after {
            self.0.entry(key).or_default().insert(name.clone());
        }
    }
}

/// Services and pods by label, so that nobody looks at every Service for every pod. What it gives are candidates:
/// whoever asks compares whole selectors.
#[derive(Debug, Default)]
pub(super) struct ByLabel {
    /// Hashes instead of texts, which are long: two labels of one hash only make more candidates.
    hasher: RandomState,
    /// Pods, by each of their labels.
    pods: Related<u64>,
    /// Services, by one label of their selector.
    services: Related<u64>,
}

type Labels = BTreeMap<String, String>;

impl ByLabel {
    /// Pods that may have a selector's labels. None for a selector without any.
    pub(super) fn pods<'a>(&'a self, namespace: &str, selector: &Labels) -> impl Iterator<Item = &'a Name> + use<'a> {
        let key = selector.first_key_value().map(|label| self.key(namespace, label));
        key.into_iter().flat_map(|key| self.pods.of(&key))
    }

    /// Services that may pick a pod with these labels, by name.
    pub(super) fn services(&self, namespace: &str, labels: &Labels) -> BTreeSet<&Name> {
        labels.iter().flat_map(|label| self.services.of(&self.key(namespace, label))).collect()
    }

    pub(super) fn update_pod(&mut self, name: &Name, before: Option<&Labels>, after: Option<&Labels>) {
        if before == after {
            return;
        }
        let keys = |labels: Option<&Labels>| -> Vec<u64> {
            labels.into_iter().flatten().map(|label| self.key(&name.namespace, label)).collect()
        };
        let (before, after) = (keys(before), keys(after));
        self.pods.update(name, before, after);
    }

    pub(super) fn update_service(&mut self, name: &Name, before: Option<&Labels>, after: Option<&Labels>) {
        let key = |selector: Option<&Labels>| {
            let label = selector.and_then(BTreeMap::first_key_value);
            label.map(|label| self.key(&name.namespace, label))
        };
        let (before, after) = (key(before), key(after));
        self.services.update(name, before, after);
    }

    fn key(&self, namespace: &str, label: (&String, &String)) -> u64 {
        self.hasher.hash_one((namespace, label))
    }
}
