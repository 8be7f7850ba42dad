//! Every row of contracts §3 on where a connection goes, and transfer byte for byte, for IPv4 and IPv6. What was never resolved
//! is `away`'s.

#[path = "destinations/place.rs"]
mod place;
#[path = "destinations/talk.rs"]
mod talk;

use std::net::SocketAddr;

use mesh_proto::names;

use self::{
    place::{BANNER, BANNER_PORT, BYTES_PORT, HTTP1_PORT, HTTP2_PORT, LOOPBACK_ONLY_PORT, Place, at, counted},
    talk::{body, http1, http2, is_reset, read_banner, reversed},
};

pub(crate) fn a_service_is_routed_over_mutual_tls_byte_for_byte() -> anyhow::Result<()> {
    let place = Place::new()?;
    for family in place.families() {
        let service = |port| place.service(family, port);
        let sent = body(2_000_000);
        place.client.run(|| {
            assert!(http1(service(HTTP1_PORT), &sent) == sent, "HTTP/1.1");
            assert!(http2(service(HTTP2_PORT), &sent) == sent, "HTTP/2");
            assert!(reversed(service(BYTES_PORT), &sent) == sent, "TCP");
            assert_eq!(read_banner(service(BANNER_PORT)), BANNER);
        })?;
    }
    let from_client = r#"client_id="spiffe://cluster.local/ns/shop/sa/client",tls="true""#;
    for port in [HTTP1_PORT, HTTP2_PORT] {
        counted(&place.server, "response_total", &[&format!(r#"dst_port="{port}""#), from_client])?;
    }
    counted(&place.server, "tcp_open_total", &[&format!(r#"dst_port="{BYTES_PORT}""#), from_client])?;
    let page = place.server.admin("/metrics")?.body;
    assert!(!page.contains(r#"client_id="",tls="false""#), "nothing came in plain: {page}");
    Ok(())
}

pub(crate) fn a_pod_is_dialled_by_its_address_as_it_is_meshed() -> anyhow::Result<()> {
    let place = Place::new()?;
    for family in place.families() {
        let sent = body(100_000);
        let (meshed, plain) = (place.server.addresses(), place.plain.addresses());
        place.client.run(|| {
            for addresses in [meshed, plain] {
                assert!(http1(at(addresses, family, HTTP1_PORT), &sent) == sent, "HTTP/1.1 {addresses:?}");
                assert!(reversed(at(addresses, family, BYTES_PORT), &sent) == sent, "TCP {addresses:?}");
            }
        })?;
    }
    for tls in [r#"tls="true""#, r#"tls="false""#] {
        counted(&place.client, "request_total", &[r#"direction="outbound""#, tls])?;
    }
    counted(&place.server, "response_total", &[r#"direction="inbound""#, r#"tls="true""#])
}

pub(crate) fn the_own_pod_is_handed_over_in_process() -> anyhow::Result<()> {
    let place = Place::new()?;
    for family in place.families() {
        let sent = body(100_000);
        // Its address, and a Service that picks it.
        let own = |port| [at(place.server.addresses(), family, port), place.service(family, port)];
        place.server.run(|| {
            for (http, tcp) in own(HTTP1_PORT).into_iter().zip(own(BYTES_PORT)) {
                assert!(http1(http, &sent) == sent, "HTTP/1.1 {http}");
                assert!(reversed(tcp, &sent) == sent, "TCP {tcp}");
            }
        })?;
    }
    let by_itself = r#"client_id="spiffe://cluster.local/ns/shop/sa/server",tls="false""#;
    counted(&place.server, "response_total", &[r#"direction="inbound""#, by_itself])
}

pub(crate) fn what_is_outside_the_mesh_is_passed_through() -> anyhow::Result<()> {
    let place = Place::new()?;
    for family in place.families() {
        let sent = body(100_000);
        let outside = |port| at(place.outside.addresses(), family, port);
        place.client.run(|| {
            assert!(http1(outside(HTTP1_PORT), &sent) == sent, "HTTP/1.1");
            assert!(reversed(outside(BYTES_PORT), &sent) == sent, "TCP");
            // A server that speaks first must not wait, either.
            assert_eq!(read_banner(outside(BANNER_PORT)), BANNER);
        })?;
    }
    assert_eq!(place.client.count("mesh_error_total", &[])?, 0);
    Ok(())
}

pub(crate) fn a_client_outside_the_mesh_reaches_the_pods_own_address_only() -> anyhow::Result<()> {
    let place = Place::new()?;
    for family in place.families() {
        let server = |port| at(place.server.addresses(), family, port);
        let sent = body(100_000);
        place.outside.run(|| {
            assert!(http1(server(HTTP1_PORT), &sent) == sent);
            assert!(http2(server(HTTP2_PORT), &sent) == sent);
            assert!(reversed(server(BYTES_PORT), &sent) == sent);
            assert_eq!(read_banner(server(BANNER_PORT)), BANNER);
            // What listens on 127.0.0.1 only stays there.
            is_reset(server(LOOPBACK_ONLY_PORT), b"*1\r\n");
        })?;
    }
    counted(&place.server, "mesh_error_total", &[r#"direction="inbound""#, r#"code="app-refused""#])?;
    counted(&place.server, "response_total", &[r#"direction="inbound""#, r#"client_id="",tls="false""#])
}

pub(crate) fn the_proxys_own_ports_are_refused() -> anyhow::Result<()> {
    let place = Place::new()?;
    for family in place.families() {
        place.outside.run(|| {
            for port in [names::PORT_INBOUND, names::PORT_OUTBOUND] {
                is_reset(at(place.server.addresses(), family, port), b"GET / HTTP/1.1\r\n");
            }
        })?;
    }
    counted(&place.server, "mesh_error_total", &[r#"direction="inbound""#, r#"code="loop""#])
}

pub(crate) fn loopback_is_not_redirected() -> anyhow::Result<()> {
    let place = Place::new()?;
    let sent = body(1000);
    place.server.run(|| {
        assert!(http1(SocketAddr::from(([127, 0, 0, 1], LOOPBACK_ONLY_PORT)), &sent) == sent);
    })?;
    assert_eq!(place.server.count("request_total", &[])?, 0, "the proxy did not see it");
    Ok(())
}
