//! Join tokens that were used, kept in the state directory until they expire: a restart does not make them new.
//!
//! Called by [`super::token`]. It does not know what a token says.

use std::{collections::HashMap, fmt::Write as _};

use mesh_proto::{outcome::Outcome, server::Refusal};
use parking_lot::Mutex;

use super::store::{Store, StoreError};

/// Most tokens remembered. At one per pod and ten minutes this is more pods than start.
const MOST: usize = 100_000;
/// File of the tokens, one per line: id, and the second since 1970 after which it can be forgotten.
const FILE: &str = "used-join-tokens";
/// Lines about forgotten tokens that the file may have before it is written anew.
const MOST_STALE: usize = 1000;

/// The tokens.
pub(super) struct Used {
    store: Store,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    tokens: HashMap<String, u64>,
    /// Lines of the file.
    lines: usize,
}

impl Used {
    /// Those of before; what has expired by `now` is forgotten.
    pub(super) fn open(store: &Store, now: u64) -> Result<Self, StoreError> {
        let text = store.read(FILE)?.unwrap_or_default();
        let line = |line: &str| {
            let (id, forget_at) = line.split_once(' ')?;
            Some((id.to_owned(), forget_at.parse().ok()?))
        };
        let mut known = Known { tokens: text.lines().filter_map(line).collect(), lines: 0 };
        known.compact(store, now)?;
        Ok(Self { store: store.clone(), known: Mutex::new(known) })
    }

    /// Uses a token up. It is refused where that cannot be written down: it could be used again.
    pub(super) fn insert(&self, id: String, forget_at: u64, now: u64) -> Result<(), Refusal> {
        let mut known = self.known.lock();
        if known.tokens.get(&id).is_some_and(|forget_at| *forget_at >= now) {
            return Err(Refusal::new(Outcome::TokenUsed, "the join token was used before"));
        }
        let kept = if known.tokens.len() >= MOST || known.lines > known.tokens.len().saturating_add(MOST_STALE) {
            known.compact(&self.store, now)
        } else {
            Ok(())
        };
        if known.tokens.len() >= MOST {
            return Err(Refusal::new(Outcome::Overloaded, "too many join tokens within ten minutes"));
        }
        let kept = kept.and_then(|()| self.store.append(FILE, &format!("{id} {forget_at}\n")));
        if let Err(error) = kept {
            // The last line may be half a line.
            known.lines = usize::MAX;
            tracing::error!(%error, "remember a used join token; certificates are refused until it can be");
            return Err(Refusal::new(Outcome::Overloaded, "the controller cannot write its state directory"));
        }
        known.tokens.insert(id, forget_at);
        known.lines += 1;
        Ok(())
    }
}

impl Known {
    /// Forgets what has expired, here and in the file.
    fn compact(&mut self, store: &Store, now: u64) -> Result<(), StoreError> {
        self.tokens.retain(|_, forget_at| *forget_at >= now);
        let mut text = String::new();
        for (id, forget_at) in &self.tokens {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{id} {forget_at}");
        }
        store.replace(FILE, &text)?;
        self.lines = self.tokens.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<(), Refusal>) -> Option<Outcome> {
        result.err().map(|refusal| refusal.outcome)
    }

    #[test]
    fn a_used_token_stays_used_after_a_restart_until_it_expires() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let used = Used::open(&store, 50).unwrap();
        assert_eq!(code(used.insert("a".into(), 100, 50)), None);
        assert_eq!(code(used.insert("b".into(), 200, 50)), None);
        assert_eq!(code(used.insert("a".into(), 100, 60)), Some(Outcome::TokenUsed));
        let used = Used::open(&store, 100).unwrap();
        assert_eq!(code(used.insert("a".into(), 100, 100)), Some(Outcome::TokenUsed));
        let used = Used::open(&store, 101).unwrap();
        assert_eq!(used.known.lock().tokens.len(), 1);
        assert_eq!(code(used.insert("b".into(), 200, 101)), Some(Outcome::TokenUsed));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let tokens = (0..MOST).map(|number| (number.to_string(), 100)).collect();
        let used = Used { store: store.clone(), known: Mutex::new(Known { tokens, lines: MOST }) };
        assert_eq!(code(used.insert("more".into(), 100, 100)), Some(Outcome::Overloaded));
        assert_eq!(code(used.insert("later".into(), 200, 101)), None);
        assert_eq!(used.known.lock().tokens.len(), 1);
        assert_eq!(store.read(FILE).unwrap().unwrap(), "later 200\n");
    }

    #[test]
    fn a_token_that_cannot_be_written_down_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("state")).unwrap();
        let used = Used::open(&store, 50).unwrap();
        std::fs::remove_dir_all(directory.path().join("state")).unwrap();
        assert_eq!(code(used.insert("a".into(), 100, 50)), Some(Outcome::Overloaded));
        Store::open(directory.path().join("state")).unwrap();
        assert_eq!(code(used.insert("a".into(), 100, 50)), None);
    }
}
