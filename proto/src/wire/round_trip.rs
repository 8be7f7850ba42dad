//! Every domain value survives the wire, and no bytes from outside make a conversion panic.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};
use prost::Message as _;

use super::{Read, read_controller};
use crate::{
    config::{ControllerMessage, Hello, Holding, Key, ProxyMessage, Update, Value},
    endpoint::Endpoint,
    identity::Identity,
    inbound::{Action, ClientMatch, DefaultPolicy, InboundPolicy, PortPolicy, Rule},
    outbound::{
        Backend, HeaderMatch, OutboundPolicy, PathMatch, PodTarget, RequestMatch, Route, ServiceTarget, WeightedBackend,
    },
    tap::{Direction, TapEvent, TapExclusion, TapFilter, TapHeader, TapKind, TapRequestInfo},
    trust::TrustBundle,
    workload::{PodRef, Protocol, ServicePort},
};

#[test]
fn a_proxy_of_an_older_release_is_not_told_what_it_cannot_read() {
    // `drain_started`, with nothing in it.
    let read = super::ProxyMessage::decode(&[0x32, 0][..]).unwrap().try_into();
    assert_eq!(read, Ok(ProxyMessage::DrainStarted { reads_holding: false }));
}

proptest! {
    #[test]
    fn controller_messages_survive(message in controller_message()) {
        let bytes = super::ControllerMessage::from(message.clone()).encode_to_vec();
        let read = read_controller(super::ControllerMessage::decode(&bytes[..]).unwrap());
        prop_assert_eq!(read, Ok(Read::Message(message)));
    }

    #[test]
    fn proxy_messages_survive(message in proxy_message()) {
        let bytes = super::ProxyMessage::from(message.clone()).encode_to_vec();
        let read = super::ProxyMessage::decode(&bytes[..]).unwrap().try_into();
        prop_assert_eq!(read, Ok(message));
    }

    #[test]
    fn tap_filters_survive(filter in tap_filter()) {
        let bytes = super::TapRequest::from(filter.clone()).encode_to_vec();
        prop_assert_eq!(super::TapRequest::decode(&bytes[..]).unwrap().try_into(), Ok(filter));
    }

    #[test]
    fn tap_events_survive(event in tap_event()) {
        let bytes = super::TapEvent::from(event.clone()).encode_to_vec();
        prop_assert_eq!(super::TapEvent::decode(&bytes[..]).unwrap().try_into(), Ok(event));
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        super::fuzzing::read_messages(&bytes);
    }
}

#[test]
fn an_update_that_cannot_be_used_is_still_named() {
    let key = Key::Outbound("10.0.0.1:80".parse().unwrap());
    let update = |value| super::ControllerMessage {
        message: Some(super::controller_message::Message::Update(super::Update {
            key: Some(key.into()),
            version: 7,
            value,
        })),
    };
    let wrong_kind = super::update::Value::Inbound(InboundPolicy::default_allow().into());
    let no_target = super::update::Value::Outbound(super::OutboundPolicy { target: None });
    let mut unknown_default: super::InboundPolicy = InboundPolicy::default_allow().into();
    unknown_default.default.as_mut().unwrap().default = 99;
    for value in [None, Some(wrong_kind), Some(no_target), Some(super::update::Value::Inbound(unknown_default))] {
        match read_controller(update(value)) {
            Ok(Read::Unusable { key: named, version: 7, .. }) => assert_eq!(named, key),
            other => panic!("{other:?}"),
        }
    }
}

impl InboundPolicy {
    fn default_allow() -> Self {
        Self { ports: std::collections::BTreeMap::new(), default: PortPolicy::default() }
    }
}

fn name() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,8}[a-z0-9])?"
}

fn identity() -> impl Strategy<Value = Identity> {
    (name(), name()).prop_map(|(ns, sa)| Identity::new("cluster.local", &ns, &sa).unwrap())
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Detect, Protocol::Http1, Protocol::Http2, Protocol::Grpc, Protocol::Opaque, Protocol::Tls])
}

fn pod() -> impl Strategy<Value = PodRef> {
    (name(), name(), option::of(name())).prop_map(|(namespace, pod, workload)| PodRef {
        namespace: namespace.into(),
        name: pod.into(),
        workload: workload.map(|workload| format!("deployment/{workload}").into()),
    })
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    (name(), name(), any::<u16>()).prop_map(|(namespace, name, port)| ServicePort {
        namespace: namespace.into(),
        name: name.into(),
        port,
    })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (address(), option::of(identity()), option::of(pod())).prop_map(|(address, identity, pod)| Endpoint {
        address,
        identity,
        pod,
    })
}

fn request_match() -> impl Strategy<Value = RequestMatch> {
    let path = prop_oneof!["/[a-z/]{0,8}".prop_map(PathMatch::Exact), "/[a-z/]{0,8}".prop_map(PathMatch::Prefix)];
    let header = (name(), "[ -~]{0,8}").prop_map(|(name, value)| HeaderMatch {
        name: name.parse::<HeaderName>().unwrap(),
        value: value.parse::<HeaderValue>().unwrap(),
    });
    let method = select(vec![Method::GET, Method::POST, Method::from_bytes(b"PURGE").unwrap()]);
    (option::of(path), vec(header, 0..3), option::of(method)).prop_map(|(path, headers, method)| RequestMatch {
        path,
        headers,
        method,
    })
}

fn route() -> impl Strategy<Value = Route> {
    let backend =
        (option::of(0..10_usize), any::<u32>()).prop_map(|(backend, weight)| WeightedBackend { backend, weight });
    (name(), vec(request_match(), 0..3), vec(backend, 0..3)).prop_map(|(name, matches, backends)| Route {
        name: name.into(),
        matches,
        backends,
    })
}

fn outbound() -> impl Strategy<Value = OutboundPolicy> {
    let backend =
        (service_port(), vec(endpoint(), 0..3)).prop_map(|(service, endpoints)| Backend { service, endpoints });
    let service = (service_port(), protocol(), vec(route(), 0..3), vec(backend, 1..3)).prop_map(
        |(service, protocol, routes, backends)| {
            OutboundPolicy::Service(ServiceTarget { service, protocol, routes, backends })
        },
    );
    let pod =
        (endpoint(), protocol()).prop_map(|(endpoint, protocol)| OutboundPolicy::Pod(PodTarget { endpoint, protocol }));
    prop_oneof![service, pod, Just(OutboundPolicy::External)]
}

fn port_policy() -> impl Strategy<Value = PortPolicy> {
    let client = prop_oneof![
        identity().prop_map(ClientMatch::Identity),
        (name(), name()).prop_map(|(namespace, name)| ClientMatch::ServiceAccount {
            namespace: namespace.into(),
            name: name.into()
        }),
        name().prop_map(|namespace| ClientMatch::Namespace(namespace.into())),
    ];
    let rule = (name(), select(vec![Action::Allow, Action::Deny]), vec(client, 0..3))
        .prop_map(|(name, action, clients)| Rule { name: name.into(), action, clients });
    (protocol(), select(DefaultPolicy::ALL.to_vec()), vec(rule, 0..3))
        .prop_map(|(protocol, default, rules)| PortPolicy { protocol, default, rules })
}

fn value_with_key() -> impl Strategy<Value = (Key, Value)> {
    let inbound = (btree_map(any::<u16>(), port_policy(), 0..3), port_policy())
        .prop_map(|(ports, default)| (Key::Inbound, Value::Inbound(InboundPolicy { ports, default })));
    let outbound =
        (address(), outbound()).prop_map(|(address, policy)| (Key::Outbound(address), Value::Outbound(policy)));
    let bundle = vec(vec(any::<u8>(), 1..9), 1..3).prop_map(|roots| {
        let roots = roots.into_iter().map(Bytes::from).collect();
        (Key::TrustBundle, Value::TrustBundle(TrustBundle { trust_domain: "cluster.local".into(), roots }))
    });
    prop_oneof![inbound, outbound, bundle]
}

fn controller_message() -> impl Strategy<Value = ControllerMessage> {
    let welcome = (name(), any::<u32>()).prop_map(|(controller_version, protocol_version)| {
        ControllerMessage::Welcome { controller_version, protocol_version }
    });
    let update = (value_with_key(), any::<u64>())
        .prop_map(|((key, value), version)| ControllerMessage::Update(Update { key, version, value }));
    let holding = (any::<bool>(), any::<u32>())
        .prop_map(|(offered, clients)| ControllerMessage::Holding(Holding { offered, clients }));
    prop_oneof![welcome, update, holding]
}

fn proxy_message() -> impl Strategy<Value = ProxyMessage> {
    let key = || prop_oneof![Just(Key::Inbound), Just(Key::TrustBundle), address().prop_map(Key::Outbound)];
    let hello = (name(), name(), name(), name(), any::<u32>()).prop_map(
        |(pod_namespace, pod_name, pod_uid, proxy_version, protocol_version)| {
            ProxyMessage::Hello(Hello { pod_namespace, pod_name, pod_uid, proxy_version, protocol_version })
        },
    );
    prop_oneof![
        hello,
        key().prop_map(ProxyMessage::Subscribe),
        key().prop_map(ProxyMessage::Unsubscribe),
        (key(), any::<u64>()).prop_map(|(key, version)| ProxyMessage::Ack { key, version }),
        (key(), any::<u64>(), name()).prop_map(|(key, version, reason)| ProxyMessage::Reject { key, version, reason }),
        any::<bool>().prop_map(|reads_holding| ProxyMessage::DrainStarted { reads_holding }),
    ]
}

fn direction() -> impl Strategy<Value = Direction> {
    select(vec![Direction::Inbound, Direction::Outbound])
}

fn tap_filter() -> impl Strategy<Value = TapFilter> {
    let text = || option::of("[A-Za-z/.]{1,9}");
    (
        option::of(direction()),
        text(),
        text(),
        text(),
        option::of((100..600_u16, 100..600_u16)),
        any::<(u64, u32)>(),
        option::of(tap_kind()),
        vec(tap_exclusion(), 0..4),
        (any::<bool>(), vec("[a-z-]{1,9}", 0..3)),
    )
        .prop_map(|(direction, method, path_prefix, authority, status, most, kind, except, show)| TapFilter {
            direction,
            method,
            path_prefix,
            authority,
            status,
            latency_min_us: most.0,
            max_per_second: most.1,
            kind,
            except,
            show_query: show.0,
            show_headers: show.1,
        })
}

fn tap_kind() -> impl Strategy<Value = TapKind> {
    select(vec![TapKind::Grpc, TapKind::Tcp])
}

fn tap_exclusion() -> impl Strategy<Value = TapExclusion> {
    prop_oneof![
        name().prop_map(TapExclusion::Method),
        name().prop_map(TapExclusion::PathPrefix),
        name().prop_map(TapExclusion::Authority),
        any::<(u16, u16)>().prop_map(|(least, most)| TapExclusion::Status(least, most)),
        any::<u64>().prop_map(TapExclusion::LatencyMin),
        tap_kind().prop_map(TapExclusion::Kind),
    ]
}

fn tap_headers() -> impl Strategy<Value = Vec<TapHeader>> {
    vec((name(), name()).prop_map(|(name, value)| TapHeader { name, value }), 0..3)
}

fn tap_event() -> impl Strategy<Value = TapEvent> {
    let texts = (name(), name(), name(), name(), tap_headers(), tap_headers());
    let request = (texts, option::of(100..600_u16), option::of(0..17_u32), any::<(bool, bool)>()).prop_map(
        |((method, path, authority, query, request_headers, response_headers), status, grpc_status, (http2, grpc))| {
            TapRequestInfo {
                method,
                path,
                authority,
                status,
                grpc_status,
                http2,
                grpc,
                query,
                request_headers,
                response_headers,
            }
        },
    );
    let who = (address(), address(), option::of(identity()), option::of(identity()), option::of(pod()));
    let how = (option::of(service_port()), any::<bool>(), name(), option::of(request), name());
    (direction(), any::<([u64; 5], Option<u64>)>(), who, how).prop_map(|(direction, numbers, who, how)| {
        let ([started_us, latency_us, bytes_in, bytes_out, dropped], answered_us) = numbers;
        let (source, destination, source_identity, destination_identity, destination_pod) = who;
        let (service, tls, outcome, request, route) = how;
        TapEvent {
            direction,
            started_us,
            latency_us,
            answered_us,
            source,
            destination,
            source_identity,
            destination_identity,
            destination_pod,
            service,
            tls,
            outcome,
            bytes_in,
            bytes_out,
            request,
            dropped,
            route,
        }
    })
}
