//! What the annotations of namespace and pod ask of a sidecar, validated by name and value.
//!
//! Called by `decide`. What may be written is in [`table`]. A mistake is a warning that the user sees; it never makes a pod
//! fail, and it never opens anything ([`OnMistake::Strict`]). Knows nothing of containers.
//!
//! Nearest wins: a pod's annotation over its namespace's over the mesh's default. The annotations of a workload are those
//! of its pod template, because Kubernetes copies no others to the pods.

use std::collections::BTreeMap;

use mesh_proto::names;

pub mod table;
mod values;

use table::{OnMistake, SETTINGS, Setting, Target};
pub(crate) use values::short;

/// CPU and memory of the sidecar where nothing is asked: an idle proxy takes at most 12 MB, the limit leaves room for some
/// thousands of connections.
const CPU: &str = "10m";
const MEMORY: &str = "24Mi";
const MEMORY_LIMIT: &str = "256Mi";
/// `terminationGracePeriodSeconds` where a pod does not say, to which the proxy's own default is made.
const GRACE_SECONDS: u64 = 30;

/// What the annotations ask for; what they do not name is the mesh's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// By annotation, in the form in which it is passed on.
    values: BTreeMap<&'static str, String>,
    /// What the pod belongs to, as `kind/name`.
    pub workload: Option<String>,
}

/// CPU and memory of the sidecar, as Kubernetes quantities; no limit is below its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// Requested CPU.
    pub cpu: String,
    /// Most CPU.
    pub cpu_limit: Option<String>,
    /// Requested memory.
    pub memory: String,
    /// Most memory.
    pub memory_limit: String,
}

impl Settings {
    /// What is asked by this annotation.
    pub fn get(&self, annotation: &str) -> Option<&str> {
        self.values.get(annotation).map(String::as_str)
    }

    /// The environment of the redirect.
    pub fn redirect_env(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.env(|target| matches!(target, Target::ProxyAndRedirect(_)))
    }

    /// The environment of the sidecar.
    pub fn proxy_env(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.env(|_| true)
    }

    fn env(&self, wanted: impl Fn(Target) -> bool) -> impl Iterator<Item = (&'static str, &str)> {
        let wanted = SETTINGS.iter().filter(move |setting| wanted(setting.target));
        wanted.filter_map(|setting| Some((setting.target.env()?, self.get(setting.annotation)?)))
    }

    /// Resources of the sidecar.
    pub fn resources(&self) -> Resources {
        let given = |annotation| self.get(annotation).map(str::to_owned);
        let cpu = given(names::ANNOTATION_PROXY_CPU_REQUEST);
        let cpu_limit = given(names::ANNOTATION_PROXY_CPU_LIMIT);
        let memory = given(names::ANNOTATION_PROXY_MEMORY_REQUEST);
        let memory_limit = given(names::ANNOTATION_PROXY_MEMORY_LIMIT).unwrap_or_else(|| MEMORY_LIMIT.into());
        // A request above its limit would keep the pod from being created; what was asked for wins over what was not.
        let cpu = cpu.unwrap_or_else(|| lesser(CPU, cpu_limit.as_deref().unwrap_or(CPU)));
        let memory = memory.unwrap_or_else(|| lesser(MEMORY, &memory_limit));
        Resources {
            cpu_limit: cpu_limit.map(|limit| greater(&limit, &cpu)),
            memory_limit: greater(&memory_limit, &memory),
            cpu,
            memory,
        }
    }

    /// How long the proxy's drain may take.
    pub fn drain_seconds(&self) -> u64 {
        let asked = self.get(names::ANNOTATION_DRAIN_SECONDS).and_then(|seconds| seconds.parse().ok());
        asked.unwrap_or(drain_of(GRACE_SECONDS))
    }

    /// Fits what is asked to a pod with this `terminationGracePeriodSeconds`: the drain ends before the kubelet kills.
    /// Returns sentences for the user.
    pub fn fit(&mut self, grace: Option<u64>) -> Vec<String> {
        let grace = grace.unwrap_or(GRACE_SECONDS);
        match self.get(names::ANNOTATION_DRAIN_SECONDS).and_then(|seconds| seconds.parse::<u64>().ok()) {
            Some(drain) if drain >= grace && grace > 0 => vec![format!(
                "{} {drain} is not less than terminationGracePeriodSeconds {grace}: the pod is killed before the drain ends",
                names::ANNOTATION_DRAIN_SECONDS
            )],
            None if grace != GRACE_SECONDS => {
                self.values.insert(names::ANNOTATION_DRAIN_SECONDS, drain_of(grace).to_string());
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

/// The drain of a pod with this `terminationGracePeriodSeconds`, where nothing else is asked for.
fn drain_of(grace: u64) -> u64 {
    (grace.saturating_mul(5) / 6).min(3600)
}

fn lesser(a: &str, b: &str) -> String {
    if values::amount(a) <= values::amount(b) { a.into() } else { b.into() }
}

fn greater(a: &str, b: &str) -> String {
    if values::amount(a) >= values::amount(b) { a.into() } else { b.into() }
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
                warnings.push(format!("annotation {} of the {owner}: {problem}", short(key)));
            }
        }
    }
    (settings, warnings)
}

/// Whether a key of a label or annotation is under our prefix.
pub fn is_ours(key: &str) -> bool {
    key.split_once('/').is_some_and(|(group, _)| group == names::GROUP)
}

/// In the order of their keys, so that warnings come in one order.
fn collect<'a>(annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<&'a str, &'a str> {
    annotations.into_iter().filter(|(key, _)| is_ours(key)).collect()
}

fn apply(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
    let Some(setting) = table::find(key) else { return unknown(key) };
    let Setting { annotation, on_mistake, check, .. } = *setting;
    match check(value) {
        // An empty list is a value: what the namespace skips, this pod does not.
        Ok(value) if value.is_empty() => settings.values.remove(annotation),
        Ok(value) => settings.values.insert(annotation, value),
        Err(problem) => {
            if matches!(on_mistake, OnMistake::Strict(_)) {
                settings.values.remove(annotation);
            }
            return Err(format!("{problem}; {}", on_mistake.text()));
        }
    };
    Ok(())
}

/// A key under our prefix that is no setting.
fn unknown(key: &str) -> Result<(), String> {
    match key {
        // Left by the injector itself.
        names::ANNOTATION_PROXY_VERSION => return Ok(()),
        names::LABEL_INJECT => return Err("this is a label, not an annotation; it is ignored".into()),
        _ => {}
    }
    // The prefix is ours already: compared are the names.
    let name = |key: &'static str| key.split_once('/').map_or(key, |(_, name)| name);
    let wanted = key.split_once('/').map_or(key, |(_, name)| name);
    match table::like(wanted, SETTINGS.iter().map(|setting| name(setting.annotation))) {
        Some(meant) => Err(format!("not known and ignored; did you mean {}/{meant}?", names::GROUP)),
        None => Err("not known; it is ignored".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod<'a>(key: &'a str, value: &'a str) -> (Settings, Vec<String>) {
        read([], [(key, value)])
    }

    #[test]
    fn the_nearest_wins_setting_by_setting() {
        let (settings, warnings) = read(
            [("meshctl.dev/skip-inbound-ports", "80"), ("meshctl.dev/unresolved", "pass-through")],
            [("meshctl.dev/skip-inbound-ports", "81-90"), ("meshctl.dev/log-level", "debug"), ("other/x", "y")],
        );
        assert_eq!(settings.get("meshctl.dev/skip-inbound-ports"), Some("81-90"));
        assert_eq!(settings.get("meshctl.dev/unresolved"), Some("pass-through"));
        assert_eq!(settings.get("meshctl.dev/log-level"), Some("debug"));
        assert_eq!(warnings, Vec::<String>::new());
        let (settings, _) = read([("meshctl.dev/skip-inbound-ports", "80")], [("meshctl.dev/skip-inbound-ports", "")]);
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn every_setting_is_taken_from_namespace_and_pod_and_reaches_who_acts_on_it() {
        for setting in SETTINGS {
            let pair = || [(setting.annotation, setting.example)];
            for (settings, warnings) in [read(pair(), []), read([], pair())] {
                assert!(settings.get(setting.annotation).is_some() && warnings.is_empty(), "{}", setting.annotation);
                let env: Vec<_> = settings.proxy_env().map(|(variable, _)| variable).collect();
                assert_eq!(env, setting.target.env().into_iter().collect::<Vec<_>>());
                let redirect = matches!(setting.target, Target::ProxyAndRedirect(_));
                assert_eq!(settings.redirect_env().count(), usize::from(redirect));
            }
        }
    }

    #[test]
    fn a_wrong_value_is_a_warning_and_opens_nothing() {
        for (key, good, wrong, says) in [
            ("meshctl.dev/skip-inbound-ports", "80", "http", "no port is skipped"),
            ("meshctl.dev/skip-outbound-ports", "80", "9-1", "ends before it starts"),
            ("meshctl.dev/skip-subnets", "10.0.0.0/8", "10.0.0.0/99", "is not a network"),
            ("meshctl.dev/opaque-ports", "80", "x", "is not a port"),
            ("meshctl.dev/default-policy", "allow", "denny", "did you mean deny?; deny holds"),
            ("meshctl.dev/unresolved", "pass-through", "yes", "none of refuse, pass-through; refuse holds"),
        ] {
            let (settings, warnings) = read([(key, good)], [(key, wrong)]);
            assert_eq!(settings, Settings::default(), "{key}={wrong}: the namespace's value must not hold");
            assert!(warnings.len() == 1 && warnings[0].contains(says), "{warnings:?}");
        }
        for (key, good, wrong, says) in [
            ("meshctl.dev/log-level", "debug", "$(SECRET)", "SECRET"),
            ("meshctl.dev/log-level", "debug", "inof", "inof"),
            ("meshctl.dev/proxy-cpu-limit", "2", "lots", "not an amount of CPU"),
            ("meshctl.dev/connect-timeout", "2s", "soon", "not a time"),
        ] {
            let (settings, warnings) = read([(key, good)], [(key, wrong)]);
            assert!(settings.get(key).is_some(), "{key}={wrong}: the namespace's value holds");
            assert!(
                warnings.len() == 1 && warnings[0].contains(says) && warnings[0].ends_with("ignored"),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn an_unknown_annotation_is_a_warning_with_the_name_that_was_meant() {
        for (key, says) in [
            ("meshctl.dev/skip-inbound-port", "did you mean meshctl.dev/skip-inbound-ports?"),
            ("meshctl.dev/opaqueports", "did you mean meshctl.dev/opaque-ports?"),
            ("meshctl.dev/something-else", "not known; it is ignored"),
            ("meshctl.dev/", "not known; it is ignored"),
            ("meshctl.dev/inject", "this is a label, not an annotation"),
        ] {
            let (_, warnings) = pod(key, "1");
            assert!(warnings.len() == 1 && warnings[0].contains(says), "{key}: {warnings:?}");
        }
        let long = format!("meshctl.dev/{}", "x".repeat(100_000));
        assert!(pod(&long, "1").1[0].len() < 200);
    }

    #[test]
    fn no_limit_is_below_its_request() {
        let resources = |given: &[(&'static str, &'static str)]| {
            let given =
                given.iter().map(|(name, value)| (format!("meshctl.dev/proxy-{name}"), *value)).collect::<Vec<_>>();
            let (settings, warnings) = read([], given.iter().map(|(name, value)| (name.as_str(), *value)));
            assert_eq!(warnings, Vec::<String>::new());
            let Resources { cpu, cpu_limit, memory, memory_limit } = settings.resources();
            format!("{cpu} {} {memory} {memory_limit}", cpu_limit.unwrap_or_else(|| "-".into()))
        };
        assert_eq!(resources(&[]), "10m - 24Mi 256Mi");
        assert_eq!(resources(&[("memory-request", "1Gi"), ("cpu-request", "2")]), "2 - 1Gi 1Gi");
        assert_eq!(resources(&[("memory-limit", "16Mi"), ("cpu-limit", "5m")]), "5m 5m 16Mi 16Mi");
        assert_eq!(resources(&[("memory-request", "64Mi"), ("memory-limit", "32Mi")]), "10m - 64Mi 64Mi");
        assert_eq!(resources(&[("cpu-request", "500m"), ("cpu-limit", "0.25")]), "500m 500m 24Mi 256Mi");
    }

    #[test]
    fn the_drain_ends_before_the_kubelet_kills() {
        for (asked, grace, drain, warned) in [
            (None, None, None, false),
            (None, Some(30), None, false),
            (None, Some(60), Some("50"), false),
            (None, Some(6), Some("5"), false),
            (None, Some(0), Some("0"), false),
            (None, Some(u64::MAX), Some("3600"), false),
            (Some("20"), Some(60), Some("20"), false),
            (Some("60"), Some(60), Some("60"), true),
            (Some("30"), None, Some("30"), true),
        ] {
            let (mut settings, _) = read([], asked.map(|seconds| ("meshctl.dev/drain-seconds", seconds)));
            assert_eq!(settings.fit(grace).len(), usize::from(warned), "{asked:?} {grace:?}");
            assert_eq!(settings.get("meshctl.dev/drain-seconds"), drain, "{asked:?} {grace:?}");
        }
    }
}
