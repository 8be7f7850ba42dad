//! What to do about a Lease that was found, as a function of what is known of it. Pure.
//!
//! The times that are written in a Lease are other machines' clocks, and are not compared: it is over when it has not
//! changed for its whole duration by the clock of whoever looks, as Kubernetes' own components do it.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use mesh_proto::names;

use crate::api::objects;

/// Longest that somebody else's Lease is believed to last; nobody here writes a longer one.
const LONGEST: Duration = Duration::from_mins(1);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is none: make it.
    Create,
    /// Write that it goes on, or that it is ours from now on.
    Hold,
    /// It is somebody else's.
    Wait,
}

/// Decides for the controller `me`, which has seen no change of the Lease for `unchanged`.
pub(super) fn step(found: Option<&Lease>, me: &str, unchanged: Duration) -> Step {
    let Some(lease) = found else { return Step::Create };
    match holder(lease) {
        Some(holder) if holder != me && unchanged < lasts(lease) => Step::Wait,
        _ => Step::Hold,
    }
}

/// Who has it.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn lasts(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    seconds.map_or(LONGEST, Duration::from_secs).min(LONGEST)
}

/// The Lease as `me` writes it, for so long.
pub(super) fn held(found: Option<&Lease>, me: &str, now: Timestamp, duration: Duration) -> Lease {
    let before = found.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let goes_on = before.holder_identity.as_deref() == Some(me);
    let transitions = before.lease_transitions.unwrap_or_default();
    let seconds = i32::try_from(duration.as_secs().max(1)).unwrap_or(i32::MAX);
    written(
        found,
        LeaseSpec {
            holder_identity: Some(me.to_owned()),
            lease_duration_seconds: Some(seconds),
            acquire_time: before.acquire_time.filter(|_| goes_on).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions.saturating_add(i32::from(found.is_some() && !goes_on))),
            ..LeaseSpec::default()
        },
    )
}

/// The Lease as it is left to whoever comes first.
pub(super) fn released(found: &Lease) -> Lease {
    let before = found.spec.clone().unwrap_or_default();
    written(Some(found), LeaseSpec { holder_identity: None, ..before })
}

fn written(found: Option<&Lease>, spec: LeaseSpec) -> Lease {
    let version = found.and_then(|lease| lease.metadata.resource_version.as_deref());
    let metadata = objects::metadata(names::SYSTEM_NAMESPACE, names::CONTROLLER_NAME, version);
    Lease { metadata, spec: Some(spec) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn of(holder: Option<&str>, seconds: Option<i32>) -> Lease {
        let holder_identity = holder.map(str::to_owned);
        let spec = LeaseSpec { holder_identity, lease_duration_seconds: seconds, ..LeaseSpec::default() };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[test]
    fn a_lease_is_taken_when_nobody_has_it_or_it_has_not_changed_for_its_time() {
        for (found, unchanged, expected) in [
            (None, 0, Step::Create),
            (Some(Lease::default()), 0, Step::Hold),
            (Some(of(None, Some(15))), 0, Step::Hold),
            (Some(of(Some(""), Some(15))), 0, Step::Hold),
            (Some(of(Some("me"), Some(15))), 0, Step::Hold),
            (Some(of(Some("other"), Some(15))), 0, Step::Wait),
            (Some(of(Some("other"), Some(15))), 14, Step::Wait),
            (Some(of(Some("other"), Some(15))), 15, Step::Hold),
            // What makes no sense lasts, and not for ever.
            (Some(of(Some("other"), None)), 59, Step::Wait),
            (Some(of(Some("other"), Some(-1))), 59, Step::Wait),
            (Some(of(Some("other"), Some(0))), 60, Step::Hold),
            (Some(of(Some("other"), Some(i32::MAX))), 60, Step::Hold),
        ] {
            assert_eq!(step(found.as_ref(), "me", Duration::from_secs(unchanged)), expected, "{found:?} {unchanged}");
        }
    }

    #[test]
    fn what_is_written_says_since_when_and_how_often_it_changed_hands() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = held(None, "a", at(1), DURATION).spec.unwrap();
        assert_eq!((first.lease_transitions, first.lease_duration_seconds), (Some(0), Some(15)));
        let lease = Lease { spec: Some(first), ..Lease::default() };
        let renewed = held(Some(&lease), "a", at(2), DURATION).spec.unwrap();
        assert_eq!((renewed.acquire_time, renewed.lease_transitions), (Some(MicroTime(at(1))), Some(0)));
        assert_eq!(renewed.renew_time, Some(MicroTime(at(2))));
        let taken = held(Some(&lease), "b", at(3), DURATION).spec.unwrap();
        assert_eq!((taken.acquire_time, taken.lease_transitions), (Some(MicroTime(at(3))), Some(1)));
        assert_eq!(holder(&released(&lease)), None);
    }
}
