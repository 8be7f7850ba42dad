//! Every setting that an annotation can give, once: name, values, default, what a wrong value means, where it goes.
//!
//! `settings` validates and suggests by it, `sidecar` makes the environment from it, `docs/annotations.md` is written from
//! it. A setting has a row here only if something acts on it.

use mesh_proto::{
    inbound::DefaultPolicy,
    names,
    ports::{PortSet, Subnets},
};

use super::values;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The annotation.
    pub annotation: &'static str,
    /// A value that may be written.
    pub example: &'static str,
    /// What may be written, for people.
    pub values: &'static str,
    /// What holds where nothing is written, for people.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What a value that is none of `values` means.
    pub on_mistake: OnMistake,
    /// Who acts on it.
    pub target: Target,
    /// The value as it is passed on, or what is wrong with it; fits behind a colon.
    pub check: fn(&str) -> Result<String, String>,
}

/// What a wrong value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMistake {
    /// It counts as not written: what is farther away holds, or the default.
    Ignored,
    /// The strictest value holds (said here), whatever is farther away: a slip of the pen must not open anything.
    Strict(&'static str),
}

/// Who acts on a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The proxy, by this environment variable.
    Proxy(&'static str),
    /// Proxy and redirect, by this environment variable.
    ProxyAndRedirect(&'static str),
    /// The controller, which finds this environment variable in the pod's spec.
    Sidecar(&'static str),
    /// The controller, which reads the annotations of pod and namespace itself.
    Controller,
    /// The kubelet: it is part of the containers that are added.
    Containers,
}

impl Target {
    /// The environment variable of the sidecar that carries it.
    pub fn env(self) -> Option<&'static str> {
        match self {
            Self::Proxy(env) | Self::ProxyAndRedirect(env) | Self::Sidecar(env) => Some(env),
            Self::Controller | Self::Containers => None,
        }
    }
}

impl OnMistake {
    /// What holds then, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Ignored => "it is ignored",
            Self::Strict(strictest) => strictest,
        }
    }
}

/// All of them, in the order of the documentation.
pub const SETTINGS: &[Setting] = &[
    Setting {
        annotation: names::ANNOTATION_DEFAULT_POLICY,
        example: "authenticated",
        values: "`allow`, `authenticated`, `same-namespace`, `deny` or `audit`",
        default: "the mesh's, `allow` unless installed otherwise",
        doc: "Who may connect to a port that no AuthorizationPolicy selects. `audit` lets everyone in and counts whom \
              `authenticated` would refuse.",
        on_mistake: OnMistake::Strict("deny holds"),
        target: Target::Controller,
        check: |text| values::one_of(text, &DefaultPolicy::ALL.map(DefaultPolicy::as_str)),
    },
    Setting {
        annotation: names::ANNOTATION_SKIP_INBOUND_PORTS,
        example: "9100,3000-3010",
        values: "ports and ranges, `25,3000-3010`",
        default: "none",
        doc: "Inbound ports that are not redirected: they are outside the mesh, without identity, policy and metrics.",
        on_mistake: OnMistake::Strict("no port is skipped"),
        target: Target::ProxyAndRedirect(names::ENV_SKIP_INBOUND_PORTS),
        check: values::list::<PortSet>,
    },
    Setting {
        annotation: names::ANNOTATION_SKIP_OUTBOUND_PORTS,
        example: "5432",
        values: "ports and ranges, `25,3000-3010`",
        default: "none",
        doc: "Ports of destinations to which connections are not redirected: they leave the pod as the application \
              makes them.",
        on_mistake: OnMistake::Strict("no port is skipped"),
        target: Target::ProxyAndRedirect(names::ENV_SKIP_OUTBOUND_PORTS),
        check: values::list::<PortSet>,
    },
    Setting {
        annotation: names::ANNOTATION_SKIP_SUBNETS,
        example: "169.254.169.254,10.0.0.0/8",
        values: "networks and addresses, `10.0.0.0/8,fd00::/8`",
        default: "none",
        doc: "Destinations to which connections are not redirected.",
        on_mistake: OnMistake::Strict("no network is skipped"),
        target: Target::ProxyAndRedirect(names::ENV_SKIP_SUBNETS),
        check: values::list::<Subnets>,
    },
    Setting {
        annotation: names::ANNOTATION_OPAQUE_PORTS,
        example: "4444",
        values: "ports and ranges, `25,3000-3010`",
        default: "the ports of protocols in which the server speaks first: 25, 587, 3306, 4444, 5432, 6379, 9300, 11211",
        doc: "Ports of this pod that carry bytes the mesh must not look into. They have mutual TLS and policy by \
              connection, no requests. Added to the default.",
        on_mistake: OnMistake::Strict("no further port is opaque"),
        target: Target::Sidecar(names::ENV_OPAQUE_PORTS),
        check: values::list::<PortSet>,
    },
    Setting {
        annotation: names::ANNOTATION_UNRESOLVED,
        example: "pass-through",
        values: "`refuse` or `pass-through`",
        default: "`refuse`",
        doc: "What happens to a destination that was never resolved while the controller is away. `pass-through` lets it \
              go in the clear, past identity and policy.",
        on_mistake: OnMistake::Strict("refuse holds"),
        target: Target::Proxy(names::ENV_UNRESOLVED),
        check: |text| values::one_of(text, &["refuse", "pass-through"]),
    },
    Setting {
        annotation: names::ANNOTATION_CONNECT_TIMEOUT,
        example: "500ms",
        values: "`1ms` to `60s`",
        default: "`1s`",
        doc: "How long a TCP connect to an endpoint may take before another is tried.",
        on_mistake: OnMistake::Ignored,
        target: Target::Proxy(names::ENV_CONNECT_TIMEOUT_MS),
        check: values::milliseconds,
    },
    Setting {
        annotation: names::ANNOTATION_DRAIN_SECONDS,
        example: "50",
        values: "`0` to `3600`",
        default: "five sixths of `terminationGracePeriodSeconds`, so `25`",
        doc: "How long the proxy goes on serving when the pod ends. Less than `terminationGracePeriodSeconds`, at the end \
              of which the kubelet kills everything.",
        on_mistake: OnMistake::Ignored,
        target: Target::Proxy(names::ENV_DRAIN_SECONDS),
        check: |text| values::whole(text, 0, 3600),
    },
    Setting {
        annotation: names::ANNOTATION_LOG_LEVEL,
        example: "warn,mesh_proxy=debug",
        values: "a level, or levels by module: `warn,mesh_proxy=debug`",
        default: "the mesh's, `info` unless installed otherwise",
        doc: "What the proxy logs.",
        on_mistake: OnMistake::Ignored,
        target: Target::Proxy(names::ENV_LOG),
        check: values::log_filter,
    },
    Setting {
        annotation: names::ANNOTATION_LOG_FORMAT,
        example: "json",
        values: "`plain` or `json`",
        default: "`plain`",
        doc: "How a line of the proxy's log is written.",
        on_mistake: OnMistake::Ignored,
        target: Target::Proxy(names::ENV_LOG_FORMAT),
        check: |text| values::one_of(text, &["plain", "json"]),
    },
    Setting {
        annotation: names::ANNOTATION_ACCESS_LOG,
        example: "json",
        values: "`off` or `json`",
        default: "`off`",
        doc: "`json`: the proxy writes one line for each finished request or connection, without headers and query.",
        on_mistake: OnMistake::Ignored,
        target: Target::Proxy(names::ENV_ACCESS_LOG),
        check: |text| values::one_of(text, &["off", "json"]),
    },
    Setting {
        annotation: names::ANNOTATION_TRACE_ENDPOINT,
        example: "http://collector.observability:4317",
        values: "`http://host:port`",
        default: "none: no traces",
        doc: "The collector that the proxy sends spans to, OTLP over gRPC.",
        on_mistake: OnMistake::Ignored,
        target: Target::Proxy(names::ENV_TRACE_ENDPOINT),
        check: values::endpoint,
    },
    Setting {
        annotation: names::ANNOTATION_TRACE_SAMPLE,
        example: "0.01",
        values: "`0` to `1`",
        default: "`0.1`",
        doc: "The share of the traces beginning at this proxy that is kept; a trace that comes in keeps its own decision.",
        on_mistake: OnMistake::Ignored,
        target: Target::Proxy(names::ENV_TRACE_SAMPLE),
        check: values::share,
    },
    Setting {
        annotation: names::ANNOTATION_PROXY_IMAGE,
        example: "registry.example/mesh-proxy:1.0",
        values: "an image reference",
        default: "the mesh's",
        doc: "Image of proxy and redirect, to try another version with one pod.",
        on_mistake: OnMistake::Ignored,
        target: Target::Containers,
        check: values::image,
    },
    Setting {
        annotation: names::ANNOTATION_PROXY_PULL_POLICY,
        example: "Always",
        values: "`Always`, `IfNotPresent` or `Never`",
        default: "the mesh's, `IfNotPresent`",
        doc: "`imagePullPolicy` of proxy and redirect.",
        on_mistake: OnMistake::Ignored,
        target: Target::Containers,
        check: |text| values::one_of(text, &["Always", "IfNotPresent", "Never"]),
    },
    Setting {
        annotation: names::ANNOTATION_PROXY_WORKERS,
        example: "2",
        values: "`1` to `64`",
        default: "`1`",
        doc: "Threads that carry traffic; for a pod whose traffic needs more than one core.",
        on_mistake: OnMistake::Ignored,
        target: Target::Proxy(names::ENV_WORKERS),
        check: |text| values::whole(text, 1, 64),
    },
    Setting {
        annotation: names::ANNOTATION_PROXY_CPU_REQUEST,
        example: "100m",
        values: "a quantity, `100m`",
        default: "`10m`",
        doc: "CPU that the sidecar requests.",
        on_mistake: OnMistake::Ignored,
        target: Target::Containers,
        check: values::cpu,
    },
    Setting {
        annotation: names::ANNOTATION_PROXY_CPU_LIMIT,
        example: "2",
        values: "a quantity, `2`",
        default: "none: a throttled proxy is latency for everybody behind it",
        doc: "Most CPU of the sidecar.",
        on_mistake: OnMistake::Ignored,
        target: Target::Containers,
        check: values::cpu,
    },
    Setting {
        annotation: names::ANNOTATION_PROXY_MEMORY_REQUEST,
        example: "64Mi",
        values: "a quantity, `64Mi`",
        default: "`24Mi`",
        doc: "Memory that the sidecar requests.",
        on_mistake: OnMistake::Ignored,
        target: Target::Containers,
        check: values::memory,
    },
    Setting {
        annotation: names::ANNOTATION_PROXY_MEMORY_LIMIT,
        example: "512Mi",
        values: "a quantity, `256Mi`",
        default: "`256Mi`, or the request where that is more",
        doc: "Most memory of the sidecar; beyond it the kubelet restarts it.",
        on_mistake: OnMistake::Ignored,
        target: Target::Containers,
        check: values::memory,
    },
];

/// The setting of this annotation.
pub fn find(annotation: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.annotation == annotation)
}

/// What is known to be like `wanted`, if anything is: a slip of a few letters, or the beginning of a name.
pub fn like<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: String = wanted.chars().take(MAX_NAME).collect::<String>().to_lowercase();
    let near = |known: &'a str| {
        let slips = strsim::osa_distance(&wanted, &known.to_lowercase());
        let begins = wanted.len() >= 4 && known.starts_with(wanted.as_str());
        let most = if known.len() < 8 { 2 } else { 3 };
        (begins || slips <= most).then_some((slips, known))
    };
    known.into_iter().filter_map(near).min().map(|(_, known)| known)
}

/// No name of ours is longer; the rest of a foreign one need not be looked at.
const MAX_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_setting_has_one_name_under_our_prefix_and_a_whole_row() {
        let annotations: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.annotation).collect();
        assert_eq!(annotations.len(), SETTINGS.len());
        let variables: Vec<_> = SETTINGS.iter().filter_map(|setting| setting.target.env()).collect();
        assert_eq!(variables.iter().collect::<BTreeSet<_>>().len(), variables.len());
        for setting in SETTINGS {
            assert!(setting.annotation.starts_with("meshctl.dev/") && setting.annotation.len() <= MAX_NAME);
            for text in [setting.values, setting.default, setting.doc] {
                assert!(!text.is_empty() && !text.contains('\n') && !text.contains("  "), "{}", setting.annotation);
            }
            assert!((setting.check)(setting.example).is_ok(), "{}", setting.annotation);
            for wrong in ["", " ", "\u{0}", "not, this!", "$(SECRET)", &"!".repeat(400)] {
                assert!(
                    (setting.check)(wrong).map_or_else(|problem| problem.len() < 400, |text| text.is_empty()),
                    "{wrong:?}"
                );
            }
        }
    }

    #[test]
    fn a_slip_finds_the_name_that_was_meant_and_a_stranger_finds_none() {
        let names = || SETTINGS.iter().map(|setting| setting.annotation.trim_start_matches("meshctl.dev/"));
        for name in names() {
            for at in 0..name.len() {
                let (before, after) = name.split_at(at);
                let slips =
                    [format!("{before}x{after}"), format!("{before}{}", &after[1..]), format!("{before}-{after}")];
                for slip in slips.iter().filter(|slip| !names().any(|name| name == slip.as_str())) {
                    assert!(like(slip, names()).is_some(), "{slip}");
                }
            }
        }
        for (slip, meant) in [
            ("skip-inbound-port", Some("skip-inbound-ports")),
            ("skip-inbound", Some("skip-inbound-ports")),
            ("Opaque-Ports", Some("opaque-ports")),
            ("opaqueports", Some("opaque-ports")),
            ("accesslog", Some("access-log")),
            ("proxy-cpu", Some("proxy-cpu-limit")),
            ("something-else", None),
            ("", None),
        ] {
            assert_eq!(like(slip, names()), meant, "{slip}");
        }
    }
}
