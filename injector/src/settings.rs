//! What annotations of namespace and pod ask of a sidecar, validated by name and value.
//!
//! Called by `decide`. A wrong value counts as not written and is a warning that the user sees; it never makes a pod fail.
//! Knows nothing of containers.

use std::collections::BTreeMap;

use mesh_proto::{
    inbound::DefaultPolicy,
    names,
    ports::{PortSet, Subnets},
};
use mesh_runtime::telemetry::{self, BadFilter};

/// What the annotations ask for; absent where the mesh's own default holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Inbound ports that are not redirected.
    pub skip_inbound: PortSet,
    /// Outbound ports that are not redirected.
    pub skip_outbound: PortSet,
    /// Networks that are not redirected.
    pub skip_subnets: Subnets,
    /// Whether destinations never resolved are passed through while the controller is away.
    pub unresolved_pass_through: bool,
    /// Log filter.
    pub log: Option<String>,
    /// Resources of the sidecar.
    pub resources: Resources,
}

/// CPU and memory of the sidecar, as Kubernetes quantities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// Requested CPU.
    pub cpu: String,
    /// Most CPU; none by default, because throttling a proxy is latency for everybody behind it.
    pub cpu_limit: Option<String>,
    /// Requested memory.
    pub memory: String,
    /// Most memory.
    pub memory_limit: String,
}

impl Default for Resources {
    /// An idle proxy takes at most 12 MB; the limit leaves room for some thousands of connections.
    fn default() -> Self {
        Self { cpu: "10m".into(), cpu_limit: None, memory: "24Mi".into(), memory_limit: "256Mi".into() }
    }
}

/// Reads the annotations; the pod's win over the namespace's. Warnings are sentences for the user.
pub fn read<'a>(
    namespace: impl IntoIterator<Item = (&'a str, &'a str)>,
    pod: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> (Settings, Vec<String>) {
    let mut settings = Settings::default();
    let mut warnings = Vec::new();
    for (owner, annotations) in [("namespace", collect(namespace)), ("pod", collect(pod))] {
        for (key, value) in annotations {
            if let Err(problem) = apply(&mut settings, key, value) {
                let key: String = key.chars().take(80).collect();
                warnings.push(format!("annotation {key} of the {owner}: {problem}"));
            }
        }
    }
    (settings, warnings)
}

/// In the order of their keys, so that warnings come in one order.
fn collect<'a>(annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<&'a str, &'a str> {
    let prefix = |key: &str| key.split_once('/').is_some_and(|(group, _)| group == names::GROUP);
    annotations.into_iter().filter(|(key, _)| prefix(key)).collect()
}

fn apply(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| format!("{error}; it is ignored");
    match key {
        names::ANNOTATION_SKIP_INBOUND_PORTS => settings.skip_inbound = value.parse().map_err(|e| text(&e))?,
        names::ANNOTATION_SKIP_OUTBOUND_PORTS => settings.skip_outbound = value.parse().map_err(|e| text(&e))?,
        names::ANNOTATION_SKIP_SUBNETS => settings.skip_subnets = value.parse().map_err(|e| text(&e))?,
        // Read by the controller; a wrong value is told here, because here somebody is looking.
        names::ANNOTATION_OPAQUE_PORTS => drop(value.parse::<PortSet>().map_err(|e| text(&e))?),
        names::ANNOTATION_DEFAULT_POLICY => drop(value.parse::<DefaultPolicy>().map_err(|e| text(&e))?),
        names::ANNOTATION_UNRESOLVED => settings.unresolved_pass_through = unresolved(value).map_err(|e| text(&e))?,
        names::ANNOTATION_LOG_LEVEL => settings.log = Some(log_filter(value).map_err(|e| text(&e))?),
        names::ANNOTATION_PROXY_RESOURCES => settings.resources = resources(value).map_err(|e| text(&e))?,
        names::ANNOTATION_PROXY_VERSION => {}
        names::LABEL_INJECT => return Err("this is a label, not an annotation; it is ignored".into()),
        _ => return Err(unknown(key)),
    }
    Ok(())
}

fn unresolved(value: &str) -> Result<bool, String> {
    match value.trim() {
        "refuse" => Ok(false),
        "pass-through" => Ok(true),
        other => Err(format!("{:?} is neither refuse nor pass-through", short(other))),
    }
}

/// A filter that the proxy will take: one that it refuses would keep the pod from starting.
fn log_filter(value: &str) -> Result<String, BadFilter> {
    let value = value.trim();
    telemetry::check(value).map(|()| value.to_owned())
}

/// `cpu=100m,memory=64Mi`, also `cpu-limit` and `memory-limit`. A given memory is also its limit unless that is given.
fn resources(value: &str) -> Result<Resources, String> {
    let mut found = Resources::default();
    let mut limit = None;
    for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (key, quantity) = entry.split_once('=').unwrap_or((entry, ""));
        let quantity = quantity.trim();
        if !is_quantity(quantity) {
            return Err(format!("{:?} is not like cpu=100m or memory=64Mi", short(entry)));
        }
        match key.trim() {
            "cpu" => quantity.clone_into(&mut found.cpu),
            "cpu-limit" => found.cpu_limit = Some(quantity.to_owned()),
            "memory" => {
                quantity.clone_into(&mut found.memory);
                quantity.clone_into(&mut found.memory_limit);
            }
            "memory-limit" => limit = Some(quantity.to_owned()),
            other => return Err(format!("{:?} is none of cpu, memory, cpu-limit, memory-limit", short(other))),
        }
    }
    if let Some(limit) = limit {
        found.memory_limit = limit;
    }
    Ok(found)
}

/// A positive Kubernetes quantity with a usual suffix.
fn is_quantity(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[number.len()..];
    let known = ["", "m", "k", "M", "G", "Ki", "Mi", "Gi"].contains(&suffix);
    let digits = number.bytes().all(|b| b.is_ascii_digit() || b == b'.') && number.len() <= 12;
    known && digits && number.parse::<f64>().is_ok_and(|value| value > 0.0)
}

fn unknown(key: &str) -> String {
    let close = names::USER_ANNOTATIONS
        .iter()
        .map(|known| (distance(key, known), *known))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, known)| known);
    match close {
        Some(known) => format!("not known; did you mean {known}?"),
        None => "not known; it is ignored".to_owned(),
    }
}

/// Number of edits between two short texts (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 3 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod<'a>(key: &'a str, value: &'a str) -> (Settings, Vec<String>) {
        read([], [(key, value)])
    }

    #[test]
    fn the_pod_wins_over_its_namespace() {
        let (settings, warnings) = read(
            [("meshctl.dev/skip-inbound-ports", "80"), ("meshctl.dev/unresolved", "pass-through")],
            [("meshctl.dev/skip-inbound-ports", "81-90"), ("meshctl.dev/log-level", "debug"), ("other/x", "y")],
        );
        assert_eq!(settings.skip_inbound.to_string(), "81-90");
        assert!(settings.unresolved_pass_through);
        assert_eq!(settings.log.as_deref(), Some("debug"));
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn a_wrong_value_is_a_warning_and_counts_as_not_written() {
        for (key, value, says) in [
            ("meshctl.dev/skip-inbound-ports", "http", "\"http\" is not a port"),
            ("meshctl.dev/skip-outbound-ports", "9-1", "ends before it starts"),
            ("meshctl.dev/skip-subnets", "10.0.0.0/99", "is not a network"),
            ("meshctl.dev/opaque-ports", "x", "is not a port"),
            ("meshctl.dev/default-policy", "none", "is not a default policy"),
            ("meshctl.dev/unresolved", "yes", "neither refuse nor pass-through"),
            ("meshctl.dev/log-level", "$(SECRET)", "SECRET"),
            ("meshctl.dev/log-level", "inof", "inof"),
            ("meshctl.dev/proxy-resources", "cpu=lots", "is not like cpu=100m"),
            ("meshctl.dev/proxy-resources", "gpu=1", "is none of cpu"),
        ] {
            let (settings, warnings) = pod(key, value);
            assert_eq!(settings, Settings::default(), "{key}={value}");
            assert!(warnings.len() == 1 && warnings[0].contains(says), "{key}={value}: {warnings:?}");
        }
    }

    #[test]
    fn an_unknown_annotation_is_a_warning_with_the_name_that_was_meant() {
        for (key, says) in [
            ("meshctl.dev/skip-inbound-port", "did you mean meshctl.dev/skip-inbound-ports?"),
            ("meshctl.dev/opaqueports", "did you mean meshctl.dev/opaque-ports?"),
            ("meshctl.dev/something-else", "not known; it is ignored"),
            ("meshctl.dev/inject", "this is a label, not an annotation"),
        ] {
            let (_, warnings) = pod(key, "1");
            assert!(warnings.len() == 1 && warnings[0].contains(says), "{key}: {warnings:?}");
        }
    }

    #[test]
    fn given_memory_is_also_its_limit_unless_that_is_given() {
        let (settings, _) = pod("meshctl.dev/proxy-resources", "cpu=0.1, memory=64Mi");
        assert_eq!(settings.resources.memory_limit, "64Mi");
        let (settings, _) = pod("meshctl.dev/proxy-resources", "memory-limit=1Gi,memory=64Mi,cpu-limit=2");
        assert_eq!(
            (settings.resources.memory_limit.as_str(), settings.resources.cpu_limit.as_deref()),
            ("1Gi", Some("2"))
        );
    }
}
