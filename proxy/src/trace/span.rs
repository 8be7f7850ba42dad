//! A finished request as a span, by OpenTelemetry's semantic conventions for HTTP and RPC. Pure.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use mesh_proto::tap::{Direction, TapEvent, TapRequestInfo};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::Span;

/// Methods that are names of spans; others would let a client make as many names as it likes.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// gRPC statuses that are the server's fault, by the conventions; a client takes every status but 0 for an error.
const SERVER_ERRORS: [u32; 6] = [2, 4, 12, 13, 14, 15];

pub(super) fn data(span: &Span, event: &TapEvent) -> SpanData {
    let begun = SystemTime::UNIX_EPOCH + Duration::from_micros(event.started_us);
    let context = span.context;
    SpanData {
        span_context: SpanContext::new(context.trace, context.span, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: span.parent.unwrap_or(SpanId::INVALID),
        parent_span_is_remote: span.parent.is_some(),
        span_kind: match event.direction {
            Direction::Inbound => SpanKind::Server,
            Direction::Outbound => SpanKind::Client,
        },
        name: event.request.as_ref().and_then(known_method).map_or(Cow::Borrowed("HTTP"), Cow::Borrowed),
        start_time: begun,
        end_time: begun + Duration::from_micros(event.latency_us),
        attributes: attributes(event),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if error(event).is_some() { Status::error("") } else { Status::Unset },
        instrumentation_scope: InstrumentationScope::builder("mesh-proxy").build(),
    }
}

fn attributes(event: &TapEvent) -> Vec<KeyValue> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut all = Vec::with_capacity(24);
    let mut add = |key: &'static str, value: opentelemetry::Value| all.push(KeyValue::new(key, value));
    if let Some(request) = &event.request {
        let method = known_method(request);
        add("http.request.method", method.unwrap_or("_OTHER").into());
        if method.is_none() {
            add("http.request.method_original", request.method.clone().into());
        }
        add("url.scheme", "http".into());
        add("url.path", request.path.clone().into());
        let (host, port) = server(&request.authority);
        if !host.is_empty() {
            add("server.address", host.to_owned().into());
        }
        if let Some(port) = port {
            add("server.port", i64::from(port).into());
        }
        if let Some(status) = request.status {
            add("http.response.status_code", i64::from(status).into());
        }
        if let Some(status) = request.grpc_status {
            add("rpc.system", "grpc".into());
            add("rpc.grpc.status_code", i64::from(status).into());
        }
        add("network.protocol.name", "http".into());
        add("network.protocol.version", if request.http2 { "2" } else { "1.1" }.into());
        add("http.request.body.size", number(event.bytes_in).into());
        add("http.response.body.size", number(event.bytes_out).into());
    }
    let peer = match event.direction {
        Direction::Inbound => {
            add("client.address", event.source.ip().to_string().into());
            event.source
        }
        Direction::Outbound => event.destination,
    };
    add("network.peer.address", peer.ip().to_string().into());
    add("network.peer.port", i64::from(peer.port()).into());
    if let Some(service) = &event.service {
        add("peer.service", service.name.to_string().into());
        add("mesh.service", service.to_string().into());
    }
    if let Some(pod) = &event.destination_pod {
        add("mesh.destination.pod", pod.to_string().into());
    }
    if let Some(identity) = &event.source_identity {
        add("mesh.client.id", identity.to_string().into());
    }
    if let Some(identity) = &event.destination_identity {
        add("mesh.server.id", identity.to_string().into());
    }
    if !event.route.is_empty() {
        add("mesh.route", event.route.clone().into());
    }
    add("mesh.tls", event.tls.into());
    if let Some(error) = error(event) {
        add("error.type", error.into());
    }
    all
}

/// What kind of error it is, if it is one: the mesh's code, else the status.
fn error(event: &TapEvent) -> Option<String> {
    if !event.outcome.is_empty() {
        return Some(event.outcome.clone());
    }
    let request = event.request.as_ref()?;
    let client = event.direction == Direction::Outbound;
    let Some(status) = request.status else { return Some("no-answer".to_owned()) };
    if let Some(grpc) =
        request.grpc_status.filter(|grpc| if client { *grpc != 0 } else { SERVER_ERRORS.contains(grpc) })
    {
        return Some(grpc.to_string());
    }
    (status >= if client { 400 } else { 500 }).then(|| status.to_string())
}

fn known_method(request: &TapRequestInfo) -> Option<&'static str> {
    METHODS.into_iter().find(|method| *method == request.method)
}

/// Host and port of an authority.
fn server(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(direction: Direction, status: Option<u16>, grpc_status: Option<u32>, outcome: &str) -> TapEvent {
        let (source, destination) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        TapEvent {
            tls: true,
            outcome: outcome.to_owned(),
            request: Some(TapRequestInfo {
                method: "BREW".into(),
                path: "/".into(),
                authority: "web:80".into(),
                status,
                grpc_status,
                http2: true,
                ..TapRequestInfo::default()
            }),
            ..TapEvent::between(direction, source, destination)
        }
    }

    #[test]
    fn what_is_an_error_depends_on_the_side() {
        use Direction::{Inbound, Outbound};
        for (direction, status, grpc, outcome, expected) in [
            (Outbound, Some(200), None, "", None),
            (Outbound, Some(404), None, "", Some("404")),
            (Inbound, Some(404), None, "", None),
            (Inbound, Some(500), None, "", Some("500")),
            (Outbound, Some(200), Some(5), "", Some("5")),
            (Inbound, Some(200), Some(5), "", None),
            (Inbound, Some(200), Some(14), "", Some("14")),
            (Inbound, Some(200), Some(0), "", None),
            (Outbound, None, None, "", Some("no-answer")),
            (Outbound, Some(503), None, "no-endpoints", Some("no-endpoints")),
        ] {
            let event = event(direction, status, grpc, outcome);
            assert_eq!(error(&event).as_deref(), expected, "{direction:?} {status:?} {grpc:?} {outcome}");
        }
    }

    #[test]
    fn a_method_of_the_clients_own_names_no_span() {
        let span = Span { context: super::super::Context::root(true), parent: None };
        let data = data(&span, &event(Direction::Outbound, Some(200), None, ""));
        assert_eq!(data.name, "HTTP");
        let find = |key: &str| data.attributes.iter().find(|it| it.key.as_str() == key).map(|it| it.value.to_string());
        assert_eq!(find("http.request.method").as_deref(), Some("_OTHER"));
        assert_eq!(find("http.request.method_original").as_deref(), Some("BREW"));
        assert_eq!((find("server.address").as_deref(), find("server.port").as_deref()), (Some("web"), Some("80")));
    }

    #[test]
    fn authorities() {
        assert_eq!(server("web"), ("web", None));
        assert_eq!(server("[fd00::1]"), ("[fd00::1]", None));
        assert_eq!(server("[fd00::1]:80"), ("[fd00::1]", Some(80)));
    }
}
