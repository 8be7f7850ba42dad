//! What ports speak: the readings shared by pods, Services and slices. Pure.

use mesh_proto::{names, workload::Protocol};

/// What a port speaks, as `appProtocol` or else its name declare it; [`Protocol::Detect`] where neither does. A name
/// counts up to its first dash, e.g. `http-admin`.
pub fn declared(app_protocol: Option<&str>, name: Option<&str>) -> Protocol {
    if let Some(app_protocol) = app_protocol {
        return protocol(app_protocol);
    }
    protocol(name.unwrap_or_default().split('-').next().unwrap_or_default())
}

fn protocol(word: &str) -> Protocol {
    match word.to_ascii_lowercase().as_str() {
        "http" | "http1" | "http/1.1" | "kubernetes.io/ws" => Protocol::Http1,
        "http2" | "h2c" | "kubernetes.io/h2c" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "tcp" => Protocol::Opaque,
        "tls" | "https" | "kubernetes.io/wss" => Protocol::Tls,
        _ => Protocol::Detect,
    }
}

/// What an undeclared port is taken for.
pub fn default_protocol(port: u16) -> Protocol {
    if names::DEFAULT_OPAQUE_PORTS.contains(&port) { Protocol::Opaque } else { Protocol::Detect }
}

/// A port number as Kubernetes writes it.
pub(super) fn number(value: i32) -> Option<u16> {
    u16::try_from(value).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_wins_over_the_name() {
        for (app_protocol, name, expected) in [
            (None, None, Protocol::Detect),
            (None, Some("http"), Protocol::Http1),
            (None, Some("http-admin"), Protocol::Http1),
            (None, Some("https"), Protocol::Tls),
            (None, Some("grpc-api"), Protocol::Grpc),
            (None, Some("h2c"), Protocol::Http2),
            (None, Some("web"), Protocol::Detect),
            (None, Some("tcp-redis"), Protocol::Opaque),
            (Some("kubernetes.io/h2c"), Some("http"), Protocol::Http2),
            (Some("grpc"), Some("web"), Protocol::Grpc),
            (Some("example.com/own"), Some("http"), Protocol::Detect),
        ] {
            assert_eq!(declared(app_protocol, name), expected, "{app_protocol:?} {name:?}");
        }
    }
}
