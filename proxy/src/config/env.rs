//! The environment of a proxy (`MESH_…`, written by the injector) as a [`Config`]. Reports every mistake in one start.

use std::{fmt, net::IpAddr, net::Ipv6Addr, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use mesh_proto::{identity::Identity, names, probe};

use super::{Config, DataConfig, Unresolved};

/// Where strings come from: the environment, or a table in tests.
pub trait Strings {
    /// The value of a variable, none where it is not set.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Strings for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// All that is wrong with an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the proxy's settings cannot be used:", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

/// Seconds a drain may take where nothing is said: Kubernetes' grace of 30 s, less time to report and end.
const DRAIN_SECONDS: u64 = 25;
/// A pod with more cores than this does not want a proxy on all of them.
const MAX_WORKERS: usize = 64;

pub(super) fn parse(strings: &dyn Strings) -> Result<Config, ConfigErrors> {
    let mut read = Reader { strings, errors: Vec::new() };

    let pod_namespace = read.required(names::ENV_POD_NAMESPACE);
    let service_account = read.required(names::ENV_SERVICE_ACCOUNT);
    let trust_domain = strings.get(names::ENV_TRUST_DOMAIN).unwrap_or_else(|| names::DEFAULT_TRUST_DOMAIN.to_owned());
    let identity = match Identity::new(&trust_domain, &pod_namespace, &service_account) {
        Ok(identity) => Some(identity),
        Err(error) => {
            // An empty part is reported as missing already.
            if !pod_namespace.is_empty() && !service_account.is_empty() {
                read.errors.push(format!("the pod's identity: {error}"));
            }
            None
        }
    };
    let pod_ips = read.pod_ips();
    let controller = read.required(names::ENV_CONTROLLER_ADDR);
    if !controller.is_empty() && controller.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        read.error(names::ENV_CONTROLLER_ADDR, &controller, "it is not host:port");
    }
    let socket_mark = read.parsed(names::ENV_SOCKET_MARK, "a number such as 8450 or 0x2102", parse_mark);
    let unresolved = read.parsed(names::ENV_UNRESOLVED, "refuse or pass-through", |text| match text {
        "refuse" => Some(Unresolved::Refuse),
        "pass-through" => Some(Unresolved::PassThrough),
        _ => None,
    });
    let workers = read.parsed(names::ENV_WORKERS, "a number from 1 to 64", |text| {
        text.parse().ok().filter(|workers| (1..=MAX_WORKERS).contains(workers))
    });
    let drain = read.parsed(names::ENV_DRAIN_SECONDS, "a number of seconds", |text| text.parse().ok());
    let probes = match strings.get(names::ENV_PROBES).as_deref().map(probe::parse_list) {
        None => Vec::new(),
        Some(Ok(probes)) => probes,
        Some(Err(error)) => {
            read.errors.push(format!("{}: {error}", names::ENV_PROBES));
            Vec::new()
        }
    };
    let config = Config {
        pod_name: read.required(names::ENV_POD_NAME),
        pod_uid: read.required(names::ENV_POD_UID),
        pod_namespace,
        controller,
        token_file: PathBuf::from(read.required(names::ENV_TOKEN_FILE)),
        state_dir: strings.get(names::ENV_STATE_DIR).map(PathBuf::from),
        trust_bundle_file: strings.get(names::ENV_TRUST_BUNDLE_FILE).map(PathBuf::from),
        trust_bundle: strings.get(names::ENV_TRUST_BUNDLE),
        log: strings.get(names::ENV_LOG).unwrap_or_else(|| "info".to_owned()),
        workers: workers.unwrap_or(1),
        drain_deadline: Duration::from_secs(drain.unwrap_or(DRAIN_SECONDS)),
        admin: SocketAddr::from((Ipv6Addr::UNSPECIFIED, names::PORT_PROXY_ADMIN)),
        probes,
        data: Arc::new(match identity {
            Some(identity) => DataConfig {
                socket_mark,
                unresolved: unresolved.unwrap_or_default(),
                ..DataConfig::new(identity, pod_ips)
            },
            None => return Err(ConfigErrors(read.errors)),
        }),
    };
    if read.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(read.errors)) }
}

/// Decimal, or hexadecimal with 0x. Zero is no mark.
fn parse_mark(text: &str) -> Option<u32> {
    let mark = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    mark.filter(|mark| *mark != 0)
}

struct Reader<'a> {
    strings: &'a dyn Strings,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn error(&mut self, name: &str, value: &str, reason: &str) {
        let value: String = value.chars().take(100).collect();
        self.errors.push(format!("{name}={value:?}: {reason}"));
    }

    /// Empty where it is missing, which is reported.
    fn required(&mut self, name: &str) -> String {
        let value = self.strings.get(name).unwrap_or_default();
        if value.is_empty() {
            self.errors.push(format!("{name} is not set; the injector sets it, so run the pod through it"));
        }
        value
    }

    fn parsed<T>(&mut self, name: &str, what: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.strings.get(name)?;
        let value = parse(&text);
        if value.is_none() {
            self.error(name, &text, &format!("it is not {what}"));
        }
        value
    }

    fn pod_ips(&mut self) -> Vec<IpAddr> {
        let text = self.required(names::ENV_POD_IPS);
        let mut ips = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.parse::<IpAddr>() {
                Ok(ip) => ips.push(ip),
                Err(_) => self.error(names::ENV_POD_IPS, part, "it is not an IP address"),
            }
        }
        ips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 9] = [
        (names::ENV_POD_NAME, "web-1"),
        (names::ENV_POD_NAMESPACE, "shop"),
        (names::ENV_POD_UID, "u-1"),
        (names::ENV_POD_IPS, "10.0.0.1,fd00::1"),
        (names::ENV_SERVICE_ACCOUNT, "web"),
        (names::ENV_CONTROLLER_ADDR, "mesh-controller.mesh-system.svc:8443"),
        (names::ENV_TOKEN_FILE, "/token"),
        (names::ENV_SOCKET_MARK, "0x2102"),
        (names::ENV_UNRESOLVED, "pass-through"),
    ];

    fn with(changes: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        parse(&|name: &str| {
            let changed = changes.iter().find(|(changed, _)| *changed == name);
            changed.or_else(|| GOOD.iter().find(|(good, _)| *good == name)).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_the_injector_writes_is_understood() {
        let config = with(&[]).unwrap();
        assert_eq!(config.data.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(config.data.pod_ips, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(config.data.socket_mark, Some(0x2102));
        assert_eq!(config.data.unresolved, Unresolved::PassThrough);
        assert_eq!((config.workers, config.drain_deadline), (1, Duration::from_secs(25)));
    }

    #[test]
    fn every_mistake_is_reported_in_one_start() {
        let error = with(&[
            (names::ENV_POD_NAME, ""),
            (names::ENV_POD_IPS, "10.0.0.1,nonsense"),
            (names::ENV_CONTROLLER_ADDR, "controller"),
            (names::ENV_SOCKET_MARK, "0x"),
            (names::ENV_UNRESOLVED, "maybe"),
            (names::ENV_WORKERS, "0"),
            (names::ENV_DRAIN_SECONDS, "soon"),
            (names::ENV_PROBES, "{"),
        ])
        .unwrap_err();
        assert_eq!(error.0.len(), 8, "{error}");
        let text = error.to_string();
        for part in [names::ENV_POD_NAME, "\"nonsense\"", "host:port", "0x2102", "pass-through", "1 to 64", "seconds"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn an_identity_that_cannot_be_is_refused() {
        assert!(with(&[(names::ENV_SERVICE_ACCOUNT, "We/b")]).unwrap_err().to_string().contains("identity"));
        assert!(with(&[(names::ENV_TRUST_DOMAIN, "Nope!")]).unwrap_err().to_string().contains("trust domain"));
    }
}
