//! Rules as text: exactly what `nft -y list table inet NAME` shows for them, which `nft -f` also reads.

use std::fmt::{self, Display, Formatter};

use ipnet::IpNet;

use super::expr::{Action, Chain, Match, Rule, Ruleset};

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.table)?;
        for (index, chain) in self.chains.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl Ruleset {
    /// A script for `nft -f` that does in one transaction what [`super::apply`] does: the table is made if it is not
    /// there, so that it can be removed whatever was in it, and made anew.
    pub fn script(&self) -> String {
        let table = self.table;
        format!("table inet {table}\ndelete table inet {table}\n{self}")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (kind, hook, priority) = (self.hook.kind(), self.hook.name(), self.hook.priority());
        writeln!(f, "\tchain {} {{", self.name)?;
        writeln!(f, "\t\ttype {kind} hook {hook} priority {priority}; policy accept;")?;
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for matched in &self.matches {
            write!(f, "{matched} ")?;
        }
        self.action.fmt(f)
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::SocketUser(uid) => write!(f, "meta skuid {uid}"),
            Self::Mark(mark) => write!(f, "meta mark {mark:#010x}"),
            Self::Source(net) => write!(f, "{} saddr {}", family(net), Network(net)),
            Self::Destination(net) => write!(f, "{} daddr {}", family(net), Network(net)),
            Self::DestinationPort(protocol, ports) if ports.start() == ports.end() => {
                write!(f, "{protocol} dport {}", ports.start())
            }
            Self::DestinationPort(protocol, ports) => {
                write!(f, "{protocol} dport {}-{}", ports.start(), ports.end())
            }
            Self::TcpSyn => f.write_str("tcp flags syn / fin,syn,rst,ack"),
            Self::OneIn(modulus) => write!(f, "numgen random mod {modulus} 0"),
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Return => f.write_str("return"),
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
            Self::Dnat(to) if to.is_ipv4() => write!(f, "dnat ip to {to}"),
            Self::Dnat(to) => write!(f, "dnat ip6 to {to}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

fn family(net: &IpNet) -> &'static str {
    match net {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    }
}

/// A single address is shown without its prefix length.
struct Network<'a>(&'a IpNet);

impl Display for Network<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.trunc().fmt(f) }
    }
}
