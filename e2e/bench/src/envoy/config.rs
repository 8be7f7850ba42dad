//! Envoy's bootstrap as JSON: one listener each way, a filter chain per port of the server.

use std::path::PathBuf;

use mesh_proto::names;
use serde_json::{Value, json};

use super::Between;
use crate::load::server::{BYTES_PORT, CALLS_PORT, HTTP_PORT};

/// What it reads of its identity.
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) roots: PathBuf,
}

/// Level and name of `SO_MARK` among socket options.
const SO_MARK: (u8, u8) = (1, 36);
/// What a cluster's connections speak.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    Http1,
    Http2,
    Bytes,
}

pub(super) fn bootstrap(files: &Files, peer: &str, between: Between) -> Value {
    let tls = Tls { files, peer };
    let http = match between {
        Between::Http1 => Speech::Http1,
        Between::Http2 => Speech::Http2,
    };
    let mark = json!({
        "level": SO_MARK.0, "name": SO_MARK.1, "int_value": names::PROXY_MARK, "state": "STATE_PREBIND",
    });
    json!({
        "admin": {"address": address("127.0.0.1", names::PORT_PROXY_ADMIN)},
        "cluster_manager": {"upstream_bind_config": {"socket_options": [mark]}},
        "static_resources": {
            "listeners": [
                listener("outbound", "127.0.0.1", names::PORT_OUTBOUND, &[
                    chain(HTTP_PORT, None, &http_to("peer-http")),
                    chain(CALLS_PORT, None, &http_to("peer-calls")),
                    chain(BYTES_PORT, None, &bytes_to("peer-bytes")),
                ]),
                listener("inbound", "0.0.0.0", names::PORT_INBOUND, &[
                    chain(HTTP_PORT, Some(&tls), &http_to("app-http")),
                    chain(CALLS_PORT, Some(&tls), &http_to("app-calls")),
                    chain(BYTES_PORT, Some(&tls), &bytes_to("app-bytes")),
                ]),
            ],
            "clusters": [
                cluster("peer-http", http, Some(&tls)),
                cluster("peer-calls", Speech::Http2, Some(&tls)),
                cluster("peer-bytes", Speech::Bytes, Some(&tls)),
                cluster("app-http", Speech::Http1, None),
                cluster("app-calls", Speech::Http2, None),
                cluster("app-bytes", Speech::Bytes, None),
            ],
        },
    })
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

fn listener(name: &str, ip: &str, port: u16, chains: &[Value]) -> Value {
    let kind = "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    json!({
        "name": name,
        "address": address(ip, port),
        "listener_filters": [{"name": "envoy.filters.listener.original_dst", "typed_config": {"@type": kind}}],
        "filter_chains": chains,
    })
}

fn chain(port: u16, tls: Option<&Tls<'_>>, filter: &Value) -> Value {
    let mut chain = json!({"filter_chain_match": {"destination_port": port}, "filters": [filter]});
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

fn cluster(name: &str, speech: Speech, tls: Option<&Tls<'_>>) -> Value {
    let mut cluster = json!({"name": name, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"});
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
