//! What is wrong with the objects, by where it was found: kept for the admin page and the metric, and logged once.
//!
//! Written by sources (mistakes in files) and by the index (objects that make no sense). Bounded by the number of
//! files and objects.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// Longest list kept for one owner: a file with more mistakes than this is not read with more of them listed.
const MOST_PER_OWNER: usize = 20;

/// All that is wrong at the moment.
#[derive(Debug, Clone, Default)]
pub struct Problems(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Problems {
    /// Replaces what is wrong with `owner` (a file, an object). Logs what is new.
    pub fn set(&self, owner: &str, mut reasons: Vec<String>) {
        reasons.truncate(MOST_PER_OWNER);
        let mut all = self.0.lock();
        let before = all.remove(owner).unwrap_or_default();
        for reason in reasons.iter().filter(|reason| !before.contains(reason)) {
            tracing::warn!(%owner, %reason, "object is not in force as written");
        }
        if !reasons.is_empty() {
            all.insert(owner.to_owned(), reasons);
        }
    }

    /// Everything, by owner.
    pub fn list(&self) -> BTreeMap<String, Vec<String>> {
        self.0.lock().clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().values().map(Vec::len).sum()
    }
}
