//! Where the heads are in what an HTTP/1 client sends: follows the framing of each request to the next one.
//!
//! Pure: bytes in, how far they may be passed on out. `guard` feeds it with what it reads. Bodies are not looked at, only their
//! chunks are counted.

use super::{
    MAX_HEAD,
    head::{self, Body, Head, Refusal},
};

/// Bytes of extensions in all chunks of a body. Nobody is known to use any; hyper gives up at 16 KiB.
const MAX_EXTENSIONS: usize = 8 * 1024;

/// What a client is in the middle of.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// How far an unfinished head was searched for its end.
    searched: usize,
}

#[derive(Debug, Default)]
enum State {
    /// At the beginning of a head.
    #[default]
    Head,
    /// So much is left of a body.
    Length(u64),
    Chunked(Chunked),
    /// After a head that offers to leave HTTP: nobody knows yet what the next bytes are.
    Upgrade,
    /// HTTP is over.
    Left,
}

/// What came of looking at some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// So many may be passed on.
    pub(super) passed: usize,
    /// So many heads are among them.
    pub(super) heads: u64,
    /// About the rest.
    pub(super) rest: Rest,
}

/// What the bytes are that are not passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// There are none.
    None,
    /// To be looked at again when there are more of them, or when the server has decided about leaving HTTP.
    Wait,
    /// A request that is not to be forwarded; nothing after it is HTTP.
    Refused(Refusal),
    /// The body of a request that is on its way already cannot go on.
    Broken(Refusal),
}

impl Framing {
    /// Looks at what follows what was passed before.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Scan {
        let (mut at, mut heads, mut last_head) = (0, 0, None);
        loop {
            if at == bytes.len() {
                return Scan { passed: at, heads, rest: Rest::None };
            }
            match &mut self.state {
                State::Head => match head::read(&bytes[at..], self.searched) {
                    Head::Unfinished { searched } => {
                        self.searched = searched;
                        return Scan { passed: at, heads, rest: Rest::Wait };
                    }
                    Head::Refused(refusal) => return Scan { passed: at, heads, rest: Rest::Refused(refusal) },
                    Head::Whole { len, body } => {
                        last_head = Some(at);
                        (at, heads, self.searched) = (at + len, heads + 1, 0);
                        self.state = match body {
                            Body::Length(0) => State::Head,
                            Body::Length(length) => State::Length(length),
                            Body::Chunked => State::Chunked(Chunked::default()),
                            Body::Upgrade => State::Upgrade,
                        };
                    }
                },
                State::Length(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    (at, *left) = (at + here, *left - here as u64);
                    if *left == 0 {
                        self.state = State::Head;
                    }
                }
                State::Chunked(chunked) => match chunked.scan(&bytes[at..]) {
                    Some(here) => {
                        at += here;
                        if chunked.at == At::End {
                            self.state = State::Head;
                        }
                    }
                    None => {
                        return match last_head {
                            // Nobody has seen its head yet.
                            Some(head) => Scan { passed: head, heads: heads - 1, rest: Rest::Refused(Refusal::Chunk) },
                            None => Scan { passed: 0, heads, rest: Rest::Broken(Refusal::Chunk) },
                        };
                    }
                },
                State::Upgrade => return Scan { passed: at, heads, rest: Rest::Wait },
                State::Left => return Scan { passed: bytes.len(), heads, rest: Rest::None },
            }
        }
    }

    /// Whether all of a request was passed, and nothing of the next.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Head)
    }

    /// Whether the client has more to send of a body.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_))
    }

    /// Whether what comes next depends on the server.
    pub(super) fn is_undecided(&self) -> bool {
        matches!(self.state, State::Upgrade)
    }

    /// What the server decided about leaving HTTP.
    pub(super) fn decided(&mut self, left: bool) {
        self.state = if left { State::Left } else { State::Head };
    }
}

/// A chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    at: At,
    /// Of the chunk, as far as it was read.
    size: u64,
    content: u64,
    extensions: usize,
    trailers: usize,
}

/// In the order in which they come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    #[default]
    Size,
    MoreSize,
    /// After which only an extension or the end of the line may come.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    End,
}

impl Chunked {
    /// So many bytes belong to it; none if it is malformed.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        self.scan_to(At::End, bytes)
    }

    /// As `scan`, but no further than to where trailers may begin.
    pub(super) fn scan_to_trailers(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.at >= At::Trailer { Some(0) } else { self.scan_to(At::Trailer, bytes) }
    }

    /// Whether its end was read.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::End
    }

    /// Bytes of content so far.
    pub(super) fn content(&self) -> u64 {
        self.content
    }

    fn scan_to(&mut self, end: At, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() && self.at != end {
            if self.at == At::Data {
                let here = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                (at, self.size, self.content) = (at + here, self.size - here as u64, self.content + here as u64);
                if self.size == 0 {
                    self.at = At::DataCr;
                }
            } else {
                self.at = self.step(bytes[at])?;
                at += 1;
            }
        }
        Some(at)
    }

    fn step(&mut self, byte: u8) -> Option<At> {
        let is_last = self.size == 0;
        Some(match (self.at, byte) {
            (At::Size | At::MoreSize, byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16)?;
                // Sixteen digits or more are an attempt to overflow somebody.
                self.size = self.size.checked_mul(16)?.checked_add(digit.into()).filter(|size| *size >> 56 == 0)?;
                At::MoreSize
            }
            (At::MoreSize | At::Space | At::Extension, b'\r') => At::SizeLf,
            (At::MoreSize | At::Space, b';') => At::Extension,
            (At::MoreSize | At::Space, b' ' | b'\t') => self.extension(At::Space)?,
            (At::Extension, byte) if byte == b'\t' || (byte >= b' ' && byte != 0x7f) => {
                self.extension(At::Extension)?
            }
            (At::SizeLf, b'\n') if is_last => At::Trailer,
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size,
            (At::Trailer, b'\r') => At::LastLf,
            (At::LastLf, b'\n') => At::End,
            (At::Trailer | At::TrailerName, byte) if head::is_token(byte) => self.trailer(At::TrailerName)?,
            (At::TrailerName, b':') => self.trailer(At::TrailerValue)?,
            (At::TrailerValue, byte) if head::is_value(byte) => self.trailer(At::TrailerValue)?,
            (At::TrailerValue, b'\r') => At::TrailerLf,
            (At::TrailerLf, b'\n') => At::Trailer,
            _ => return None,
        })
    }

    fn extension(&mut self, next: At) -> Option<At> {
        self.extensions += 1;
        (self.extensions <= MAX_EXTENSIONS).then_some(next)
    }

    fn trailer(&mut self, next: At) -> Option<At> {
        self.trailers += 1;
        (self.trailers < MAX_HEAD).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";

    /// Everything passed, heads, and the end: in one piece.
    fn scan(text: &str) -> (usize, u64, Rest) {
        let Scan { passed, heads, rest } = Framing::default().scan(text.as_bytes());
        (passed, heads, rest)
    }

    #[test]
    fn bodies_lead_to_the_next_head() {
        for text in [
            format!("{GET}{GET}"),
            format!("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello{GET}"),
            format!("{CHUNKED}5\r\nhello\r\n0\r\n\r\n{GET}"),
            format!("{CHUNKED}5 ;a=\"b\"\r\nhello\r\nA\r\n0123456789\r\n00\r\nX-Sum: 1\r\ny:\r\n\r\n{GET}"),
        ] {
            assert_eq!(scan(&text), (text.len(), 2, Rest::None), "{text}");
            // Byte by byte, with a head held back until it is whole.
            let (mut framing, mut held, mut passed, mut heads) = (Framing::default(), Vec::new(), 0, 0);
            for byte in text.bytes() {
                held.push(byte);
                let scan = framing.scan(&held);
                assert!(matches!(scan.rest, Rest::None | Rest::Wait), "{text}: {:?}", scan.rest);
                held.drain(..scan.passed);
                (passed, heads) = (passed + scan.passed, heads + scan.heads);
            }
            assert_eq!((passed, heads), (text.len(), 2), "{text}");
        }
    }

    #[test]
    fn a_malformed_chunk_refuses_its_request_where_nobody_has_seen_it_and_breaks_it_where_somebody_has() {
        for chunks in [
            "fffffffffffffff0\r\n",
            "10000000000000000\r\n",
            "\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n",
            "g\r\n",
            "5\nhello\r\n",
            "5;a\nhello\r\n",
            "5;a\0\r\nhello\r\n",
            "5 a\r\nhello\r\n",
            "5 6\r\nhello\r\n",
            "5 \t;a\0\r\nhello\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "0\r\nA b: c\r\n\r\n",
            "0\r\na: b\n\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\na: b\0\r\n\r\n",
            &format!("5;{}\r\nhello\r\n", "a".repeat(MAX_EXTENSIONS + 1)),
            &format!("0\r\na: {}\r\n\r\n", "b".repeat(MAX_HEAD)),
        ] {
            let text = format!("{GET}{CHUNKED}{chunks}");
            assert_eq!(scan(&text), (GET.len(), 1, Rest::Refused(Refusal::Chunk)), "{chunks:?}");
            let mut framing = Framing::default();
            assert_eq!(framing.scan(CHUNKED.as_bytes()).rest, Rest::None);
            assert_eq!(framing.scan(chunks.as_bytes()).rest, Rest::Broken(Refusal::Chunk), "{chunks:?}");
        }
    }

    #[test]
    fn what_follows_an_offer_to_leave_http_waits_for_the_server() {
        let offer = "GET / HTTP/1.1\r\nupgrade: a\r\n\r\n";
        for (left, rest) in [(true, Rest::None), (false, Rest::Refused(Refusal::RequestLine))] {
            let mut framing = Framing::default();
            let text = format!("{offer}any bytes\r\n");
            let scan = framing.scan(text.as_bytes());
            assert_eq!(scan, Scan { passed: offer.len(), heads: 1, rest: Rest::Wait });
            assert!(framing.is_undecided());
            framing.decided(left);
            assert_eq!(framing.scan(b"bytes \r\n\r\n").rest, rest);
        }
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_never_panic_and_nothing_is_passed_twice(bytes: Vec<u8>) {
            for before in ["", CHUNKED] {
                let mut framing = Framing::default();
                framing.scan(before.as_bytes());
                proptest::prop_assert!(framing.scan(&bytes).passed <= bytes.len());
            }
        }
    }
}
