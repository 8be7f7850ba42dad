//! Names of Kubernetes things that travel between our processes: pods and service ports.

use std::{fmt, sync::Arc};

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
