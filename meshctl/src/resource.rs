//! `KIND/NAME` as users of kubectl write it, and what it selects. Pure.

use std::str::FromStr;

use crate::{cluster::PodInfo, failure::did_you_mean};

/// What a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Every pod of a namespace.
    Namespace(String),
    /// One pod.
    Pod(String),
    /// The pods of a workload, `kind/name` with the full kind.
    Workload(String),
    /// The pods of every workload of a kind: `deploy`, as in `kubectl get deploy`.
    Kind(&'static str),
    /// Traffic to a Service.
    Service(String),
}

/// Kinds of workloads, with the names they go by, the shortest first.
const WORKLOADS: [(&str, &[&str]); 6] = [
    ("deployment", &["deploy", "deployments", "deployment"]),
    ("statefulset", &["sts", "statefulsets", "statefulset"]),
    ("daemonset", &["ds", "daemonsets", "daemonset"]),
    ("replicaset", &["rs", "replicasets", "replicaset"]),
    ("job", &["job", "jobs"]),
    ("cronjob", &["cj", "cronjobs", "cronjob"]),
];

impl FromStr for Resource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = "write KIND/NAME, e.g. deploy/web, pod/web-1, svc/web or ns/shop";
        let Some((kind, name)) = text.split_once('/') else {
            return if text.is_empty() {
                Err(format!("nothing is named: {hint}"))
            } else {
                let kind = WORKLOADS.iter().find(|(_, names)| names.contains(&text));
                Ok(kind.map_or_else(|| Self::Pod(text.to_owned()), |(full, _)| Self::Kind(full)))
            };
        };
        if name.is_empty() || name.contains('/') {
            return Err(format!("{text:?} has no single name: {hint}"));
        }
        let name = name.to_owned();
        match kind {
            "ns" | "namespace" | "namespaces" => return Ok(Self::Namespace(name)),
            "po" | "pod" | "pods" => return Ok(Self::Pod(name)),
            "svc" | "service" | "services" => return Ok(Self::Service(name)),
            _ => {}
        }
        if let Some((full, _)) = WORKLOADS.iter().find(|(_, names)| names.contains(&kind)) {
            return Ok(Self::Workload(format!("{full}/{name}")));
        }
        let others = ["namespace", "pod", "service"];
        let kinds = WORKLOADS.iter().flat_map(|(_, names)| names.iter().copied()).chain(others);
        Err(match did_you_mean(kind, kinds) {
            Some(meant) => format!("unknown kind {kind:?}, did you mean {meant}/{name}? Otherwise {hint}"),
            None => format!("unknown kind {kind:?}: {hint}"),
        })
    }
}

impl Resource {
    /// Whether a pod belongs to it (no pod belongs to a Service).
    pub(crate) fn selects(&self, pod: &PodInfo) -> bool {
        self.names(&pod.namespace, &pod.name, pod.workload.as_deref())
    }

    /// Whether it names a pod.
    pub(crate) fn names(&self, namespace: &str, pod: &str, workload: Option<&str>) -> bool {
        match self {
            Self::Namespace(name) => name == namespace,
            Self::Pod(name) => name == pod,
            Self::Workload(name) => Some(name.as_str()) == workload,
            Self::Kind(kind) => {
                workload.and_then(|workload| workload.split_once('/')).is_some_and(|(of, _)| of == *kind)
            }
            Self::Service(_) => false,
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace/{name}"),
            Self::Pod(name) => write!(f, "pod/{name}"),
            Self::Workload(name) => f.write_str(name),
            Self::Kind(kind) => f.write_str(kind),
            Self::Service(name) => write!(f, "service/{name}"),
        }
    }
}

/// `deployment/web` as `deploy/web`, for where there is little room; it is read back as the same.
pub(crate) fn short(workload: &str) -> String {
    let known = workload.split_once('/').and_then(|(kind, name)| {
        let (_, names) = WORKLOADS.iter().find(|(full, _)| *full == kind)?;
        Some(format!("{}/{name}", names.first()?))
    });
    known.unwrap_or_else(|| workload.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_selects_the_same() {
        for (text, expected) in [("deployment/web", "deploy/web"), ("statefulset/db", "sts/db"), ("pod/a", "pod/a")] {
            assert_eq!(short(text), expected);
            assert_eq!(short(text).parse::<Resource>(), text.parse());
        }
    }

    #[test]
    fn kubectl_names_are_understood() {
        for (text, expected) in [
            ("deploy/web", Resource::Workload("deployment/web".into())),
            ("sts/db", Resource::Workload("statefulset/db".into())),
            ("po/web-1", Resource::Pod("web-1".into())),
            ("svc/web", Resource::Service("web".into())),
            ("ns/shop", Resource::Namespace("shop".into())),
            ("deploy", Resource::Kind("deployment")),
            ("statefulsets", Resource::Kind("statefulset")),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
        let deployments: Resource = "deploy".parse().unwrap();
        for (workload, is) in [(Some("deployment/web"), true), (Some("deployments/x"), false), (None, false)] {
            assert_eq!(deployments.names("shop", "web-1", workload), is, "{workload:?}");
        }
        assert_eq!("web-1".parse(), Ok(Resource::Pod("web-1".into())));
        for text in ["", "deploy/", "deploy/a/b", "gizmo/web", "/web"] {
            let error = text.parse::<Resource>().unwrap_err();
            assert!(error.contains("deploy/web"), "{error}");
        }
        let typo = "deploymnet/web".parse::<Resource>().unwrap_err();
        assert!(typo.contains("did you mean deployment/web?"), "{typo}");
    }
}
