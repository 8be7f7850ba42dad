//! Envoy's bootstrap as JSON: one listener each way, a filter chain per port of the server.

use std::{net::Ipv4Addr, path::PathBuf};

use mesh_proto::names;
use serde_json::{Value, json};

use super::hardened;

/// What one sidecar is to do.
#[derive(Debug, Clone, Copy)]
pub struct Sidecar<'a> {
    /// The service account it is of.
    pub account: &'a str,
    /// The only service account it speaks with, in both directions.
    pub peer: &'a str,
    /// What is carried.
    pub ports: &'a [Port<'a>],
    /// The server, whatever address the client dials; none: the address it dials.
    pub server: Option<Ipv4Addr>,
    /// Whether clients outside the mesh are let in, without TLS.
    pub plaintext: bool,
    /// Whether it bears hostile clients: its makers' advice for an edge proxy, and limits like those of ours.
    pub hardened: bool,
    /// File descriptors that it is allowed; none: as many as the caller. A hardened one is told how many connections they suffice for.
    pub descriptors: Option<u32>,
}

/// One port of the server.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    /// Part of names in the configuration.
    pub name: &'a str,
    /// Its number.
    pub number: u16,
    /// What the two proxies speak with each other for it.
    pub between: Speech,
    /// What the application speaks.
    pub app: Speech,
}

/// What connections speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge.
    Http2,
    /// No protocol.
    Bytes,
}

/// What it reads of its identity.
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) roots: PathBuf,
}

/// Level and name of `SO_MARK` among socket options.
const SO_MARK: (u8, u8) = (1, 36);

/// The whole of it; `peer` is the identity of the sidecar's peer.
pub(super) fn bootstrap(files: &Files, peer: &str, sidecar: &Sidecar<'_>) -> Value {
    let tls = Tls { files, peer };
    let all = |one: &dyn Fn(&Port<'_>) -> Value| sidecar.ports.iter().map(one).collect::<Vec<_>>();
    let outbound = all(&|port| chain(port, None, &filter("peer", port)));
    let mut inbound = all(&|port| chain(port, Some(&tls), &filter("app", port)));
    if sidecar.plaintext {
        let mut without = all(&|port| chain(port, None, &filter("app", port)));
        for (chains, protocol) in [(&mut inbound, "tls"), (&mut without, "raw_buffer")] {
            for chain in chains {
                chain["filter_chain_match"]["transport_protocol"] = protocol.into();
            }
        }
        inbound.append(&mut without);
    }
    let mark = json!({
        "level": SO_MARK.0, "name": SO_MARK.1, "int_value": names::PROXY_MARK, "state": "STATE_PREBIND",
    });
    let mut clusters = all(&|port| cluster("peer", port, port.between, Some(&tls), sidecar.server));
    clusters.extend(all(&|port| cluster("app", port, port.app, None, None)));
    let mut bootstrap = json!({
        "admin": {"address": address("127.0.0.1", names::PORT_PROXY_ADMIN)},
        "cluster_manager": {"upstream_bind_config": {"socket_options": [mark]}},
        "static_resources": {
            "listeners": [
                listener("outbound", "127.0.0.1", names::PORT_OUTBOUND, &outbound, false),
                listener("inbound", "0.0.0.0", names::PORT_INBOUND, &inbound, sidecar.plaintext),
            ],
            "clusters": clusters,
        },
    });
    if sidecar.hardened {
        hardened::apply(&mut bootstrap, sidecar.descriptors);
    }
    bootstrap
}

struct Tls<'a> {
    files: &'a Files,
    peer: &'a str,
}

impl Tls<'_> {
    /// TLS 1.3, as ours: the same key exchanges in the same order, the peer by its SPIFFE id.
    fn common(&self, alpn: &[&str]) -> Value {
        json!({
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
                "ecdh_curves": ["X25519MLKEM768", "X25519", "P-256"],
            },
            "alpn_protocols": alpn,
            "tls_certificates": [{
                "certificate_chain": {"filename": self.files.certificate},
                "private_key": {"filename": self.files.key},
            }],
            "validation_context": {
                "trusted_ca": {"filename": self.files.roots},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": self.peer}}],
            },
        })
    }
}

fn listener(name: &str, ip: &str, port: u16, chains: &[Value], tells_tls: bool) -> Value {
    let filter = |name: &str, kind: &str| {
        let kind = format!("type.googleapis.com/envoy.extensions.filters.listener.{name}.v3.{kind}");
        json!({"name": format!("envoy.filters.listener.{name}"), "typed_config": {"@type": kind}})
    };
    let mut filters = vec![filter("original_dst", "OriginalDst")];
    if tells_tls {
        filters.push(filter("tls_inspector", "TlsInspector"));
    }
    json!({"name": name, "address": address(ip, port), "listener_filters": filters, "filter_chains": chains})
}

fn chain(port: &Port<'_>, tls: Option<&Tls<'_>>, filter: &Value) -> Value {
    let mut chain = json!({"filter_chain_match": {"destination_port": port.number}, "filters": [filter]});
    if let Some(tls) = tls {
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": tls.common(&["h2", "http/1.1", "bytes"]),
            },
        });
    }
    chain
}

fn filter(to: &str, port: &Port<'_>) -> Value {
    let cluster = name(to, port);
    if port.app == Speech::Bytes { bytes_to(&cluster) } else { http_to(&cluster) }
}

fn http_to(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": cluster,
            "codec_type": "AUTO",
            "route_config": {"virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        },
    })
}

fn bytes_to(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster,
            "cluster": cluster,
        },
    })
}

fn name(to: &str, port: &Port<'_>) -> String {
    format!("{to}-{}", port.name)
}

fn cluster(to: &str, port: &Port<'_>, speech: Speech, tls: Option<&Tls<'_>>, server: Option<Ipv4Addr>) -> Value {
    let name = name(to, port);
    let mut cluster = match server {
        Some(ip) => {
            let endpoint = json!({"endpoint": {"address": address(&ip.to_string(), port.number)}});
            let assignment = json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]});
            json!({"name": name, "type": "STATIC", "load_assignment": assignment})
        }
        None => json!({"name": name, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}),
    };
    let (options, alpn) = match speech {
        Speech::Http1 => (Some(json!({"http_protocol_options": {}})), "http/1.1"),
        Speech::Http2 => (Some(json!({"http2_protocol_options": {}})), "h2"),
        Speech::Bytes => (None, "bytes"),
    };
    if let Some(options) = options {
        let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let mut all = json!({"explicit_http_config": options});
        all["@type"] = format!("type.googleapis.com/{kind}").into();
        cluster["typed_extension_protocol_options"][kind] = all;
    }
    if let Some(tls) = tls {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": tls.common(&[alpn]),
            },
        });
    }
    cluster
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: [Port<'static>; 2] = [
        Port { name: "http", number: 1, between: Speech::Http2, app: Speech::Http1 },
        Port { name: "bytes", number: 2, between: Speech::Bytes, app: Speech::Bytes },
    ];
    const PLAIN: Sidecar<'static> = Sidecar {
        account: "a",
        peer: "b",
        ports: &PORTS,
        server: None,
        plaintext: false,
        hardened: false,
        descriptors: None,
    };

    fn text(sidecar: &Sidecar<'_>) -> String {
        let files = Files { certificate: "c".into(), key: "k".into(), roots: "r".into() };
        bootstrap(&files, "spiffe://b", sidecar).to_string()
    }

    #[test]
    fn what_is_measured_has_nothing_of_what_is_attacked() {
        let plain = text(&PLAIN);
        let server = Some(Ipv4Addr::LOCALHOST);
        let attacked = text(&Sidecar { server, plaintext: true, hardened: true, descriptors: Some(256), ..PLAIN });
        // With how often each is to be there.
        for (word, times) in [
            (r#""type":"STATIC""#, 2),
            (r#""transport_protocol":"tls""#, 2),
            (r#""transport_protocol":"raw_buffer""#, 2),
            ("TlsInspector", 1),
            ("circuit_breakers", 4),
            ("per_connection_buffer_limit_bytes", 6),
            ("transport_socket_connect_timeout", 6),
            ("request_headers_timeout", 3),
            ("initial_stream_window_size", 4),
            (r#""max_active_downstream_connections":"102""#, 1),
        ] {
            assert_eq!(attacked.matches(word).count(), times, "{word}");
            assert!(!plain.contains(word), "{word}");
        }
    }
}
