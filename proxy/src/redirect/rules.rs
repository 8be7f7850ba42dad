//! Which connections go through the proxy: a pure function from [`Settings`] to rules.

use mesh_proto::names;
use mesh_proto::ports::PortSet;

use super::settings::{Exempt, Settings};
use crate::nft::{Action, Chain, Hook, Match, Protocol, Rule, Ruleset};

/// The table that holds all of the redirect, in family `inet`.
pub const TABLE: &str = "mesh";

/// The redirect of one network namespace.
///
/// * Outbound, a new TCP connection is delivered to 127.0.0.1 or ::1, port [`names::PORT_OUTBOUND`], unless it is the
///   proxy's own, to loopback, or skipped. A connection to the pod's own address is redirected as any other, although
///   it would go over `lo`: the proxy hands it over in process (contracts §3). So loopback is told by address.
/// * Inbound, a new TCP connection is delivered to port [`names::PORT_INBOUND`] unless it is for the admin listener or
///   its port is skipped; never for where it comes from, or a source could get around inbound policy. That includes connections to the proxy's own two listeners: their original destination then tells the
///   proxy that they were not meant for the application, and it refuses them.
///
/// Only the packet that opens a connection is looked at. The proxy has connections already when the redirect is set
/// up (it starts first), and connection tracking takes the next packet of such a connection for a new one: without
/// this, the controller's next message would be redirected and the connection broken.
pub fn rules(settings: &Settings) -> Ruleset {
    Ruleset { table: TABLE, chains: vec![outbound(settings), inbound(settings)] }
}

fn outbound(settings: &Settings) -> Chain {
    let own = match settings.exempt {
        Exempt::User(uid) => Match::SocketUser(uid),
        Exempt::Mark(mark) => Match::Mark(mark),
    };
    let loopback_v4 = "127.0.0.0/8".parse().expect("a network");
    let loopback_v6 = "::1/128".parse().expect("a network");
    let leave = [own, Match::Destination(loopback_v4), Match::Destination(loopback_v6)]
        .into_iter()
        .chain(to_ports(&settings.skip_outbound_ports))
        .chain(settings.skip_subnets.nets().iter().copied().map(Match::Destination));
    Chain { name: "outbound", hook: Hook::NatOutput, rules: all_but(leave, names::PORT_OUTBOUND) }
}

fn inbound(settings: &Settings) -> Chain {
    let admin = names::PORT_PROXY_ADMIN;
    let ports = PortSet::new(settings.skip_inbound_ports.ranges().iter().cloned().chain([admin..=admin]));
    Chain { name: "inbound", hook: Hook::NatPrerouting, rules: all_but(to_ports(&ports), names::PORT_INBOUND) }
}

/// Redirects every connection to `port`, except those that match any of `leave`.
fn all_but(leave: impl Iterator<Item = Match>, port: u16) -> Vec<Rule> {
    let redirect = Rule { matches: vec![Match::TcpSyn], action: Action::Redirect(port) };
    leave.map(|matched| Rule { matches: vec![matched], action: Action::Return }).chain([redirect]).collect()
}

fn to_ports(ports: &PortSet) -> impl Iterator<Item = Match> {
    ports.ranges().iter().map(|range| Match::DestinationPort(Protocol::Tcp, range.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_all_but_the_proxy_loopback_and_admin_is_redirected() {
        assert_eq!(
            rules(&Settings::default()).to_string(),
            "\
table inet mesh {
\tchain outbound {
\t\ttype nat hook output priority -100; policy accept;
\t\tmeta skuid 2102 return
\t\tip daddr 127.0.0.0/8 return
\t\tip6 daddr ::1 return
\t\ttcp flags syn / fin,syn,rst,ack redirect to :4140
\t}

\tchain inbound {
\t\ttype nat hook prerouting priority -100; policy accept;
\t\ttcp dport 4191 return
\t\ttcp flags syn / fin,syn,rst,ack redirect to :4143
\t}
}
"
        );
    }

    #[test]
    fn what_is_skipped_comes_before_the_redirect() {
        let settings = Settings {
            skip_inbound_ports: "22,4190-4192".parse().expect("ports"),
            skip_outbound_ports: "25,3306-3307".parse().expect("ports"),
            skip_subnets: "10.0.0.0/8,192.0.2.1,fd00::/8".parse().expect("networks"),
            exempt: Exempt::Mark(0x2102),
        };
        assert_eq!(
            rules(&settings).script(),
            "\
table inet mesh
delete table inet mesh
table inet mesh {
\tchain outbound {
\t\ttype nat hook output priority -100; policy accept;
\t\tmeta mark 0x00002102 return
\t\tip daddr 127.0.0.0/8 return
\t\tip6 daddr ::1 return
\t\ttcp dport 25 return
\t\ttcp dport 3306-3307 return
\t\tip daddr 10.0.0.0/8 return
\t\tip daddr 192.0.2.1 return
\t\tip6 daddr fd00::/8 return
\t\ttcp flags syn / fin,syn,rst,ack redirect to :4140
\t}

\tchain inbound {
\t\ttype nat hook prerouting priority -100; policy accept;
\t\ttcp dport 22 return
\t\ttcp dport 4190-4192 return
\t\ttcp flags syn / fin,syn,rst,ack redirect to :4143
\t}
}
"
        );
    }
}
