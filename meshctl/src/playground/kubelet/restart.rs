//! Whether and when a container that has ended is started again. Pure; [`super::container`] does it.

use std::{fmt, time::Duration};

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::playground::processes::Ended;

/// Waiting before the first restart; doubles with each, up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// A process that lived so long starts over at the first backoff.
const HEALTHY: Duration = Duration::from_mins(1);

/// After which ends a container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Always,
    OnFailure,
    Never,
}

/// Why a container's process is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It ended.
    Ended(Ended),
    /// A probe failed too often, and it was ended.
    Unhealthy(String),
    /// It was never there.
    NotStarted(String),
}

impl Policy {
    /// Of a container after the init containers.
    pub(super) fn of_container(pod: &PodSpec) -> Self {
        match pod.restart_policy.as_deref() {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Of an init container: a native sidecar always, another one until it has succeeded once.
    pub(super) fn of_init_container(pod: &PodSpec, container: &Container) -> Self {
        match (is_sidecar(container), Self::of_container(pod)) {
            (true, _) => Self::Always,
            (false, Self::Always | Self::OnFailure) => Self::OnFailure,
            (false, Self::Never) => Self::Never,
        }
    }

    pub(super) fn starts_again_after(self, end: &End) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => !end.is_success(),
            Self::Never => false,
        }
    }
}

/// An init container that stays (KEP-753).
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

impl End {
    pub(super) fn is_success(&self) -> bool {
        *self == Self::Ended(Ended::Exited(0))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(ended) => ended.fmt(f),
            Self::Unhealthy(reason) => write!(f, "was ended: {reason}"),
            Self::NotStarted(reason) => f.write_str(reason),
        }
    }
}

/// Longer and longer.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    restarts: u32,
}

impl Backoff {
    /// How long to wait after a process that lived for `lived`.
    pub(super) fn after(&mut self, lived: Duration) -> Duration {
        if lived > HEALTHY {
            self.restarts = 0;
        }
        let wait = FIRST_BACKOFF.saturating_mul(1 << self.restarts.min(6)).min(LONGEST_BACKOFF);
        self.restarts += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;
    use serde_json::json;

    use super::*;

    #[test]
    fn restarts_wait_longer_and_longer_up_to_a_limit_and_start_over_after_a_healthy_life() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(backoff.after(HEALTHY * 2), FIRST_BACKOFF);
    }

    #[test]
    fn the_pod_s_policy_says_after_which_ends_a_container_is_started_again() {
        let ends = || {
            [
                End::Ended(Ended::Exited(0)),
                End::Ended(Ended::Exited(1)),
                End::Ended(Ended::Killed(Signal::SIGKILL)),
                End::Unhealthy("probe".to_owned()),
                End::NotStarted("no such file".to_owned()),
            ]
        };
        let once: Container = serde_json::from_value(json!({"name": "once"})).unwrap();
        let stays: Container = serde_json::from_value(json!({"name": "stays", "restartPolicy": "Always"})).unwrap();
        for (policy, container, init, sidecar) in [
            (None, [true; 5], [false, true, true, true, true], [true; 5]),
            (Some("Always"), [true; 5], [false, true, true, true, true], [true; 5]),
            (Some("OnFailure"), [false, true, true, true, true], [false, true, true, true, true], [true; 5]),
            (Some("Never"), [false; 5], [false; 5], [true; 5]),
        ] {
            let pod: PodSpec = serde_json::from_value(json!({"containers": [], "restartPolicy": policy})).unwrap();
            let again = |policy: Policy| ends().map(|end| policy.starts_again_after(&end));
            assert_eq!(again(Policy::of_container(&pod)), container, "{policy:?}");
            assert_eq!(again(Policy::of_init_container(&pod, &once)), init, "{policy:?}");
            assert_eq!(again(Policy::of_init_container(&pod, &stays)), sidecar, "{policy:?}");
        }
    }
}
