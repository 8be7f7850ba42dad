//! Instructions as netlink attributes and back. Encoding covers every instruction; decoding never fails: what is not
//! ours becomes [`Instruction::Foreign`].

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Meta as MetaAttribute,
    MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};

use super::bytecode::{Comparison, Family, Header, Instruction, Meta};

// linux/netfilter/nf_tables.h, linux/netfilter/nf_nat.h; what the attribute crate does not name.
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFT_NAT_DNAT: u32 = 1;
const NFTA_NG_DREG: u16 = 1;
const NFTA_NG_MODULUS: u16 = 2;
const NFTA_NG_TYPE: u16 = 3;
const NFT_NG_RANDOM: u32 = 1;
const NF_DROP: u32 = 0;

pub(super) fn encode(instruction: &Instruction) -> ListAttribute<ExpressionAttribute> {
    let expression = match instruction {
        Instruction::Meta(what) => Expressions::Meta(vec![
            MetaAttribute::Key(match what {
                Meta::Family => MetaKey::Nfproto,
                Meta::Protocol => MetaKey::L4Proto,
                Meta::SocketUser => MetaKey::SocketUserId,
                Meta::Mark => MetaKey::Mark,
            }),
            MetaAttribute::DestinationRegister(Register::Reg1),
        ]),
        Instruction::Payload { header, offset, length } => Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(match header {
                Header::Network => NFT_PAYLOAD_NETWORK_HEADER,
                Header::Transport => NFT_PAYLOAD_TRANSPORT_HEADER,
            }),
            Payload::Offset(*offset),
            Payload::Len(*length),
        ]),
        Instruction::Mask(mask) => Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(u32::try_from(mask.len()).expect("a mask is as long as an address")),
            Bitwise::Mask(DataAttribute::Value(mask.clone())),
            Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
        ]),
        Instruction::Compare(comparison, bytes) => Expressions::Cmp(vec![
            Cmp::SourceRegister(Register::Reg1),
            Cmp::Op(match comparison {
                Comparison::Equal => Operator::Equal,
                Comparison::AtLeast => Operator::GreatherThanEqual,
                Comparison::AtMost => Operator::LessThanEqual,
            }),
            Cmp::Data(DataAttribute::Value(bytes.clone())),
        ]),
        Instruction::Random(modulus) => {
            other("numgen", &[(NFTA_NG_DREG, 1), (NFTA_NG_MODULUS, *modulus), (NFTA_NG_TYPE, NFT_NG_RANDOM)])
        }
        Instruction::Immediate(register, bytes) => Expressions::Immediate(vec![
            Immediate::DestinationRegister((*register).into()),
            Immediate::Data(DataAttribute::Value(bytes.clone())),
        ]),
        Instruction::Return => verdict(Verdict::Return),
        Instruction::Drop => verdict(Verdict::Other(NF_DROP)),
        Instruction::Redirect => other("redir", &[(NFTA_REDIR_REG_PROTO_MIN, 1)]),
        Instruction::Dnat(family) => other(
            "nat",
            &[
                (NFTA_NAT_TYPE, NFT_NAT_DNAT),
                (NFTA_NAT_FAMILY, family.number().into()),
                (NFTA_NAT_REG_ADDR_MIN, 1),
                (NFTA_NAT_REG_PROTO_MIN, 2),
            ],
        ),
        Instruction::Masquerade => other("masq", &[]),
        Instruction::Foreign(name) => other(name, &[]),
    };
    expression.into()
}

pub(super) fn decode(attribute: &ListAttribute<ExpressionAttribute>) -> Instruction {
    let ListAttribute::Element(attributes) = attribute else {
        return Instruction::Foreign(format!("{attribute:?}"));
    };
    let expression = attributes.iter().find_map(|attribute| match attribute {
        ExpressionAttribute::Data(expression) => Some(expression),
        _ => None,
    });
    // An expression without attributes (`masq`) may come without data.
    let name = attributes.iter().find_map(|attribute| match attribute {
        ExpressionAttribute::Name(name) => Some(name.as_str()),
        _ => None,
    });
    expression
        .and_then(known)
        .or_else(|| (name == Some("masq")).then_some(Instruction::Masquerade))
        .unwrap_or_else(|| Instruction::Foreign(format!("{attributes:?}")))
}

/// The instruction, if it is one that [`encode`] makes.
fn known(expression: &Expressions) -> Option<Instruction> {
    match expression {
        // With a source register these two write into the packet.
        Expressions::Meta(attributes) if !attributes.contains(&MetaAttribute::DestinationRegister(Register::Reg1)) => {
            None
        }
        Expressions::Payload(attributes) if !attributes.contains(&Payload::DestinationRegister(Register::Reg1)) => None,
        Expressions::Meta(attributes) => attributes.iter().find_map(|attribute| match attribute {
            MetaAttribute::Key(MetaKey::Nfproto) => Some(Instruction::Meta(Meta::Family)),
            MetaAttribute::Key(MetaKey::L4Proto) => Some(Instruction::Meta(Meta::Protocol)),
            MetaAttribute::Key(MetaKey::SocketUserId) => Some(Instruction::Meta(Meta::SocketUser)),
            MetaAttribute::Key(MetaKey::Mark) => Some(Instruction::Meta(Meta::Mark)),
            _ => None,
        }),
        Expressions::Payload(attributes) => {
            let header = attributes.iter().find_map(|attribute| match attribute {
                Payload::Base(NFT_PAYLOAD_NETWORK_HEADER) => Some(Header::Network),
                Payload::Base(NFT_PAYLOAD_TRANSPORT_HEADER) => Some(Header::Transport),
                _ => None,
            })?;
            let offset = attributes.iter().find_map(|attribute| match attribute {
                Payload::Offset(offset) => Some(*offset),
                _ => None,
            })?;
            let length = attributes.iter().find_map(|attribute| match attribute {
                Payload::Len(length) => Some(*length),
                _ => None,
            })?;
            Some(Instruction::Payload { header, offset, length })
        }
        Expressions::Bitwise(attributes) => attributes.iter().find_map(|attribute| match attribute {
            Bitwise::Mask(DataAttribute::Value(mask)) => Some(Instruction::Mask(mask.clone())),
            _ => None,
        }),
        Expressions::Cmp(attributes) => {
            let comparison = attributes.iter().find_map(|attribute| match attribute {
                Cmp::Op(Operator::Equal) => Some(Comparison::Equal),
                Cmp::Op(Operator::GreatherThanEqual) => Some(Comparison::AtLeast),
                Cmp::Op(Operator::LessThanEqual) => Some(Comparison::AtMost),
                _ => None,
            })?;
            attributes.iter().find_map(|attribute| match attribute {
                Cmp::Data(DataAttribute::Value(bytes)) => Some(Instruction::Compare(comparison, bytes.clone())),
                _ => None,
            })
        }
        Expressions::Immediate(attributes) => immediate(attributes),
        Expressions::Other { expression_type, attributes } => match expression_type.as_str() {
            "redir" => Some(Instruction::Redirect),
            "masq" => Some(Instruction::Masquerade),
            "numgen" => number(attributes, NFTA_NG_MODULUS).map(Instruction::Random),
            "nat" if number(attributes, NFTA_NAT_TYPE) == Some(NFT_NAT_DNAT) => {
                let family = number(attributes, NFTA_NAT_FAMILY)?;
                [Family::V4, Family::V6]
                    .into_iter()
                    .find(|known| u32::from(known.number()) == family)
                    .map(Instruction::Dnat)
            }
            _ => None,
        },
        _ => None,
    }
}

fn immediate(attributes: &[Immediate]) -> Option<Instruction> {
    let register = attributes.iter().find_map(|attribute| match attribute {
        Immediate::DestinationRegister(register) => Some(u32::from(*register)),
        _ => None,
    })?;
    attributes.iter().find_map(|attribute| match attribute {
        Immediate::Data(DataAttribute::Value(bytes)) => Some(Instruction::Immediate(register, bytes.clone())),
        Immediate::Data(DataAttribute::Verdict(verdict)) => verdict.iter().find_map(|attribute| match attribute {
            VerdictAttribute::Code(Verdict::Return) => Some(Instruction::Return),
            VerdictAttribute::Code(Verdict::Other(NF_DROP)) => Some(Instruction::Drop),
            _ => None,
        }),
        _ => None,
    })
}

fn verdict(code: Verdict) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(code)])),
    ])
}

/// An expression with nothing but numbers.
fn other(name: &str, numbers: &[(u16, u32)]) -> Expressions {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes: numbers.iter().map(|(kind, value)| DefaultNla::new(*kind, value.to_be_bytes().into())).collect(),
    }
}

fn number(attributes: &[DefaultNla], kind: u16) -> Option<u32> {
    let attribute = attributes.iter().find(|attribute| attribute.kind() == kind)?;
    let mut value = [0; 4];
    if attribute.value_len() != value.len() {
        return None;
    }
    attribute.emit_value(&mut value);
    Some(u32::from_be_bytes(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_survives() {
        for instruction in [
            Instruction::Meta(Meta::Family),
            Instruction::Meta(Meta::Protocol),
            Instruction::Meta(Meta::SocketUser),
            Instruction::Meta(Meta::Mark),
            Instruction::Payload { header: Header::Network, offset: 16, length: 4 },
            Instruction::Payload { header: Header::Transport, offset: 2, length: 2 },
            Instruction::Mask(vec![255, 240]),
            Instruction::Compare(Comparison::Equal, vec![6]),
            Instruction::Compare(Comparison::AtLeast, vec![0, 80]),
            Instruction::Compare(Comparison::AtMost, vec![0, 90]),
            Instruction::Random(3),
            Instruction::Immediate(2, vec![1, 2, 3, 4]),
            Instruction::Return,
            Instruction::Drop,
            Instruction::Redirect,
            Instruction::Dnat(Family::V4),
            Instruction::Dnat(Family::V6),
            Instruction::Masquerade,
        ] {
            assert_eq!(decode(&encode(&instruction)), instruction);
        }
    }

    #[test]
    fn foreign_expressions_are_kept_as_such() {
        for foreign in [
            other("counter", &[(1, 5)]),
            other("nat", &[(NFTA_NAT_TYPE, 0)]),
            Expressions::Meta(vec![MetaAttribute::Key(MetaKey::Mark), MetaAttribute::SourceRegister(Register::Reg1)]),
        ] {
            assert!(matches!(decode(&foreign.clone().into()), Instruction::Foreign(_)), "{foreign:?}");
        }
    }
}
