//! The table of connected proxies: which version of what each one runs. Written by [`super::config`], shown on the
//! admin page for `meshctl diagnostics proxies`, and asked who still sends to a pod that drains.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

use mesh_proto::config::{Key, Value};
use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::held::Held;
use crate::{compile::Offers, index::Name, publish::Published};

/// Most streams of one pod: its proxy, and what is left of connections that broke without a word.
const MOST_PER_POD: usize = 4;
/// Longest reason of a reject that is kept: the text is foreign.
const LONGEST_REASON: usize = 512;

/// The table. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Arc<Mutex<BTreeMap<u64, Entry>>>);

#[derive(Debug)]
struct Entry {
    proxy: Proxy,
    /// By destination.
    held: HashMap<Key, Held>,
    replaced: CancellationToken,
}

/// One connected proxy.
#[derive(Debug, Clone, Serialize)]
pub struct Proxy {
    /// Namespace and name of its pod.
    pub pod: String,
    /// Uid of its pod.
    pub uid: String,
    /// What it proved to be.
    pub identity: String,
    /// Where it connects from.
    pub address: SocketAddr,
    /// Its release.
    pub version: String,
    /// Since when it is connected.
    #[serde(rename = "connectedSeconds", serialize_with = "age")]
    pub connected_at: SystemTime,
    /// Whether it has begun to drain.
    pub draining: bool,
    /// What it is subscribed to.
    pub keys: BTreeMap<String, KeyState>,
}

/// Where a proxy is with one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KeyState {
    /// Version sent last.
    pub sent: Option<u64>,
    /// Version in force.
    pub acked: Option<u64>,
    /// Version that it could not use, and why.
    pub rejected: Option<Rejected>,
}

/// An update that a proxy could not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its version.
    pub version: u64,
    /// Why, as the proxy says.
    pub reason: String,
}

/// A row, removed when this is dropped.
#[derive(Debug)]
pub struct Row {
    proxies: Proxies,
    number: u64,
    uid: String,
    replaced: CancellationToken,
}

impl Proxies {
    /// Adds a row; none where there are `most` already. The oldest of too many rows of one pod is to make way.
    pub fn add(&self, proxy: Proxy, most: usize) -> Option<Row> {
        let mut all = self.0.lock();
        if all.len() >= most {
            return None;
        }
        let own = |entry: &&Entry| entry.proxy.uid == proxy.uid && !entry.replaced.is_cancelled();
        if all.values().filter(own).count() >= MOST_PER_POD
            && let Some(oldest) = all.values().find(own)
        {
            oldest.replaced.cancel();
        }
        let number = all.last_key_value().map_or(0, |(number, _)| number + 1);
        let (replaced, uid) = (CancellationToken::new(), proxy.uid.clone());
        all.insert(number, Entry { proxy, held: HashMap::new(), replaced: replaced.clone() });
        drop(all);
        Some(Row { proxies: self.clone(), number, uid, replaced })
    }

    /// Every row.
    pub fn list(&self) -> Vec<Proxy> {
        self.0.lock().values().map(|entry| entry.proxy.clone()).collect()
    }

    /// How many pods still send to `pod`, as far as their newest streams have acknowledged; itself does not count.
    pub fn holding(&self, pod: &Name, uid: &str, offers: &Offers) -> usize {
        // A value has one version, whoever has it; and many have the same.
        let mut known: HashMap<u64, bool> = HashMap::new();
        let mut sends = |version, value: &Value| *known.entry(version).or_insert_with(|| offers.are_in(value, pod));
        let all = self.0.lock();
        let mut pods: HashMap<&str, bool> = HashMap::new();
        // The newest come last: what is left of a broken connection acknowledges nothing any more.
        for entry in all.values().filter(|entry| entry.proxy.uid != uid) {
            let sends = entry.held.values().flat_map(Held::values).any(|(version, value)| sends(version, value));
            pods.insert(&entry.proxy.uid, sends);
        }
        pods.values().filter(|sends| **sends).count()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().len()
    }
}

impl Row {
    /// When newer streams of the same pod need its place.
    pub fn replaced(&self) -> WaitForCancellationFutureOwned {
        self.replaced.clone().cancelled_owned()
    }

    /// Uid of its pod.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The proxy drains.
    pub fn draining(&self) {
        self.change(|proxy| proxy.draining = true);
    }

    /// The proxy is subscribed to a key.
    pub fn subscribed(&self, key: Key) {
        self.change(|proxy| {
            proxy.keys.entry(text(key)).or_default();
        });
    }

    /// The proxy is no longer subscribed to a key.
    pub fn unsubscribed(&self, key: Key) {
        self.entry(|entry| {
            entry.proxy.keys.remove(&text(key));
            entry.held.remove(&key);
        });
    }

    /// A value went out, of a key that is subscribed.
    pub fn sent(&self, key: Key, sent: &Published) {
        self.key(key, |state, held| {
            state.sent = Some(sent.version);
            if let Key::Outbound(_) = key {
                held.sent(sent.version, &sent.value);
            }
        });
    }

    /// A version is in force.
    pub fn acked(&self, key: Key, version: u64) {
        self.key(key, |state, held| {
            held.acked(version);
            state.acked = Some(version);
            // A later good version ends the complaint.
            state.rejected = state.rejected.take().filter(|rejected| rejected.version > version);
        });
    }

    /// A version could not be used.
    pub fn rejected(&self, key: Key, version: u64, reason: &str) {
        let reason = reason.chars().take(LONGEST_REASON).collect();
        self.key(key, |state, held| {
            held.rejected(version);
            state.rejected = Some(Rejected { version, reason });
        });
    }

    fn key(&self, key: Key, change: impl FnOnce(&mut KeyState, &mut Held)) {
        // A message about a key that is not subscribed (any more) leaves no trace: the table stays bounded.
        self.entry(|entry| {
            if let Some(state) = entry.proxy.keys.get_mut(&text(key)) {
                change(state, entry.held.entry(key).or_default());
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Proxy)) {
        self.entry(|entry| change(&mut entry.proxy));
    }

    fn entry(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.proxies.0.lock().get_mut(&self.number) {
            change(entry);
        }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        self.proxies.0.lock().remove(&self.number);
    }
}

/// As an age, so that no two clocks are compared.
fn age<S: serde::Serializer>(since: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(since.elapsed().unwrap_or_default().as_secs())
}

fn text(key: Key) -> String {
    match key {
        Key::Inbound => "inbound".into(),
        Key::Outbound(address) => format!("outbound {address}"),
        Key::TrustBundle => "trust-bundle".into(),
    }
}
