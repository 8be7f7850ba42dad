//! The environment of the sidecar, read into a [`Config`]: every mistake is reported at once, each with its fix.
//!
//! Pure: it sees the environment through [`Strings`], so tests need none. The variables are those that the injector writes.

mod groups;
mod limits;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    env::VarError,
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use mesh_proto::{names, ports::BadList, probe};

use self::values::{access_log, log_filter, log_format, mark, unresolved, within};
use super::{Config, DataConfig, Pod, Skipped};

/// Log filter where none is given.
const DEFAULT_LOG: &str = "info";
/// Most worker threads: beyond the cores of a large node they only cost memory.
const MAX_WORKERS: usize = 64;
/// Longest a drain may take where nothing is said: below the 30 s that Kubernetes gives a pod to end.
const DEFAULT_DRAIN: Duration = Duration::from_secs(25);
/// Longest drain that may be asked for, in seconds.
const MAX_DRAIN: u64 = 3600;

/// Where variables are looked up.
pub trait Strings {
    /// The value of a variable; none where it is not set.
    fn get(&self, name: &str) -> Result<Option<String>, NotText>;
}

/// A value that is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotText;

/// The environment of this process.
#[derive(Debug, Clone, Copy)]
pub struct Process;

impl Strings for Process {
    fn get(&self, name: &str) -> Result<Option<String>, NotText> {
        match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(NotText),
        }
    }
}

impl Strings for BTreeMap<&str, String> {
    fn get(&self, name: &str) -> Result<Option<String>, NotText> {
        Ok(self.get(name).cloned())
    }
}

/// Everything that is wrong with an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BadConfig(pub Vec<Mistake>);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The variable.
    pub variable: &'static str,
    /// Its value, clipped; none where it is not set or must not be shown.
    pub value: Option<String>,
    /// What is wrong with it.
    pub reason: String,
    /// What to write instead.
    pub fix: &'static str,
}

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment has {} mistake(s):", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.variable)?;
        if let Some(value) = &self.value {
            write!(f, "={value:?}")?;
        }
        write!(f, ": {}; {}", self.reason, self.fix)
    }
}

/// Reads a configuration.
pub fn parse(strings: &impl Strings) -> Result<Config, BadConfig> {
    let mut env = Reader { strings, mistakes: Vec::new(), given: BTreeSet::new() };
    let pod = Pod {
        namespace: env.required(names::ENV_POD_NAMESPACE, "set it to the pod's metadata.namespace"),
        name: env.required(names::ENV_POD_NAME, "set it to the pod's metadata.name"),
        uid: env.required(names::ENV_POD_UID, "set it to the pod's metadata.uid"),
        workload: env.look_up(names::ENV_WORKLOAD, "write it like deployment/web"),
    };
    let pod_ips = env.pod_ips();
    let identity = env.identity(&pod.namespace);
    let controller = env.controller();
    let token_file = env.required(names::ENV_TOKEN_FILE, "set it to the path of the projected service-account token");
    let trust = env.trust();
    let socket_mark = env.optional(
        names::ENV_SOCKET_MARK,
        mark,
        "write a number such as 0x2102, or leave it out where a user id tells the proxy",
    );
    let unresolved = env.optional(names::ENV_UNRESOLVED, unresolved, "write refuse or pass-through");
    let log = env.optional(names::ENV_LOG, log_filter, "write it like info,mesh_proxy=debug");
    let log_format = env.optional(names::ENV_LOG_FORMAT, log_format, "write plain or json");
    let connect_timeout = env.milliseconds(names::ENV_CONNECT_TIMEOUT_MS);
    let app_connect_timeout = env.milliseconds(names::ENV_APP_CONNECT_TIMEOUT_MS);
    let workers = env.optional(
        names::ENV_WORKERS,
        |text| within(text, 1, MAX_WORKERS),
        "write the number of threads; 1 is right unless one core is not enough",
    );
    let drain = env.optional(
        names::ENV_DRAIN_SECONDS,
        |text| within(text, 0, MAX_DRAIN).map(Duration::from_secs),
        "write seconds, fewer than terminationGracePeriodSeconds",
    );
    let probes = env.optional(
        names::ENV_PROBES,
        |text| probe::parse_list(text).map_err(|error| error.to_string()),
        "it is written by the injector: inject the pod again",
    );
    let access_log = env.optional(names::ENV_ACCESS_LOG, access_log, "write off or json");
    let traces = env.traces();
    let (limits, head_timeout) = env.limits();
    let skipped = Skipped {
        inbound: env.list(names::ENV_SKIP_INBOUND_PORTS),
        outbound: env.list(names::ENV_SKIP_OUTBOUND_PORTS),
        subnets: env.list(names::ENV_SKIP_SUBNETS),
    };
    let (Some(identity), Some(controller), true) = (identity, controller, env.mistakes.is_empty()) else {
        return Err(BadConfig(env.mistakes));
    };
    let defaults = DataConfig::new(identity, pod_ips);
    let data = DataConfig {
        socket_mark,
        unresolved: unresolved.unwrap_or_default(),
        connect_timeout: connect_timeout.unwrap_or(defaults.connect_timeout),
        app_connect_timeout: app_connect_timeout.unwrap_or(defaults.app_connect_timeout),
        head_timeout: head_timeout.unwrap_or(defaults.head_timeout),
        limits,
        ..defaults
    };
    Ok(Config {
        pod,
        data: Arc::new(data),
        controller,
        token_file: PathBuf::from(token_file),
        trust,
        log: log.unwrap_or_else(|| DEFAULT_LOG.to_owned()),
        log_format: log_format.unwrap_or_default(),
        workers: workers.unwrap_or(1),
        drain: drain.unwrap_or(DEFAULT_DRAIN),
        probes: probes.unwrap_or_default(),
        skipped,
        access_log: access_log.unwrap_or_default(),
        traces,
        given: env.given,
    })
}

/// Looks variables up and collects what is wrong with them.
struct Reader<'a, S> {
    strings: &'a S,
    mistakes: Vec<Mistake>,
    given: BTreeSet<&'static str>,
}

impl<S: Strings> Reader<'_, S> {
    /// The value, without the spaces around it; an empty one counts as not set.
    fn look_up(&mut self, variable: &'static str, fix: &'static str) -> Option<String> {
        let value = self.strings.get(variable).unwrap_or_else(|NotText| {
            self.wrong(variable, None, "is not UTF-8", fix);
            None
        });
        let value = value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        if value.is_some() {
            self.given.insert(variable);
        }
        value
    }

    fn wrong(&mut self, variable: &'static str, value: Option<&str>, reason: impl Into<String>, fix: &'static str) {
        let value = value.map(|value| value.chars().take(64).collect());
        self.mistakes.push(Mistake { variable, value, reason: reason.into(), fix });
    }

    fn required(&mut self, variable: &'static str, fix: &'static str) -> String {
        let before = self.mistakes.len();
        self.look_up(variable, fix).unwrap_or_else(|| {
            if self.mistakes.len() == before {
                self.wrong(variable, None, "is not set", fix);
            }
            String::new()
        })
    }

    fn optional<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
        fix: &'static str,
    ) -> Option<T> {
        let text = self.look_up(variable, fix)?;
        parse(&text).map_err(|reason| self.wrong(variable, Some(&text), reason, fix)).ok()
    }

    /// A list of ports or networks, as in the annotation of the same name.
    fn list<T: FromStr<Err = BadList> + Default>(&mut self, variable: &'static str) -> T {
        const FIX: &str = "write it as in the annotation, separated by commas";
        self.optional(variable, |text| text.parse().map_err(|error: BadList| error.to_string()), FIX)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> BTreeMap<&'static str, String> {
        [
            (names::ENV_POD_NAMESPACE, "shop"),
            (names::ENV_POD_NAME, "web-1"),
            (names::ENV_POD_UID, "u-1"),
            (names::ENV_POD_IPS, "10.0.0.7,fd00::7"),
            (names::ENV_SERVICE_ACCOUNT, "web"),
            (names::ENV_CONTROLLER_ADDR, "[fd00::1]:8443"),
            (names::ENV_TOKEN_FILE, "/token"),
            (names::ENV_TRUST_BUNDLE, "PEM"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
    }

    #[test]
    fn what_the_injector_writes_is_understood() {
        let config = parse(&good()).expect("parses");
        assert_eq!(config.data.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(config.data.pod_ips.len(), 2);
        assert_eq!(config.controller.to_string(), "[fd00::1]:8443");
        assert_eq!((config.workers, config.drain, config.log.as_str()), (1, DEFAULT_DRAIN, "info"));
        assert!(config.data.opaque_ports.contains(6379) && !config.data.opaque_ports.contains(80));
    }

    #[test]
    fn every_mistake_is_reported_at_once_with_variable_value_reason_and_fix() {
        let mut env = good();
        let bad = [
            (names::ENV_POD_IPS, "10.0.0.256"),
            (names::ENV_SERVICE_ACCOUNT, "Web"),
            (names::ENV_TRUST_DOMAIN, "A"),
            (names::ENV_CONTROLLER_ADDR, "fd00::1:8443"),
            (names::ENV_SOCKET_MARK, "0"),
            (names::ENV_UNRESOLVED, "passthrough"),
            (names::ENV_LOG, "verbose"),
            (names::ENV_LOG_FORMAT, "xml"),
            (names::ENV_CONNECT_TIMEOUT_MS, "0"),
            (names::ENV_APP_CONNECT_TIMEOUT_MS, "100ms"),
            (names::ENV_WORKERS, "0"),
            (names::ENV_DRAIN_SECONDS, "-1"),
            (names::ENV_PROBES, "{}"),
            (names::ENV_ACCESS_LOG, "on"),
            (names::ENV_TRACE_ENDPOINT, "https://otel:4317"),
            (names::ENV_TRACE_SAMPLE, "10"),
            (names::ENV_MAX_CONNECTIONS, "1"),
            (names::ENV_MAX_SERIES, "many"),
            (names::ENV_MEMORY_LIMIT, "64Mi"),
            (names::ENV_HEAD_TIMEOUT, "0"),
            (names::ENV_HANDSHAKE_TIMEOUT, "10s"),
            (names::ENV_PING_INTERVAL, "NaN"),
            (names::ENV_PING_TIMEOUT, "inf"),
            (names::ENV_SKIP_INBOUND_PORTS, "http"),
            (names::ENV_SKIP_SUBNETS, "10.0.0.0/33"),
        ];
        for (name, value) in bad {
            env.insert(name, value.to_owned());
        }
        for name in [names::ENV_TOKEN_FILE, names::ENV_TRUST_BUNDLE, names::ENV_POD_UID] {
            env.remove(name);
        }
        let error = parse(&env).expect_err("nothing is right");
        let text = error.to_string();
        for (name, value) in bad {
            assert!(text.contains(&format!("{name}={value:?}: ")), "{name}: {text}");
        }
        for name in [names::ENV_TOKEN_FILE, names::ENV_TRUST_BUNDLE, names::ENV_POD_UID] {
            assert!(text.contains(&format!("{name}: is not set")), "{name}: {text}");
        }
        assert_eq!(error.0.len(), bad.len() + 3, "{text}");
        assert!(error.0.iter().all(|mistake| !mistake.fix.is_empty() && !mistake.reason.is_empty()));
    }

    #[test]
    fn every_setting_is_shown_with_its_source_and_without_certificate_text() {
        let mut env = good();
        env.insert(names::ENV_TRACE_ENDPOINT, "http://otel:4317/".into());
        env.insert(names::ENV_ACCESS_LOG, "json".into());
        let settings = parse(&env).expect("parses").settings();
        let shown = |name: &str| {
            let setting = settings.iter().find(|setting| setting.name == name).expect("is shown");
            (setting.value.as_str(), setting.source.as_str())
        };
        assert_eq!(shown(names::ENV_WORKERS), ("1", "default"));
        assert_eq!(shown(names::ENV_ACCESS_LOG), ("json", "environment"));
        assert_eq!(shown(names::ENV_TRACE_ENDPOINT), ("http://otel:4317", "environment"));
        assert_eq!(shown(names::ENV_TRACE_SAMPLE), ("0.1", "default"));
        assert_eq!(shown(names::ENV_TRUST_BUNDLE), ("3 bytes", "environment"));
        assert!(settings.iter().all(|setting| !setting.value.contains("PEM")));
        assert!(env.keys().all(|name| shown(name).1 == "environment"), "nothing that is set is left out");
    }
}
