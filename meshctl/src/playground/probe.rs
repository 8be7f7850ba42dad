//! Probes of containers, as a kubelet performs them: from the node, at the pod's address.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Pod, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{network::Network, select};

/// While something waits for the answer (at a start), probes come at this pace: there is no machine to spare here, and
/// a person is waiting.
pub(crate) const EAGER: Duration = Duration::from_millis(100);

/// A probe that can be performed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    what: What,
    address: SocketAddr,
    timeout: Duration,
    /// Between two checks.
    pub(crate) period: Duration,
    /// Failures in a row that count as one.
    pub(crate) failures: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// Status 200 to 399 for this path.
    Http { path: String, host: String },
    /// A connection is accepted.
    Tcp,
}

impl Check {
    /// Reads a probe; `None` where there is none, an error in words where the playground cannot perform it.
    pub(crate) fn of(probe: Option<&Probe>, pod: &Pod, address: Ipv4Addr) -> Result<Option<Self>, String> {
        let Some(probe) = probe else { return Ok(None) };
        let (what, port) = if let Some(http) = &probe.http_get {
            if http.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
                return Err("has an HTTPS probe, which the playground does not perform".to_owned());
            }
            let path = http.path.clone().unwrap_or_else(|| "/".to_owned());
            let host = http.host.clone().unwrap_or_else(|| address.to_string());
            (What::Http { path, host }, &http.port)
        } else if let Some(tcp) = &probe.tcp_socket {
            (What::Tcp, &tcp.port)
        } else {
            return Err("has a probe that is neither HTTP nor TCP, which the playground does not perform".to_owned());
        };
        let port = match port {
            IntOrString::Int(number) => u16::try_from(*number).ok(),
            IntOrString::String(name) => select::named_port(pod, name),
        };
        let port = port.ok_or_else(|| "has a probe of a port that it does not have".to_owned())?;
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(
                value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default),
            )
        };
        Ok(Some(Self {
            what,
            address: SocketAddr::new(IpAddr::V4(address), port),
            timeout: seconds(probe.timeout_seconds, 1),
            period: seconds(probe.period_seconds, 10),
            failures: probe.failure_threshold.and_then(|count| u32::try_from(count).ok()).unwrap_or(3).max(1),
        }))
    }

    /// Longest that a start may take until it counts as failed: an answer may take as long as its timeout.
    pub(crate) fn patience(&self) -> Duration {
        self.period.max(self.timeout) * self.failures
    }

    /// Performs it once.
    pub(crate) async fn perform(&self, network: &Arc<Network>) -> Result<(), String> {
        let (check, network) = (self.clone(), Arc::clone(network));
        match tokio::task::spawn_blocking(move || check.blocking(&network)).await {
            Ok(result) => result,
            Err(error) => Err(error.to_string()),
        }
    }

    fn blocking(&self, network: &Network) -> Result<(), String> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("probe of {}: no answer within {:?}", self.address, self.timeout)
            }
            _ => format!("probe of {}: {error}", self.address),
        };
        let mut stream = network.dial(self.address, self.timeout).map_err(failed)?;
        let What::Http { path, host } = &self.what else { return Ok(()) };
        stream.set_read_timeout(Some(self.timeout)).map_err(failed)?;
        stream.set_write_timeout(Some(self.timeout)).map_err(failed)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/playground\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut head = Vec::new();
        // The status line is all that counts; the rest is read so that the server does not see an abort.
        stream.take(64 << 10).read_to_end(&mut head).map_err(failed)?;
        status(&head).map_err(|reason| format!("probe of http://{}{path}: {reason}", self.address))
    }
}

/// Success or not, from the first line of an answer.
fn status(head: &[u8]) -> Result<(), String> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let code = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split_ascii_whitespace().nth(1)?.parse::<u16>().ok());
    match code {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("status {code}")),
        None => Err(format!("not an HTTP answer: {:?}", line.chars().take(40).collect::<String>())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(probe: serde_json::Value) -> Result<Option<Check>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        }))
        .unwrap();
        let probe: Probe = serde_json::from_value(probe).unwrap();
        Check::of(Some(&probe), &pod, Ipv4Addr::new(10, 244, 0, 2))
    }

    #[test]
    fn probes_are_read_with_kubernetes_defaults_and_named_ports() {
        let http =
            check(json!({"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2})).unwrap().unwrap();
        assert_eq!(http.address.to_string(), "10.244.0.2:8080");
        assert_eq!((http.period, http.timeout, http.failures), (Duration::from_secs(2), Duration::from_secs(1), 3));
        assert_eq!(check(json!({"tcpSocket": {"port": 7000}})).unwrap().unwrap().what, What::Tcp);
        assert!(check(json!({"exec": {"command": ["true"]}})).is_err());
        assert!(check(json!({"httpGet": {"port": "unknown"}})).is_err());
        assert!(check(json!({"httpGet": {"port": 1, "scheme": "HTTPS"}})).is_err());
    }

    #[test]
    fn an_answer_counts_by_its_status() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        assert_eq!(status(b"HTTP/1.0 302 Found\r\n"), Ok(()));
        assert_eq!(status(b"HTTP/1.1 503 Service Unavailable\r\n"), Err("status 503".to_owned()));
        for foreign in [&b"SSH-2.0\r\n"[..], b"", b"HTTP/1.1 abc"] {
            assert!(status(foreign).is_err());
        }
    }
}
