//! The load: a client and a server that cost little themselves, because they share two cores with the proxies between them.
//!
//! One thread each, non-blocking sockets, messages made beforehand; what comes is compared with what was sent, byte by byte.
//! Used by [`crate::traffic`]. It knows nothing of proxies: where a request goes is an address.
//!
//! | module | is |
//! |---|---|
//! | [`client`] | a closed loop or a fixed rate over many connections |
//! | [`server`] | answers on one port per protocol |
//! | [`http1`] | HTTP/1.1 of both |
//! | [`http2`] | calls over HTTP/2, of both |
//! | [`stream`] | bytes of no protocol |
//! | [`socket`] | a connection's bytes that do not fit into the socket yet |

pub(crate) mod client;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod server;
mod socket;
pub(crate) mod stream;

/// Bytes of every payload: each is a beginning of this, and no two places near each other look alike.
pub(crate) fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|place| b'a' + u8::try_from((place * 7 + place / 26) % 26).unwrap_or_default()).collect()
}
