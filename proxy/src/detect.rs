//! Tells a protocol from the first bytes of a connection.
//!
//! Pure: bytes in, an answer or "more" out; [`sniff`] does the reading,
//! [`guard`] does it where the server spoke first. Used by outbound for ports that declare nothing and by
//! inbound for everything that arrives. An answer never depends on where the bytes were split.

pub(crate) mod guard;
mod http1;
pub(crate) mod sniff;

use crate::tls::Alpn;

/// Most bytes that are looked at. A ClientHello with post-quantum shares is under 2 KiB; a request line longer than this is
/// taken for what it has looked like so far.
pub const MAX_BYTES: usize = 16 * 1024;

/// The client's connection preface of HTTP/2 (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Type, version and length of a TLS record; and the longest of them, with its header (RFC 8446 §5.2).
const RECORD_HEADER: usize = 5;
const MAX_RECORD: usize = RECORD_HEADER + (1 << 14) + 256;

/// What every ALPN of ours starts with.
const MESH_ALPN_PREFIX: &[u8] = b"mesh/1/";

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS. `mesh`: the hello offers an ALPN of ours, or may do so where it cannot be read to its end.
    Tls {
        /// Whether it claims to come from a proxy of the mesh.
        mesh: bool,
    },
    /// Anything else.
    Opaque,
}

/// Reads the first bytes as they come.
#[derive(Default)]
pub struct Detector {
    only_tls: bool,
    hello: Option<Box<rustls::server::Acceptor>>,
    fed: usize,
}

impl Detector {
    /// A fresh one, for one connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a port whose bytes are not to be looked at, except that a proxy of the mesh may be the client: everything but TLS is
    /// opaque at its first byte.
    pub fn only_tls() -> Self {
        Self { only_tls: true, ..Self::default() }
    }

    /// Looks at everything read so far (each call brings the earlier bytes again, so that nobody keeps a copy). None: more
    /// bytes are needed.
    pub fn look(&mut self, bytes: &[u8]) -> Option<Detected> {
        // What a last read brought beyond it must not matter.
        let bytes = &bytes[..bytes.len().min(MAX_BYTES)];
        match *bytes {
            [] | [0x16] | [0x16, 0x03] => None,
            [first, ..] if self.only_tls && first != 0x16 => Some(Detected::Opaque),
            [b'P', b'R', ..] | [b'P'] if is_prefix_of(bytes, H2_PREFACE) => {
                (bytes.len() >= H2_PREFACE.len()).then_some(Detected::Http2)
            }
            // A handshake record of any TLS version; the record type alone could be chance.
            [0x16, 0x03, ..] => self.look_at_hello(bytes),
            _ if self.only_tls => Some(Detected::Opaque),
            _ => match http1::request_line(bytes) {
                http1::Line::Yes => Some(Detected::Http1),
                http1::Line::No => Some(Detected::Opaque),
                http1::Line::Unfinished => (bytes.len() >= MAX_BYTES).then_some(Detected::Http1),
            },
        }
    }

    fn look_at_hello(&mut self, bytes: &[u8]) -> Option<Detected> {
        // Whole records only: what is read, and what is refused, is the same wherever the bytes were split.
        while let Some([_, _, _, high, low]) = bytes.get(self.fed..self.fed + RECORD_HEADER) {
            let end = self.fed + RECORD_HEADER + usize::from(u16::from_be_bytes([*high, *low]));
            if end - self.fed > MAX_RECORD {
                return Some(Detected::Tls { mesh: mentions_mesh(&bytes[..self.fed]) });
            }
            let Some(record) = bytes.get(self.fed..end) else { break };
            self.fed = end;
            match self.read(record) {
                Some(Hello::Whole { mesh }) => return Some(Detected::Tls { mesh }),
                Some(Hello::Unreadable) => return Some(Detected::Tls { mesh: mentions_mesh(&bytes[..end]) }),
                None => {}
            }
        }
        // Longer than any honest hello. It could offer our ALPN further on, so it is not passed to the application.
        (bytes.len() >= MAX_BYTES).then_some(Detected::Tls { mesh: true })
    }

    /// Reads one more record. None: the hello goes on.
    fn read(&mut self, mut record: &[u8]) -> Option<Hello> {
        let acceptor = self.hello.get_or_insert_default();
        while !record.is_empty() {
            if !matches!(acceptor.read_tls(&mut record), Ok(1..)) {
                return Some(Hello::Unreadable);
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let mesh = accepted.client_hello().alpn().is_some_and(|mut alpn| alpn.any(is_mesh_alpn));
                    return Some(Hello::Whole { mesh });
                }
                Ok(None) => {}
                // Also what rustls does not speak, such as TLS 1.1: the application may.
                Err(_) => return Some(Hello::Unreadable),
            }
        }
        None
    }
}

/// What became of a hello.
enum Hello {
    Whole { mesh: bool },
    Unreadable,
}

fn is_mesh_alpn(alpn: &[u8]) -> bool {
    Alpn::from_bytes(alpn).is_some()
}

/// For a hello that cannot be parsed: whether an ALPN of ours may be in it.
fn mentions_mesh(bytes: &[u8]) -> bool {
    bytes.windows(MESH_ALPN_PREFIX.len()).any(|window| window == MESH_ALPN_PREFIX)
}

fn is_prefix_of(bytes: &[u8], whole: &[u8]) -> bool {
    let n = bytes.len().min(whole.len());
    bytes[..n] == whole[..n]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_proto::names;

    use super::*;

    fn hello(alpn: &[&[u8]]) -> Vec<u8> {
        let mut config = rustls::ClientConfig::builder_with_provider(mesh_runtime::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), "a.test".try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn whole(bytes: &[u8]) -> Option<Detected> {
        Detector::new().look(bytes)
    }

    /// Every split into two reads, and byte by byte, must give the answer of the whole.
    fn at_every_split(bytes: &[u8], expected: Option<Detected>) {
        for split in 0..=bytes.len() {
            let mut detector = Detector::new();
            let answer = detector.look(&bytes[..split]).or_else(|| detector.look(bytes));
            assert_eq!(answer, expected, "split at {split} of {:?}", String::from_utf8_lossy(bytes));
        }
        let mut detector = Detector::new();
        let answer = (1..=bytes.len()).find_map(|n| detector.look(&bytes[..n]));
        assert_eq!(answer, expected, "byte by byte: {:?}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn the_answer_does_not_depend_on_splits() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Detected::Http1)),
            (b"POST /a?b=c HTTP/1.0\r\nHost: x\r\n", Some(Detected::Http1)),
            (b"M-SEARCH * HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"GET http://a/b HTTP/1.1\n", Some(Detected::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Some(Detected::Http2)),
            (b"PROPFIND / HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Some(Detected::Opaque)),
            (b"GET /key\r\n", Some(Detected::Opaque)),
            (b"SET key value with words\r\n", Some(Detected::Opaque)),
            (b"get key\r\n", Some(Detected::Opaque)),
            (b"HELO mail.test\r\n", Some(Detected::Opaque)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Detected::Opaque)),
            (b"\x00\x00\x00\x01", Some(Detected::Opaque)),
            (b"GET / HTTP/2.0\r\n", Some(Detected::Opaque)),
            (b"GET  / HTTP/1.1\r\n", Some(Detected::Opaque)),
            (b"\x16\x02\x00", Some(Detected::Opaque)),
            (b"GET / HTTP/1.", None),
            (b"PRI * HT", None),
            (b"", None),
        ] {
            at_every_split(bytes, expected);
        }
    }

    #[test]
    fn a_hello_is_read_to_its_alpn_wherever_it_is_split() {
        at_every_split(&hello(&[names::ALPN_TCP]), Some(Detected::Tls { mesh: true }));
        at_every_split(&hello(&[b"h2", names::ALPN_DETECT]), Some(Detected::Tls { mesh: true }));
        at_every_split(&hello(&[b"h2", b"http/1.1"]), Some(Detected::Tls { mesh: false }));
        at_every_split(&hello(&[]), Some(Detected::Tls { mesh: false }));
    }

    #[test]
    fn a_hello_that_cannot_be_read_is_ours_if_it_may_be() {
        for (bytes, mesh) in [
            (&b"\x16\x03\x01\x00\x05junk!"[..], false),
            (b"\x16\x03\x01\x00\x0djunk mesh/1/x", true),
            // Refused at its type, and the name comes after that.
            (b"\x16\x03\x01\x00\x19\x02\x00\x00\x02\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00 mesh/1/x", true),
            // What follows a record that is refused is another matter, and a length that no record has ends it at once.
            (b"\x16\x03\x01\x00\x05junk! mesh/1/x", false),
            (b"\x16\x03\x01\xff\xffjunk mesh/1/x", false),
        ] {
            at_every_split(bytes, Some(Detected::Tls { mesh }));
        }
        let mut endless = vec![0x16, 0x03, 0x01, 0x40, 0x00, 0x01, 0x00, 0xff, 0xff];
        endless.resize(MAX_BYTES, 0);
        assert_eq!(whole(&endless), Some(Detected::Tls { mesh: true }));
    }

    #[test]
    fn an_opaque_port_is_opaque_at_its_first_byte_unless_it_is_tls() {
        let only_tls = |bytes: &[u8]| Detector::only_tls().look(bytes);
        assert_eq!(only_tls(b"G"), Some(Detected::Opaque));
        assert_eq!(only_tls(b"PRI * HTTP/2.0"), Some(Detected::Opaque));
        assert_eq!(only_tls(b"\x16\x04"), Some(Detected::Opaque));
        assert_eq!(only_tls(&hello(&[names::ALPN_TCP])), Some(Detected::Tls { mesh: true }));
    }

    #[test]
    fn looking_is_bounded() {
        let mut long = b"GET /".to_vec();
        long.resize(MAX_BYTES - 1, b'a');
        assert_eq!(whole(&long), None);
        long.push(b'a');
        assert_eq!(whole(&long), Some(Detected::Http1));
    }

    #[test]
    fn what_is_beyond_the_bound_does_not_matter() {
        // A line that ends as none of HTTP, and a record of a hello that is none: both end beyond it.
        let mut line = b"GET /".to_vec();
        line.resize(MAX_BYTES + 2, b'a');
        line.extend_from_slice(b"\r\n");
        let mut hello = vec![0x16, 0x03, 0x01, 0x40, 0x00];
        hello.resize(MAX_BYTES + 5, b'a');
        for (bytes, expected) in [(line, Detected::Http1), (hello, Detected::Tls { mesh: true })] {
            for first in [MAX_BYTES - 1, MAX_BYTES, bytes.len()] {
                let mut detector = Detector::new();
                let answer = detector.look(&bytes[..first]).or_else(|| detector.look(&bytes));
                assert_eq!(answer, Some(expected), "first {first}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_never_panic_and_splits_never_matter(bytes: Vec<u8>, cut: proptest::sample::Index) {
            let split = cut.index(bytes.len() + 1);
            let mut detector = Detector::new();
            let answer = detector.look(&bytes[..split]).or_else(|| detector.look(&bytes));
            proptest::prop_assert_eq!(answer, whole(&bytes));
        }
    }
}
