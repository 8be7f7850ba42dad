//! Rules as instructions of the kernel's nftables machine: a pure translation, the same one that `nft` makes.
//!
//! The machine has registers; register 1 holds what is being compared. A comparison that is false ends the rule.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::expr::{Action, Match, Protocol, Rule};

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Loads something about the packet into register 1.
    Meta(Meta),
    /// Loads `length` bytes of a header, from `offset`, into register 1.
    Payload {
        /// The header.
        header: Header,
        /// First byte.
        offset: u32,
        /// Number of bytes.
        length: u32,
    },
    /// Clears the bits of register 1 that are not in this mask.
    Mask(Vec<u8>),
    /// Ends the rule unless register 1 compares so with these bytes.
    Compare(Comparison, Vec<u8>),
    /// Loads a random number below this one into register 1.
    Random(u32),
    /// Loads bytes into this register.
    Immediate(u32, Vec<u8>),
    /// Ends the chain, packet accepted as it is.
    Return,
    /// Ends everything, packet dropped.
    Drop,
    /// Changes the destination to this machine, port in register 1.
    Redirect,
    /// Changes the destination to the address in register 1 and the port in register 2.
    Dnat(Family),
    /// Changes the source to the address of the outgoing interface.
    Masquerade,
    /// Read from the kernel, and not one that this module makes.
    Foreign(String),
}

/// What is known about a packet beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// Network protocol, one byte.
    Family,
    /// Transport protocol, one byte.
    Protocol,
    /// User of the sending socket, 4 bytes in the machine's order.
    SocketUser,
    /// Mark, 4 bytes in the machine's order.
    Mark,
}

/// Where a header begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// IPv4 or IPv6.
    Network,
    /// TCP or UDP.
    Transport,
}

/// Bytes are compared as big-endian numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The same.
    Equal,
    /// Not less than.
    AtLeast,
    /// Not more than.
    AtMost,
}

/// Network protocols of an `inet` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which address of the network header.
enum End {
    Source,
    Destination,
}

/// Bits of byte 13 of a TCP header.
const TCP_FLAGS_FIN_SYN_RST_ACK: u8 = 0x17;
const TCP_FLAG_SYN: u8 = 0x02;

impl Rule {
    /// The rule as the kernel runs it.
    pub fn instructions(&self) -> Vec<Instruction> {
        let mut code = Code(Vec::new());
        for matched in &self.matches {
            code.matched(matched);
        }
        code.action(self.action);
        code.0
    }
}

impl Family {
    /// The kernel's `NFPROTO_` number.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

struct Code(Vec<Instruction>);

impl Code {
    fn matched(&mut self, matched: &Match) {
        match matched {
            Match::SocketUser(uid) => self.check(Meta::SocketUser, &uid.to_ne_bytes()),
            Match::Mark(mark) => self.check(Meta::Mark, &mark.to_ne_bytes()),
            Match::Source(net) => self.network(net, End::Source),
            Match::Destination(net) => self.network(net, End::Destination),
            Match::DestinationPort(protocol, ports) => {
                self.require(Meta::Protocol, protocol.number());
                self.load(Header::Transport, 2, 2);
                let (first, last) = (ports.start().to_be_bytes(), ports.end().to_be_bytes());
                if first == last {
                    self.compare(Comparison::Equal, &first);
                } else {
                    self.compare(Comparison::AtLeast, &first);
                    self.compare(Comparison::AtMost, &last);
                }
            }
            Match::TcpSyn => {
                self.require(Meta::Protocol, Protocol::Tcp.number());
                self.load(Header::Transport, 13, 1);
                self.0.push(Instruction::Mask(vec![TCP_FLAGS_FIN_SYN_RST_ACK]));
                self.compare(Comparison::Equal, &[TCP_FLAG_SYN]);
            }
            Match::OneIn(modulus) => {
                self.0.push(Instruction::Random(*modulus));
                self.compare(Comparison::Equal, &0_u32.to_ne_bytes());
            }
        }
    }

    fn action(&mut self, action: Action) {
        match action {
            Action::Return => self.0.push(Instruction::Return),
            Action::Drop => self.0.push(Instruction::Drop),
            Action::Masquerade => self.0.push(Instruction::Masquerade),
            Action::Redirect(port) => {
                self.0.push(Instruction::Immediate(1, port.to_be_bytes().into()));
                self.0.push(Instruction::Redirect);
            }
            Action::Dnat(to) => {
                self.0.push(Instruction::Immediate(1, octets(to.ip())));
                self.0.push(Instruction::Immediate(2, to.port().to_be_bytes().into()));
                self.0.push(Instruction::Dnat(match to {
                    SocketAddr::V4(_) => Family::V4,
                    SocketAddr::V6(_) => Family::V6,
                }));
            }
        }
    }

    fn network(&mut self, net: &IpNet, end: End) {
        let (family, offset) = match (net, end) {
            (IpNet::V4(_), End::Source) => (Family::V4, 12),
            (IpNet::V4(_), End::Destination) => (Family::V4, 16),
            (IpNet::V6(_), End::Source) => (Family::V6, 8),
            (IpNet::V6(_), End::Destination) => (Family::V6, 24),
        };
        self.require(Meta::Family, family.number());
        let prefix = usize::from(net.prefix_len());
        let mut bytes = octets(net.network());
        if prefix > 0 && prefix % 8 == 0 {
            // Whole bytes need no mask: only those are loaded.
            bytes.truncate(prefix / 8);
            self.load(Header::Network, offset, net.prefix_len() / 8);
        } else {
            self.load(Header::Network, offset, net.max_prefix_len() / 8);
            self.0.push(Instruction::Mask(octets(net.netmask())));
        }
        self.compare(Comparison::Equal, &bytes);
    }

    /// A check that later matches of the rule rely on: made once, however many need it.
    fn require(&mut self, what: Meta, value: u8) {
        let check = [Instruction::Meta(what), Instruction::Compare(Comparison::Equal, vec![value])];
        if !self.0.windows(2).any(|pair| pair == check) {
            self.0.extend(check);
        }
    }

    fn check(&mut self, what: Meta, value: &[u8]) {
        self.0.push(Instruction::Meta(what));
        self.compare(Comparison::Equal, value);
    }

    fn load(&mut self, header: Header, offset: u32, length: u8) {
        self.0.push(Instruction::Payload { header, offset, length: length.into() });
    }

    fn compare(&mut self, comparison: Comparison, bytes: &[u8]) {
        self.0.push(Instruction::Compare(comparison, bytes.to_vec()));
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(net: &str) -> Vec<Instruction> {
        let matched = Match::Destination(net.parse().expect("a network"));
        Rule { matches: vec![matched], action: Action::Return }.instructions()
    }

    #[test]
    fn a_prefix_of_whole_bytes_needs_no_mask() {
        assert_eq!(
            destination("127.0.0.0/8"),
            [
                Instruction::Meta(Meta::Family),
                Instruction::Compare(Comparison::Equal, vec![2]),
                Instruction::Payload { header: Header::Network, offset: 16, length: 1 },
                Instruction::Compare(Comparison::Equal, vec![127]),
                Instruction::Return,
            ]
        );
    }

    #[test]
    fn other_prefixes_are_masked_and_bits_beyond_them_do_not_count() {
        for (net, mask, value) in [
            ("10.1.2.3/20", [255, 255, 240, 0], [10, 1, 0, 0]),
            ("10.1.2.3/0", [0; 4], [0; 4]),
            ("255.255.255.255/31", [255, 255, 255, 254], [255, 255, 255, 254]),
        ] {
            let code = destination(net);
            assert_eq!(code[2], Instruction::Payload { header: Header::Network, offset: 16, length: 4 }, "{net}");
            assert_eq!(code[3], Instruction::Mask(mask.into()), "{net}");
            assert_eq!(code[4], Instruction::Compare(Comparison::Equal, value.into()), "{net}");
        }
    }

    #[test]
    fn what_several_matches_rely_on_is_checked_once() {
        let matches = vec![
            Match::DestinationPort(Protocol::Tcp, 80..=90),
            Match::TcpSyn,
            Match::Source("10.0.0.1/32".parse().expect("a network")),
            Match::Destination("10.0.0.2/32".parse().expect("a network")),
        ];
        let code = Rule { matches, action: Action::Redirect(4140) }.instructions();
        for check in [Meta::Protocol, Meta::Family] {
            assert_eq!(code.iter().filter(|step| **step == Instruction::Meta(check)).count(), 1, "{check:?}");
        }
        assert_eq!(code[code.len() - 2..], [Instruction::Immediate(1, vec![16, 44]), Instruction::Redirect]);
    }
}
