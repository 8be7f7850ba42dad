//! What a proxy may have in force of one destination: what it acknowledged last, and all that was sent since. Pure.
//!
//! [`super::proxies`] keeps one for each destination that a proxy is subscribed to.

use std::{collections::VecDeque, sync::Arc};

use mesh_proto::config::Value;

/// Most values of one that never answers. The oldest is what it has in force, so a newer one makes way.
const MOST: usize = 8;

/// Values by version, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Held(VecDeque<(u64, Arc<Value>)>);

impl Held {
    /// A value is on its way.
    pub(super) fn sent(&mut self, version: u64, value: &Arc<Value>) {
        if self.0.len() == MOST {
            self.0.remove(1);
        }
        self.0.push_back((version, Arc::clone(value)));
    }

    /// A version is in force: what was before it is not any more.
    pub(super) fn acked(&mut self, version: u64) {
        self.0.retain(|(held, _)| *held >= version);
    }

    /// A version never will be.
    pub(super) fn rejected(&mut self, version: u64) {
        self.0.retain(|(held, _)| *held != version);
    }

    /// Every value that it may have in force.
    pub(super) fn values(&self) -> impl Iterator<Item = (u64, &Value)> {
        self.0.iter().map(|(version, value)| (*version, &**value))
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::outbound::OutboundPolicy;

    use super::*;

    enum Step {
        Sent(u64),
        Acked(u64),
        Rejected(u64),
    }
    use Step::{Acked, Rejected, Sent};

    #[test]
    fn a_proxy_may_have_in_force_what_it_acknowledged_last_and_what_was_sent_since() {
        let cases: [(&[Step], &[u64]); 7] = [
            (&[], &[]),
            (&[Sent(1)], &[1]),
            (&[Sent(1), Acked(1), Sent(2), Sent(4)], &[1, 2, 4]),
            (&[Sent(1), Acked(1), Sent(2), Sent(4), Acked(2)], &[2, 4]),
            (&[Sent(1), Acked(1), Sent(2), Rejected(2)], &[1]),
            // It takes the later one without the one before.
            (&[Sent(1), Acked(1), Sent(2), Sent(4), Acked(4)], &[4]),
            (&[Sent(1), Acked(1), Acked(1)], &[1]),
        ];
        for (number, (steps, expected)) in cases.into_iter().enumerate() {
            let mut held = Held::default();
            for step in steps {
                match step {
                    Sent(version) => held.sent(*version, &Arc::new(Value::Outbound(OutboundPolicy::External))),
                    Acked(version) => held.acked(*version),
                    Rejected(version) => held.rejected(*version),
                }
            }
            assert_eq!(held.values().map(|(version, _)| version).collect::<Vec<_>>(), expected, "case {number}");
        }
    }

    #[test]
    fn one_that_never_answers_keeps_what_it_has_and_what_is_newest() {
        let mut held = Held::default();
        for version in 1..100 {
            held.sent(version, &Arc::new(Value::Outbound(OutboundPolicy::External)));
        }
        let versions: Vec<_> = held.values().map(|(version, _)| version).collect();
        assert_eq!((versions.len(), versions[0], versions[MOST - 1]), (MOST, 1, 99));
    }
}
