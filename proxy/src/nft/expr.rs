//! Rules as plain values. Pure; turned into instructions by [`super::bytecode`] and into text by [`super::print`].

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// One table of family `inet` (IPv4 and IPv6 alike), with all it contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The table's name.
    pub table: TableName,
    /// In the order they are made; the order between hooks is the kernel's.
    pub chains: Vec<Chain>,
}

/// Name of a table or chain, known when the program is compiled: it needs no escaping in text.
pub type TableName = &'static str;

/// A base chain: rules that the kernel evaluates in order for each packet (of type `nat`: for the first packet of each
/// connection) at one hook, until one of them ends it. The policy is always `accept`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The chain's name in its table.
    pub name: &'static str,
    /// Where the packets come from.
    pub hook: Hook,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// Hook, type and priority of a chain; only the combinations that make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `type nat`, packets that arrive, before routing: the place to change their destination.
    NatPrerouting,
    /// `type nat`, packets made here: the place to change their destination.
    NatOutput,
    /// `type nat`, packets that leave, after routing: the place to change their source.
    NatPostrouting,
    /// `type filter`, packets that arrive for this machine.
    FilterInput,
    /// `type filter`, packets that pass through.
    FilterForward,
    /// `type filter`, packets made here.
    FilterOutput,
}

/// If every match is true, the action is taken; else the next rule is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All must be true; none at all is true.
    pub matches: Vec<Match>,
    /// What happens then.
    pub action: Action,
}

/// A question about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The socket that sent it belongs to this user. Never true for packets that came from elsewhere.
    SocketUser(u32),
    /// The packet carries this mark (`SO_MARK` of the socket that sent it).
    Mark(u32),
    /// Its source is in this network.
    Source(IpNet),
    /// Its destination is in this network.
    Destination(IpNet),
    /// It is of this protocol, to one of these ports.
    DestinationPort(Protocol, RangeInclusive<u16>),
    /// It opens a TCP connection: of FIN, SYN, RST and ACK only SYN is set. A packet in the middle of a connection that
    /// is older than the rules is not one, though connection tracking would call it new.
    TcpSyn,
    /// True once in this many, at random. Above 0.
    OneIn(u32),
}

/// Transport protocols with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What happens to a packet whose rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave it as it is: no later rule of the chain is tried.
    Return,
    /// Deliver it to this port of this machine: at the loopback address if it was made here, else at the address of the
    /// interface it came through. Its former destination can be asked for with `SO_ORIGINAL_DST`.
    Redirect(u16),
    /// Deliver it to this address and port. The rule must match a [`Protocol`] and addresses of the same family.
    Dnat(SocketAddr),
    /// Send it from the address of the interface it leaves through.
    Masquerade,
    /// Throw it away silently (filter chains only).
    Drop,
}

impl Hook {
    /// As written in text.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::NatPrerouting | Self::NatOutput | Self::NatPostrouting => "nat",
            Self::FilterInput | Self::FilterForward | Self::FilterOutput => "filter",
        }
    }

    /// As written in text.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NatPrerouting => "prerouting",
            Self::NatOutput | Self::FilterOutput => "output",
            Self::NatPostrouting => "postrouting",
            Self::FilterInput => "input",
            Self::FilterForward => "forward",
        }
    }

    /// Place among the other users of the hook: where `iptables` has its table of the same purpose.
    pub(super) fn priority(self) -> i32 {
        match self {
            Self::NatPrerouting | Self::NatOutput => -100,
            Self::NatPostrouting => 100,
            Self::FilterInput | Self::FilterForward | Self::FilterOutput => 0,
        }
    }
}

impl Protocol {
    /// As IANA numbers them.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Rules that send each connection that matches to one of `endpoints`, all equally likely: the first rule takes one in
/// n, the second one in n-1 of what is left, the last everything.
pub fn spread(matches: &[Match], endpoints: &[SocketAddr]) -> Vec<Rule> {
    let mut left = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    let mut rules = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        let mut matches = matches.to_vec();
        if left > 1 {
            matches.push(Match::OneIn(left));
        }
        rules.push(Rule { matches, action: Action::Dnat(*endpoint) });
        left = left.saturating_sub(1);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_equally_likely() {
        let endpoints: Vec<SocketAddr> = (1..=5).map(|host| SocketAddr::from(([10, 0, 0, host], 8080))).collect();
        let mut left = 1.0;
        for (rule, endpoint) in spread(&[Match::TcpSyn], &endpoints).iter().zip(&endpoints) {
            assert_eq!(rule.action, Action::Dnat(*endpoint));
            let taken = match rule.matches.as_slice() {
                [Match::TcpSyn, Match::OneIn(n)] => left / f64::from(*n),
                [Match::TcpSyn] => left,
                other => panic!("{other:?}"),
            };
            assert!((taken - 0.2).abs() < 1e-9, "{rule}: {taken}");
            left -= taken;
        }
        assert!(left.abs() < 1e-9, "the last rule takes what is left");
        assert_eq!(spread(&[Match::TcpSyn], &[]), []);
    }
}
