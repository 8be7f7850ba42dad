//! The environment of the sidecar, read into a [`Config`]: every mistake is reported at once, each with its fix.
//!
//! Pure: it sees the environment through [`Strings`], so tests need none. The variables are those that the injector writes.

mod limits;

use std::{
    collections::{BTreeMap, BTreeSet},
    env::VarError,
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use mesh_proto::{identity::Identity, names, ports::BadList, probe};
use mesh_runtime::telemetry::{self, Format};

use super::{AccessLog, Config, DataConfig, HostPort, Pod, Skipped, Traces, TrustSources, Unresolved};

/// Log filter where none is given.
const DEFAULT_LOG: &str = "info";
/// Share of traces that are sampled where a collector is given and no share.
const DEFAULT_SAMPLE: f64 = 0.1;
/// Most worker threads: beyond the cores of a large node they only cost memory.
const MAX_WORKERS: usize = 64;
/// Longest a drain may take where nothing is said: below the 30 s that Kubernetes gives a pod to end.
const DEFAULT_DRAIN: Duration = Duration::from_secs(25);
/// Longest drain that may be asked for, in seconds.
const MAX_DRAIN: u64 = 3600;
/// Most addresses a pod has (Kubernetes: one of each family).
const MAX_POD_IPS: usize = 16;

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

    fn pod_ips(&mut self) -> Vec<IpAddr> {
        const FIX: &str = "set it to the pod's status.podIPs, e.g. 10.1.2.3,fd00::3";
        let text = self.required(names::ENV_POD_IPS, FIX);
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let addresses: Result<Vec<IpAddr>, _> = entries
            .take(MAX_POD_IPS)
            .map(|entry| entry.parse().map_err(|_| format!("{entry:?} is no address")))
            .collect();
        let addresses = addresses.and_then(|addresses| {
            let none = addresses.is_empty() && !text.is_empty();
            if none { Err("has no address".to_owned()) } else { Ok(addresses) }
        });
        addresses.unwrap_or_else(|reason| {
            self.wrong(names::ENV_POD_IPS, Some(&text), reason, FIX);
            Vec::new()
        })
    }

    /// Kubernetes gives a pod that names no service account `default`.
    fn identity(&mut self, namespace: &str) -> Option<Identity> {
        const FIX: &str = "use the names of the pod's own namespace and service account";
        let domain = self.look_up(names::ENV_TRUST_DOMAIN, FIX).unwrap_or_else(|| names::DEFAULT_TRUST_DOMAIN.into());
        let account = self.look_up(names::ENV_SERVICE_ACCOUNT, FIX).unwrap_or_else(|| "default".into());
        // A namespace that is not set is reported already; each of the others is looked at by itself.
        let of = |domain: &str, namespace: &str, account: &str| Identity::new(domain, namespace, account);
        if let Err(error) = of(&domain, "default", "default") {
            self.wrong(names::ENV_TRUST_DOMAIN, Some(&domain), error.to_string(), "use the mesh's trust domain");
        }
        if let Err(error) = of(names::DEFAULT_TRUST_DOMAIN, "default", &account) {
            self.wrong(names::ENV_SERVICE_ACCOUNT, Some(&account), error.to_string(), FIX);
        }
        if !namespace.is_empty()
            && let Err(error) = of(names::DEFAULT_TRUST_DOMAIN, namespace, "default")
        {
            self.wrong(names::ENV_POD_NAMESPACE, Some(namespace), error.to_string(), FIX);
        }
        of(&domain, namespace, &account).ok()
    }

    fn controller(&mut self) -> Option<HostPort> {
        const FIX: &str = "write host:port, e.g. mesh-controller.mesh-system.svc:8443";
        let text = self.required(names::ENV_CONTROLLER_ADDR, FIX);
        if text.is_empty() {
            return None;
        }
        host_port(&text).map_err(|reason| self.wrong(names::ENV_CONTROLLER_ADDR, Some(&text), reason, FIX)).ok()
    }

    fn traces(&mut self) -> Option<Traces> {
        const FIX: &str =
            "write http://host:port of a collector that takes OTLP over gRPC, e.g. http://otel.observability:4317";
        let endpoint = self.optional(names::ENV_TRACE_ENDPOINT, collector, FIX);
        let sample = self.optional(names::ENV_TRACE_SAMPLE, |text| within(text, 0.0, 1.0), "write a share, e.g. 0.1");
        Some(Traces { endpoint: endpoint?, sample: sample.unwrap_or(DEFAULT_SAMPLE) })
    }

    /// Which file or text is usable is found out when it is read ([`crate::trust`]); here only that there is any.
    fn trust(&mut self) -> TrustSources {
        const FIX: &str = "inject the pod again, or give a file in MESH_TRUST_BUNDLE_FILE";
        let state_dir = self.look_up(names::ENV_STATE_DIR, "write the path of a memory-backed directory");
        let file = self.look_up(names::ENV_TRUST_BUNDLE_FILE, FIX);
        let pem = self.look_up(names::ENV_TRUST_BUNDLE, FIX);
        if file.is_none() && pem.is_none() && state_dir.is_none() {
            self.wrong(names::ENV_TRUST_BUNDLE, None, "is not set, and no other source of roots of trust is", FIX);
        }
        TrustSources { state_dir: state_dir.map(Into::into), file: file.map(Into::into), pem }
    }
}

fn host_port(text: &str) -> Result<HostPort, String> {
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("{port:?} is no port"))?;
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match in_brackets {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
        Some(address) => return Err(format!("{address:?} is no IPv6 address")),
        None if host.contains(':') => return Err("an IPv6 address stands in brackets".into()),
        None => host,
    };
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(in_name) {
        return Err(format!("{host:?} is no host name"));
    }
    Ok(HostPort { host: host.to_owned(), port })
}

fn access_log(text: &str) -> Result<AccessLog, String> {
    [AccessLog::Off, AccessLog::Json]
        .into_iter()
        .find(|known| known.as_str() == text)
        .ok_or_else(|| "is neither".into())
}

fn collector(text: &str) -> Result<HostPort, String> {
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some((scheme, _)) => return Err(format!("{scheme} is not spoken")),
        None => return Err("has no http://".into()),
    };
    host_port(rest.strip_suffix('/').unwrap_or(rest))
}

fn mark(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    number.filter(|mark| *mark != 0).ok_or_else(|| "is not a number from 1 to 0xffffffff".into())
}

fn unresolved(text: &str) -> Result<Unresolved, String> {
    [Unresolved::Refuse, Unresolved::PassThrough]
        .into_iter()
        .find(|known| known.as_str() == text)
        .ok_or_else(|| "is neither".into())
}

fn log_filter(text: &str) -> Result<String, String> {
    telemetry::check(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn log_format(text: &str) -> Result<Format, String> {
    match text {
        "plain" => Ok(Format::Plain),
        "json" => Ok(Format::Json),
        _ => Err("is neither plain nor json".into()),
    }
}

fn within<T: FromStr + PartialOrd + fmt::Display>(text: &str, least: T, most: T) -> Result<T, String> {
    let number: Option<T> = text.parse().ok();
    number
        .filter(|number| *number >= least && *number <= most)
        .ok_or_else(|| format!("is not a number from {least} to {most}"))
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
    fn controller_addresses() {
        for (text, good) in [
            ("mesh-controller.mesh-system.svc:8443", true),
            ("10.0.0.1:1", true),
            ("[::1]:8443", true),
            ("host", false),
            ("host:0", false),
            ("host:99999", false),
            (":8443", false),
            ("[host]:1", false),
            ("https://host:1", false),
        ] {
            assert_eq!(host_port(text).is_ok(), good, "{text}");
        }
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

    #[test]
    fn collectors_are_spoken_to_in_clear_text() {
        for (text, good) in [
            ("http://otel:4317", true),
            ("http://[fd00::1]:4317/", true),
            ("https://otel:4317", false),
            ("otel:4317", false),
            ("http://otel", false),
            ("http://otel:4317/v1/traces", false),
        ] {
            assert_eq!(collector(text).is_ok(), good, "{text}");
        }
    }
}
