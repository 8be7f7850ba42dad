//! The data path behind the real redirect: pods with networks of their own, every row of contracts §3, and transfer byte for
//! byte, for IPv4 and IPv6. As an ordinary user; where no network can be made, the tests fail.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy cannot tell here")]

#[path = "it/authority.rs"]
mod authority;
#[path = "netns_data/mesh.rs"]
mod mesh;
#[path = "netns_data/talk.rs"]
mod talk;

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
};

use libtest_mimic::{Arguments, Failed, Trial};
use mesh_netlab::userns;

use self::{
    mesh::{BANNER_PORT, BYTES_PORT, HTTP1_PORT, HTTP2_PORT, LOOPBACK_ONLY_PORT, Mesh},
    talk::{body, http1, http2, is_reset, read_banner, reversed},
};

#[expect(clippy::print_stderr, reason = "the harness speaks to the person who runs it")]
fn main() -> ExitCode {
    if let Err(error) = userns::enter(userns::Isolation::default()) {
        eprintln!("cannot run tests in network namespaces: {error}");
        return ExitCode::FAILURE;
    }
    let trials = vec![
        Trial::test(
            "a_service_is_routed_over_mutual_tls_byte_for_byte",
            a_service_is_routed_over_mutual_tls_byte_for_byte,
        ),
        Trial::test("a_pod_is_dialled_by_its_address_as_it_is_meshed", a_pod_is_dialled_by_its_address_as_it_is_meshed),
        Trial::test("the_own_pod_is_handed_over_in_process", the_own_pod_is_handed_over_in_process),
        Trial::test("what_is_outside_the_mesh_is_passed_through", what_is_outside_the_mesh_is_passed_through),
        Trial::test("what_was_never_resolved_is_refused", what_was_never_resolved_is_refused),
        Trial::test(
            "a_client_outside_the_mesh_reaches_the_pods_own_address_only",
            a_client_outside_the_mesh_reaches_the_pods_own_address_only,
        ),
        Trial::test("the_proxys_own_ports_are_refused", the_proxys_own_ports_are_refused),
        Trial::test("loopback_is_not_redirected", loopback_is_not_redirected),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn a_service_is_routed_over_mutual_tls_byte_for_byte() -> Result<(), Failed> {
    let mesh = Mesh::new()?;
    for family in mesh.families() {
        let service = |port| SocketAddr::new(mesh.service_ip(family), port);
        let sent = body(2_000_000);
        mesh.client.run(|| {
            assert!(http1(service(HTTP1_PORT), &sent) == sent, "HTTP/1.1");
            assert!(http2(service(HTTP2_PORT), &sent) == sent, "HTTP/2");
            assert!(reversed(service(BYTES_PORT), &sent) == sent, "TCP");
            assert_eq!(read_banner(service(BANNER_PORT)), mesh::BANNER);
        })?;
    }
    let from_client = r#"client_id="spiffe://cluster.local/ns/shop/sa/client",tls="true""#;
    for port in [HTTP1_PORT, HTTP2_PORT] {
        assert!(
            mesh.server.counts("response_total", &format!(r#"dst_port="{port}""#), from_client),
            "{}",
            mesh.server.metrics()
        );
    }
    assert!(mesh.server.counts("tcp_open_total", &format!(r#"dst_port="{BYTES_PORT}""#), from_client));
    assert!(!mesh.server.metrics().contains(r#"client_id="",tls="false""#), "nothing came in plain");
    Ok(())
}

fn a_pod_is_dialled_by_its_address_as_it_is_meshed() -> Result<(), Failed> {
    let mesh = Mesh::new()?;
    for family in mesh.families() {
        let sent = body(100_000);
        let (meshed, plain) = (mesh.server.ip(family), mesh.outside.ip(family));
        mesh.client.run(|| {
            for ip in [meshed, plain] {
                assert!(http1(SocketAddr::new(ip, HTTP1_PORT), &sent) == sent, "HTTP/1.1 {ip}");
                assert!(reversed(SocketAddr::new(ip, BYTES_PORT), &sent) == sent, "TCP {ip}");
            }
        })?;
    }
    assert!(mesh.client.counts("request_total", r#"direction="outbound""#, r#"tls="true""#));
    assert!(mesh.client.counts("request_total", r#"direction="outbound""#, r#"tls="false""#));
    Ok(())
}

fn the_own_pod_is_handed_over_in_process() -> Result<(), Failed> {
    let mesh = Mesh::new()?;
    for family in mesh.families() {
        let sent = body(100_000);
        let own = mesh.server.ip(family);
        // Its address, and a Service that picks it.
        for ip in [own, mesh.service_ip(family)] {
            mesh.server.run(|| {
                assert!(http1(SocketAddr::new(ip, HTTP1_PORT), &sent) == sent, "HTTP/1.1 {ip}");
                assert!(reversed(SocketAddr::new(ip, BYTES_PORT), &sent) == sent, "TCP {ip}");
            })?;
        }
    }
    let by_itself = r#"client_id="spiffe://cluster.local/ns/shop/sa/server",tls="false""#;
    assert!(mesh.server.counts("response_total", r#"direction="inbound""#, by_itself), "{}", mesh.server.metrics());
    Ok(())
}

fn what_is_outside_the_mesh_is_passed_through() -> Result<(), Failed> {
    let mesh = Mesh::new()?;
    for family in mesh.families() {
        // Known as external; a server that speaks first must not wait, either.
        let address = SocketAddr::new(mesh.outside.ip(family), BANNER_PORT);
        mesh.client.run(|| assert_eq!(read_banner(address), mesh::BANNER))?;
    }
    Ok(())
}

fn what_was_never_resolved_is_refused() -> Result<(), Failed> {
    let mesh = Mesh::new()?;
    let unknown: [IpAddr; 2] = ["203.0.113.9".parse()?, "2001:db8::9".parse()?];
    for ip in unknown.into_iter().filter(|ip| ip.is_ipv4() || mesh.has_v6()) {
        let address = SocketAddr::new(ip, 80);
        let answer = mesh.client.run(|| {
            is_reset(address, b"*1\r\n");
            talk::first_line_and_code(address)
        })?;
        assert_eq!(answer, ("HTTP/1.1 503 Service Unavailable".into(), Some("discovery-unavailable".into())));
    }
    Ok(())
}

fn a_client_outside_the_mesh_reaches_the_pods_own_address_only() -> Result<(), Failed> {
    let mesh = Mesh::new()?;
    for family in mesh.families() {
        let server = mesh.server.ip(family);
        let sent = body(100_000);
        mesh.outside.run(|| {
            assert!(http1(SocketAddr::new(server, HTTP1_PORT), &sent) == sent);
            assert!(http2(SocketAddr::new(server, HTTP2_PORT), &sent) == sent);
            assert!(reversed(SocketAddr::new(server, BYTES_PORT), &sent) == sent);
            assert_eq!(read_banner(SocketAddr::new(server, BANNER_PORT)), mesh::BANNER);
            // What listens on 127.0.0.1 only stays there.
            is_reset(SocketAddr::new(server, LOOPBACK_ONLY_PORT), b"*1\r\n");
        })?;
    }
    assert!(mesh.server.counts("mesh_error_total", r#"direction="inbound""#, r#"code="app-refused""#));
    assert!(mesh.server.counts("response_total", r#"direction="inbound""#, r#"client_id="",tls="false""#));
    Ok(())
}

fn the_proxys_own_ports_are_refused() -> Result<(), Failed> {
    let mesh = Mesh::new()?;
    for family in mesh.families() {
        let server = mesh.server.ip(family);
        mesh.outside.run(|| {
            for port in [mesh_proto::names::PORT_INBOUND, mesh_proto::names::PORT_OUTBOUND] {
                is_reset(SocketAddr::new(server, port), b"GET / HTTP/1.1\r\n");
            }
        })?;
    }
    assert!(mesh.server.counts("mesh_error_total", r#"direction="inbound""#, r#"code="loop""#));
    Ok(())
}

fn loopback_is_not_redirected() -> Result<(), Failed> {
    let mesh = Mesh::new()?;
    let sent = body(1000);
    mesh.server.run(|| {
        assert!(http1(SocketAddr::from(([127, 0, 0, 1], LOOPBACK_ONLY_PORT)), &sent) == sent);
    })?;
    assert!(!mesh.server.metrics().contains("request_total{"), "the proxy did not see it");
    Ok(())
}
