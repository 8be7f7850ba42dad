//! Names of Kubernetes things that travel between our processes: pods, what owns them, service ports.

use std::{fmt, sync::Arc};

/// Label that a Deployment puts on its ReplicaSets and their pods.
pub const LABEL_TEMPLATE_HASH: &str = "pod-template-hash";

/// A pod, and what owns it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The top-most owner as `kind/name`, e.g. `deployment/web`; none for a bare pod.
    pub workload: Option<Arc<str>>,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a pod belongs to, as `kind/name`, told from its owner alone: an answer that needs no further object, and that is
/// the same for every pod of the workload, so that metrics do not grow with each rollout or run.
///
/// A ReplicaSet is named after its Deployment and the pod's label `pod-template-hash`; a Job that a CronJob made after the
/// CronJob and the minute it was due, counted from 1970.
pub fn of_owner(kind: &str, name: &str, template_hash: Option<&str>) -> String {
    let deployment = || name.strip_suffix(template_hash?)?.strip_suffix('-');
    let cron_job = || name.rsplit_once('-').filter(|(_, due)| is_due_minute(due)).map(|(name, _)| name);
    let (kind, name) = match kind {
        "ReplicaSet" => deployment().map_or((kind, name), |name| ("Deployment", name)),
        "Job" => cron_job().map_or((kind, name), |name| ("CronJob", name)),
        _ => (kind, name),
    };
    format!("{}/{name}", kind.to_ascii_lowercase())
}

/// A minute from 2022 to 2041, counted from 1970. Dates such as 20260101 are less.
fn is_due_minute(text: &str) -> bool {
    text.len() == 8 && text.parse::<u32>().is_ok_and(|minute| (27_350_000..37_870_000).contains(&minute))
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The port of the Service (not the target port).
    pub port: u16,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Protocol {
    /// Not declared: told from the first bytes.
    #[default]
    Detect,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC: HTTP/2 whose errors are trailers.
    Grpc,
    /// Bytes; never looked at.
    Opaque,
    /// TLS of the application; passed through.
    Tls,
}

impl Protocol {
    /// For people and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Http1 => "http/1",
            Self::Http2 => "http/2",
            Self::Grpc => "grpc",
            Self::Opaque => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Whether it was declared to carry requests.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::Grpc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_of_a_workload_names_it_alike() {
        for (kind, name, hash, want) in [
            ("ReplicaSet", "web-v1-6d4cf56db6", Some("6d4cf56db6"), "deployment/web-v1"),
            ("ReplicaSet", "web-v1-6d4cf56db6", None, "replicaset/web-v1-6d4cf56db6"),
            ("ReplicaSet", "web", Some("6d4cf56db6"), "replicaset/web"),
            ("ReplicaSet", "6d4cf56db6", Some("6d4cf56db6"), "replicaset/6d4cf56db6"),
            ("StatefulSet", "db", None, "statefulset/db"),
            ("Job", "backup-29727900", None, "cronjob/backup"),
            ("Job", "backup-20260101", None, "job/backup-20260101"),
            ("Job", "backup-2972790", None, "job/backup-2972790"),
            ("Job", "29727900", None, "job/29727900"),
            ("Rollout", "web", Some("x"), "rollout/web"),
        ] {
            assert_eq!(of_owner(kind, name, hash), want, "{kind}/{name}");
        }
    }
}
