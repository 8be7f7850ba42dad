//! What makes Envoy bear hostile clients: its makers' advice, "Configuring Envoy as an edge proxy", and the limits that ours has by
//! itself, with the same figures, so that both are judged by the same bars. Added to a bootstrap that is there already.
//!
//! Of the advice it leaves out what decides about paths (there are no rules here) and the limit of the heap (no row gives ours one).

use serde_json::{Value, json};

/// How soon a client has to have sent a head, or its part of a handshake: as ours.
const HEAD: &str = "10s";
/// Requests and connections to one cluster: as many as there are. By itself it has a breaker at 1,024.
const UNBROKEN: u32 = 1_000_000;

pub(super) fn apply(bootstrap: &mut Value, descriptors: Option<u32>) {
    if let Some(descriptors) = descriptors {
        bootstrap["overload_manager"] = json!({
            "refresh_interval": "0.25s",
            "resource_monitors": [{
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    // Two descriptors each, and a fifth for all else, as ours reckons.
                    "max_active_downstream_connections": (descriptors * 8 / 10 / 2).to_string(),
                },
            }],
        });
        bootstrap["admin"]["ignore_global_conn_limit"] = true.into();
    }
    // By itself it gives nothing back to the kernel.
    bootstrap["memory_allocator_manager"] = json!({"bytes_to_release": 64 << 20, "memory_release_interval": "1s"});
    let resources = &mut bootstrap["static_resources"];
    each(&mut resources["listeners"], |listener| {
        listener["per_connection_buffer_limit_bytes"] = (32 << 10).into();
        listener["listener_filters_timeout"] = HEAD.into();
        each(&mut listener["filter_chains"], |chain| {
            chain["transport_socket_connect_timeout"] = HEAD.into();
            let config = &mut chain["filters"][0]["typed_config"];
            if config["codec_type"].is_string() {
                requests(config);
            }
        });
    });
    each(&mut resources["clusters"], |cluster| {
        cluster["per_connection_buffer_limit_bytes"] = (32 << 10).into();
        cluster["circuit_breakers"] = json!({"thresholds": [{
            "max_connections": UNBROKEN, "max_pending_requests": UNBROKEN, "max_requests": UNBROKEN,
        }]});
        let spoken = cluster.pointer_mut("/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/explicit_http_config/http2_protocol_options");
        if let Some(options) = spoken {
            *options = windows();
        }
    });
}

/// Of a connection manager.
fn requests(config: &mut Value) {
    config["use_remote_address"] = true.into();
    config["common_http_protocol_options"] =
        json!({"idle_timeout": "3600s", "headers_with_underscores_action": "REJECT_REQUEST"});
    config["http2_protocol_options"] = windows();
    config["http2_protocol_options"]["max_concurrent_streams"] = 100.into();
    config["request_headers_timeout"] = HEAD.into();
    config["stream_idle_timeout"] = "300s".into();
    config["request_timeout"] = "300s".into();
    let route = &mut config["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
    route["timeout"] = "15s".into();
    route["idle_timeout"] = "15s".into();
}

fn windows() -> Value {
    json!({"initial_stream_window_size": 64 << 10, "initial_connection_window_size": 1 << 20})
}

fn each(list: &mut Value, change: impl FnMut(&mut Value)) {
    list.as_array_mut().into_iter().flatten().for_each(change);
}
