//! Where connections end in a pod with the redirect, in both directions and both address families.

use std::net::SocketAddr;

use libtest_mimic::{Failed, Trial};
use mesh_proto::names::{PORT_INBOUND, PORT_OUTBOUND, PORT_PROXY_ADMIN, PROXY_MARK};
use mesh_proxy::nft;
use mesh_proxy::redirect::{Exempt, Settings, TABLE, rules};

use super::support::{
    Pair, accept, addresses, connect, connect_marked, datagram, exchange, lab, listen, listen_at, loopback, marked,
    original_destination,
};

/// A port of an application.
const PORT: u16 = 8080;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("outbound_reaches_the_proxy_with_its_destination", outbound_reaches_the_proxy_with_its_destination),
        Trial::test("the_pods_own_address_is_outbound_too", the_pods_own_address_is_outbound_too),
        Trial::test("inbound_reaches_the_proxy_with_its_destination", inbound_reaches_the_proxy_with_its_destination),
        Trial::test(
            "inbound_to_a_listener_of_the_proxy_is_told_apart",
            inbound_to_a_listener_of_the_proxy_is_told_apart,
        ),
        Trial::test("the_proxys_own_connections_pass", the_proxys_own_connections_pass),
        Trial::test("loopback_is_untouched", loopback_is_untouched),
        Trial::test("udp_is_untouched", udp_is_untouched),
        Trial::test("skipped_ports_are_untouched", skipped_ports_are_untouched),
        Trial::test(
            "skipped_subnets_are_untouched_outbound_and_redirected_inbound",
            skipped_subnets_are_untouched_outbound_and_redirected_inbound,
        ),
        Trial::test("the_admin_port_is_untouched", the_admin_port_is_untouched),
        Trial::test("connections_older_than_the_redirect_go_on", connections_older_than_the_redirect_go_on),
        Trial::test("without_the_redirect_all_is_as_before", without_the_redirect_all_is_as_before),
        Trial::test("the_proxys_user_is_exempt", the_proxys_user_is_exempt),
    ]
}

fn outbound_reaches_the_proxy_with_its_destination() -> Result<(), Failed> {
    let pods = Pair::new(&marked())?;
    for (_, other) in pods.families() {
        let proxy = listen_at(pods.meshed.namespace(), SocketAddr::new(loopback(other), PORT_OUTBOUND))?;
        let unreachable = if other.is_ipv4() { "203.0.113.9".parse()? } else { "2001:db8::9".parse()? };
        for destination in
            [SocketAddr::new(other, PORT), SocketAddr::new(other, 443), SocketAddr::new(unreachable, PORT)]
        {
            let client = connect(pods.meshed.namespace(), destination)?;
            assert_eq!(client.peer_addr()?, destination, "the application notices nothing");
            assert_eq!(original_destination(&accept(&proxy, &client)?)?, destination);
        }
    }
    Ok(())
}

fn the_pods_own_address_is_outbound_too() -> Result<(), Failed> {
    let pods = Pair::new(&marked())?;
    for (own, _) in pods.families() {
        let proxy = listen_at(pods.meshed.namespace(), SocketAddr::new(loopback(own), PORT_OUTBOUND))?;
        let _application = listen(pods.meshed.namespace(), own, PORT)?;
        let client = connect(pods.meshed.namespace(), SocketAddr::new(own, PORT))?;
        assert_eq!(original_destination(&accept(&proxy, &client)?)?, SocketAddr::new(own, PORT));
    }
    Ok(())
}

fn inbound_reaches_the_proxy_with_its_destination() -> Result<(), Failed> {
    let pods = Pair::new(&marked())?;
    for (own, other) in pods.families() {
        let proxy = listen(pods.meshed.namespace(), own, PORT_INBOUND)?;
        for port in [PORT, 443] {
            let client = connect(pods.other.namespace(), SocketAddr::new(own, port))?;
            let server = accept(&proxy, &client)?;
            assert_eq!(original_destination(&server)?, SocketAddr::new(own, port));
            assert_eq!(server.peer_addr()?.ip(), other, "the client's address stays");
        }
    }
    Ok(())
}

/// Contracts §3: the proxy refuses them; for that it must see that they were meant for its own listeners.
fn inbound_to_a_listener_of_the_proxy_is_told_apart() -> Result<(), Failed> {
    let pods = Pair::new(&marked())?;
    for (own, _) in pods.families() {
        let proxy = listen(pods.meshed.namespace(), own, PORT_INBOUND)?;
        for port in [PORT_INBOUND, PORT_OUTBOUND] {
            let client = connect(pods.other.namespace(), SocketAddr::new(own, port))?;
            assert_eq!(original_destination(&accept(&proxy, &client)?)?, SocketAddr::new(own, port));
        }
    }
    Ok(())
}

fn the_proxys_own_connections_pass() -> Result<(), Failed> {
    let pods = Pair::new(&marked())?;
    for (own, other) in pods.families() {
        for (pod, address) in [(&pods.other, other), (&pods.meshed, own)] {
            let application = listen(pod.namespace(), address, PORT)?;
            let client = connect_marked(pods.meshed.namespace(), SocketAddr::new(address, PORT), PROXY_MARK)?;
            accept(&application, &client)?;
        }
        let proxy = listen_at(pods.meshed.namespace(), SocketAddr::new(loopback(other), PORT_OUTBOUND))?;
        let client = connect_marked(pods.meshed.namespace(), SocketAddr::new(other, PORT), PROXY_MARK + 1)?;
        accept(&proxy, &client)?;
    }
    Ok(())
}

fn loopback_is_untouched() -> Result<(), Failed> {
    let pods = Pair::new(&marked())?;
    for address in ["127.0.0.1", "127.1.2.3", "::1"] {
        let application = listen_at(pods.meshed.namespace(), SocketAddr::new(address.parse()?, PORT))?;
        let client = connect(pods.meshed.namespace(), application.local_addr()?)?;
        accept(&application, &client)?;
    }
    Ok(())
}

fn udp_is_untouched() -> Result<(), Failed> {
    let pods = Pair::new(&marked())?;
    for (own, other) in pods.families() {
        datagram(pods.meshed.namespace(), pods.other.namespace(), other)?;
        datagram(pods.other.namespace(), pods.meshed.namespace(), own)?;
    }
    Ok(())
}

fn skipped_ports_are_untouched() -> Result<(), Failed> {
    let ports = [8000, 8005, 8010];
    let skipping_inbound = Settings { skip_inbound_ports: "8000-8010".parse()?, ..marked() };
    let skipping_outbound = Settings { skip_outbound_ports: "8000-8010".parse()?, ..marked() };

    let pods = Pair::new(&skipping_inbound)?;
    for (own, _) in pods.families() {
        for port in ports {
            let application = listen(pods.meshed.namespace(), own, port)?;
            accept(&application, &connect(pods.other.namespace(), SocketAddr::new(own, port))?)?;
        }
        let proxy = listen(pods.meshed.namespace(), own, PORT_INBOUND)?;
        accept(&proxy, &connect(pods.other.namespace(), SocketAddr::new(own, 8011))?)?;
    }

    let pods = Pair::new(&skipping_outbound)?;
    for (_, other) in pods.families() {
        for port in ports {
            let application = listen(pods.other.namespace(), other, port)?;
            accept(&application, &connect(pods.meshed.namespace(), SocketAddr::new(other, port))?)?;
        }
        let proxy = listen_at(pods.meshed.namespace(), SocketAddr::new(loopback(other), PORT_OUTBOUND))?;
        accept(&proxy, &connect(pods.meshed.namespace(), SocketAddr::new(other, 7999))?)?;
    }
    Ok(())
}

/// Inbound, a network is no way around the policy of the pod.
fn skipped_subnets_are_untouched_outbound_and_redirected_inbound() -> Result<(), Failed> {
    // The other pod's addresses, with prefixes that end inside a byte.
    let pods = Pair::new(&Settings { skip_subnets: "10.0.0.2/31,fd00::2/127".parse()?, ..marked() })?;
    for (own, other) in pods.families() {
        let theirs = listen(pods.other.namespace(), other, PORT)?;
        accept(&theirs, &connect(pods.meshed.namespace(), SocketAddr::new(other, PORT))?)?;
        let inbound = listen(pods.meshed.namespace(), own, PORT_INBOUND)?;
        accept(&inbound, &connect(pods.other.namespace(), SocketAddr::new(own, PORT))?)?;

        let outside = if other.is_ipv4() { "10.0.0.4".parse()? } else { "fd00::4".parse()? };
        let proxy = listen_at(pods.meshed.namespace(), SocketAddr::new(loopback(other), PORT_OUTBOUND))?;
        accept(&proxy, &connect(pods.meshed.namespace(), SocketAddr::new(outside, PORT))?)?;
    }
    Ok(())
}

fn the_admin_port_is_untouched() -> Result<(), Failed> {
    let pods = Pair::new(&marked())?;
    for (own, _) in pods.families() {
        let admin = listen(pods.meshed.namespace(), own, PORT_PROXY_ADMIN)?;
        accept(&admin, &connect(pods.other.namespace(), SocketAddr::new(own, PORT_PROXY_ADMIN))?)?;
    }
    Ok(())
}

/// The proxy starts before the redirect: its stream to the controller must survive, whoever sends next.
fn connections_older_than_the_redirect_go_on() -> Result<(), Failed> {
    for peer_speaks_first in [true, false] {
        let lab = lab()?;
        let (meshed, other) = (lab.pod("meshed", addresses(1))?, lab.pod("other", addresses(2))?);
        for address in other.addresses().iter() {
            let listener = listen(other.namespace(), address, PORT)?;
            let ours = connect(meshed.namespace(), SocketAddr::new(address, PORT))?;
            let (theirs, _) = listener.accept()?;
            meshed.run(|| nft::apply(&rules(&marked())))??;
            let (first, second) = if peer_speaks_first { (&theirs, &ours) } else { (&ours, &theirs) };
            exchange(first, second)?;
            exchange(second, first)?;
            meshed.run(|| nft::remove(TABLE))??;
        }
    }
    Ok(())
}

fn without_the_redirect_all_is_as_before() -> Result<(), Failed> {
    let pods = Pair::new(&marked())?;
    pods.meshed.run(|| nft::remove(TABLE))??;
    for (own, other) in pods.families() {
        let theirs = listen(pods.other.namespace(), other, PORT)?;
        accept(&theirs, &connect(pods.meshed.namespace(), SocketAddr::new(other, PORT))?)?;
        let ours = listen(pods.meshed.namespace(), own, PORT)?;
        accept(&ours, &connect(pods.other.namespace(), SocketAddr::new(own, PORT))?)?;
    }
    Ok(())
}

/// As in Kubernetes. The only user here is 0, so it plays the proxy's and then the application's part.
fn the_proxys_user_is_exempt() -> Result<(), Failed> {
    let as_proxy = Pair::new(&Settings { exempt: Exempt::User(0), ..Settings::default() })?;
    for (_, other) in as_proxy.families() {
        let theirs = listen(as_proxy.other.namespace(), other, PORT)?;
        accept(&theirs, &connect(as_proxy.meshed.namespace(), SocketAddr::new(other, PORT))?)?;
    }
    let as_application = Pair::new(&Settings::default())?;
    for (_, other) in as_application.families() {
        let proxy = listen_at(as_application.meshed.namespace(), SocketAddr::new(loopback(other), PORT_OUTBOUND))?;
        // A mark exempts nobody here.
        let client = connect_marked(as_application.meshed.namespace(), SocketAddr::new(other, PORT), PROXY_MARK)?;
        accept(&proxy, &client)?;
    }
    Ok(())
}
