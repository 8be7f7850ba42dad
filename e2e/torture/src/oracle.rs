//! The judge of what came through: every request has a number and a body made from it, every answer too, and the backend
//! remembers what it really saw.
//!
//! A request is good if it was answered with success by the application that saw it, once, whole, and nobody else's answer came
//! back. The sides are [`backend`], the application, and [`client`]; [`crate::load`] asks many times.

pub(crate) mod backend;
pub(crate) mod client;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

/// The number of a request, both ways.
pub(crate) const NUMBER: &str = "x-torture-number";
/// How many bytes the answer is to have.
pub(crate) const SIZE: &str = "x-torture-size";
/// What the backend saw of the body.
pub(crate) const SEEN: &str = "x-torture-seen";
/// Which pod answers.
pub(crate) const POD: &str = "x-torture-pod";
/// Most requests without a number that are remembered.
const STRANGERS: usize = 100;

/// Shared by all backends and clients of a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Oracle(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: AtomicU64,
    seen: Mutex<HashMap<u64, u32>>,
    strangers: Mutex<Vec<String>>,
}

impl Oracle {
    /// A number that no request has yet.
    pub(crate) fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A backend has a request with this number, or none, whole.
    pub(crate) fn saw(&self, number: Option<u64>, what: impl FnOnce() -> String) {
        if let Some(number) = number {
            *self.0.seen.lock().entry(number).or_default() += 1;
            return;
        }
        let mut strangers = self.0.strangers.lock();
        if strangers.len() < STRANGERS {
            strangers.push(what());
        }
    }

    /// How often a backend saw this number.
    pub(crate) fn times(&self, number: u64) -> u32 {
        self.0.seen.lock().get(&number).copied().unwrap_or_default()
    }

    /// Numbers that were seen more than once.
    pub(crate) fn repeated(&self) -> usize {
        self.0.seen.lock().values().filter(|times| **times > 1).count()
    }

    /// Requests that no client of ours sent.
    pub(crate) fn strangers(&self) -> Vec<String> {
        self.0.strangers.lock().clone()
    }
}

/// The body that belongs to a number.
pub(crate) fn body(number: u64, length: usize) -> Bytes {
    let word = |position: u64| mix(number ^ position.rotate_left(32)).to_le_bytes();
    let mut bytes: Vec<u8> = (0..length.div_ceil(8) as u64).flat_map(word).collect();
    bytes.truncate(length);
    bytes.into()
}

/// A bijection that leaves no pattern (splitmix64's finalizer).
pub(crate) fn mix(word: u64) -> u64 {
    let mut mixed = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// FNV-1a over words of eight bytes: changed, lost and moved bytes show.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let word = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    let step = |hash: u64, chunk| mix((hash ^ word(chunk)).wrapping_mul(0x0000_0100_0000_01b3));
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_another_for_another_number_and_a_change_in_it_shows() {
        for length in [0, 1, 7, 8, 9, 1000] {
            assert_eq!(body(1, length).len(), length);
            assert_eq!(hash(&body(1, length)), hash(&body(1, length)));
            if length > 0 {
                assert_ne!(hash(&body(1, length)), hash(&body(2, length)), "{length}");
                let mut changed = body(1, length).to_vec();
                changed[length - 1] ^= 1;
                assert_ne!(hash(&body(1, length)), hash(&changed), "{length}");
            }
        }
        assert_ne!(hash(b"a"), hash(b"a\0"));
    }

    #[test]
    fn what_is_seen_twice_or_was_never_sent_is_told() {
        let oracle = Oracle::default();
        let number = oracle.number();
        oracle.saw(Some(number), String::new);
        assert_eq!((oracle.times(number), oracle.repeated()), (1, 0));
        oracle.saw(Some(number), String::new);
        oracle.saw(None, || "GET /smuggled".into());
        assert_eq!((oracle.repeated(), oracle.strangers()), (1, vec!["GET /smuggled".to_owned()]));
    }
}
