//! The application's own health probes, as the sidecar performs them (contracts §8).
//!
//! The injector points every HTTP, TCP and gRPC probe of the application at the sidecar's admin port and puts the
//! originals, as the JSON list [`list`] and [`parse_list`] agree on, into the sidecar's environment
//! ([`names::ENV_PROBES`](crate::names::ENV_PROBES)). The proxy performs exactly that probe on the pod's own address when
//! the kubelet asks for [`Probe::path`]; `meshctl uninject` reads [`Probe::original`]. Knows no Kubernetes type and makes no
//! connection.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One probe of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Name of the container it is about.
    pub container: String,
    /// Which of its probes.
    pub kind: ProbeKind,
    /// What to do.
    #[serde(flatten)]
    pub action: ProbeAction,
    /// How long it may take; at least 1. Kubernetes' default is 1.
    pub timeout_seconds: u32,
    /// The handler as the manifest had it, with its key (`tcpSocket: {port: db}`), as YAML text (JSON where no person
    /// wrote it): what `uninject` puts back. The proxy does not look at it.
    pub original: String,
}

/// Which probe of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// `livenessProbe`.
    Liveness,
    /// `readinessProbe`.
    Readiness,
    /// `startupProbe`.
    Startup,
}

/// What a probe does; as JSON one of the keys `http`, `tcp` and `grpc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeAction {
    /// GET; any status of 200 to 399 is well.
    Http(HttpProbe),
    /// Connect; accepted is well.
    Tcp(TcpProbe),
    /// `grpc.health.v1.Health/Check`; SERVING is well.
    Grpc(GrpcProbe),
}

/// A GET.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpProbe {
    /// Port of the pod.
    pub port: u16,
    /// Path and query; starts with `/`.
    pub path: String,
    /// How to speak. The certificate is not verified with HTTPS, as the kubelet does not.
    #[serde(default, skip_serializing_if = "Scheme::is_http")]
    pub scheme: Scheme,
    /// Headers to send, in order; a `Host` among them replaces the usual one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

/// How an HTTP probe speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// TLS.
    Https,
}

/// A connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpProbe {
    /// Port of the pod.
    pub port: u16,
}

/// A gRPC health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcProbe {
    /// Port of the pod.
    pub port: u16,
    /// Service to ask about; empty asks about the server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
}

impl Probe {
    /// Path on the sidecar's admin port behind which this probe is performed.
    pub fn path(&self) -> String {
        path(&self.container, self.kind)
    }
}

impl ProbeKind {
    /// Every kind, in the order Kubernetes documents them.
    pub const ALL: [Self; 3] = [Self::Liveness, Self::Readiness, Self::Startup];

    /// As in the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
            Self::Startup => "startup",
        }
    }

    /// Its field in a container.
    pub fn field(self) -> &'static str {
        match self {
            Self::Liveness => "livenessProbe",
            Self::Readiness => "readinessProbe",
            Self::Startup => "startupProbe",
        }
    }
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Scheme {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
    fn is_http(&self) -> bool {
        matches!(self, Self::Http)
    }
}

/// Path on the sidecar's admin port behind which a container's probe of this kind is performed.
pub fn path(container: &str, kind: ProbeKind) -> String {
    format!("/probe/{container}/{kind}")
}

/// The value of the sidecar's environment variable. Holds no `$`: Kubernetes would expand `$(NAME)` in it.
pub fn list(probes: &[Probe]) -> String {
    let text = serde_json::to_string(probes).expect("strings and numbers always make JSON");
    text.replace('$', "\\u0024")
}

/// Reads what [`list`] wrote.
pub fn parse_list(text: &str) -> Result<Vec<Probe>, BadProbes> {
    serde_json::from_str(text).map_err(|error| BadProbes(error.to_string()))
}

/// Not a list of probes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read the list of probes: {0}")]
pub struct BadProbes(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(action: ProbeAction) -> Probe {
        Probe {
            container: "web".into(),
            kind: ProbeKind::Liveness,
            action,
            timeout_seconds: 3,
            original: "port: $(HTTP) # why".into(),
        }
    }

    #[test]
    fn a_list_of_probes_survives_the_environment() {
        let http = |scheme, headers| HttpProbe { port: 8080, path: "/healthz?a=$(B)".into(), scheme, headers };
        let all = vec![
            probe(ProbeAction::Http(http(Scheme::Http, vec![]))),
            probe(ProbeAction::Http(http(Scheme::Https, vec![("Host".into(), "a\"b".into())]))),
            probe(ProbeAction::Tcp(TcpProbe { port: 5432 })),
            probe(ProbeAction::Grpc(GrpcProbe { port: 9000, service: "a.B".into() })),
        ];
        let text = list(&all);
        assert!(!text.contains('$'), "{text}");
        assert_eq!(parse_list(&text), Ok(all));
    }

    #[test]
    fn the_json_is_what_the_documentation_says() {
        let text = r#"[{"container":"web","kind":"readiness","http":{"port":80,"path":"/"},"timeoutSeconds":1,"original":""}]"#;
        let probes = parse_list(text).expect("parses");
        assert_eq!(probes[0].path(), "/probe/web/readiness");
        assert_eq!(list(&probes), text);
    }

    #[test]
    fn foreign_text_is_refused() {
        for text in
            ["", "{}", "[{}]", "[1]", r#"[{"container":"a","kind":"liveness","timeoutSeconds":1,"original":""}]"#]
        {
            assert!(parse_list(text).is_err(), "{text}");
        }
    }
}
