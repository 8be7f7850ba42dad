//! The first byte that the inbound side of a byte-carrying link (`mesh/1/tcp`, `mesh/1/detect`) sends: whether it carries.
//!
//! With it the outbound side knows, before it gives away one byte of the client, that authorization passed and the application
//! accepted the connection (contracts §4: `app-refused` is retry-safe for TCP, too), and a refusal keeps its code. It
//! costs the client-first case one round trip between the two proxies; HTTP links have no such byte, their answers carry
//! `mesh-error`. Pure.

use mesh_proto::outcome::Outcome;

/// What the byte says; numbers are part of the protocol between releases.
const CODES: [(u8, Outcome); 6] = [
    (1, Outcome::AppRefused),
    (2, Outcome::Denied),
    (3, Outcome::PolicyUnavailable),
    (4, Outcome::ProtocolRefused),
    (5, Outcome::Loop),
    (6, Outcome::Overloaded),
];

/// The link carries bytes from here on.
pub(crate) const CARRIES: u8 = 0;

/// What outbound takes a byte for that it does not know: a newer release refused with a reason of its own.
const UNKNOWN: Outcome = Outcome::ConnectFailed;

/// The byte for a refusal. Reasons without a number of their own are told as a refusal by the application.
pub(crate) fn byte(outcome: Outcome) -> u8 {
    CODES.iter().find(|(_, known)| *known == outcome).map_or(1, |(byte, _)| *byte)
}

/// The meaning of the byte: None when the link carries.
pub(crate) fn refusal(byte: u8) -> Option<Outcome> {
    (byte != CARRIES).then(|| CODES.iter().find(|(known, _)| *known == byte).map_or(UNKNOWN, |(_, outcome)| *outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_comes_back_as_it_was_told() {
        assert_eq!(refusal(CARRIES), None);
        for (number, outcome) in CODES {
            assert_eq!(refusal(byte(outcome)), Some(outcome));
            assert_eq!(byte(outcome), number);
        }
        assert_eq!(refusal(200), Some(UNKNOWN));
    }
}
