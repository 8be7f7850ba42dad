//! An answer's body on its way to the client: how much of what was read belongs to it, and what is written.
//!
//! Pure. Chunks go on as they came, once they were read as strictly as a client's; trailers end here, as they do with a client
//! that did not ask for them in hyper's way.

use std::io::Write as _;

use super::super::framing::Chunked;

/// What is left of a body.
#[derive(Debug)]
pub(super) struct Body(State);

#[derive(Debug)]
enum State {
    /// So many bytes.
    Length(u64),
    Chunked(Chunked),
    /// All that comes; sent on in chunks.
    UntilTheEnd,
    Over,
}

/// Some bytes of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// So many were looked at.
    pub(super) used: usize,
    /// To be written: these three, one after the other.
    pub(super) begin: ChunkHead,
    pub(super) bytes: &'a [u8],
    pub(super) end: &'static [u8],
    /// Bytes of content among them.
    pub(super) content: u64,
}

/// Size of a chunk on a line of its own; or nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ChunkHead {
    bytes: [u8; 18],
    len: usize,
}

impl ChunkHead {
    fn new(size: usize) -> Self {
        let mut head = Self::default();
        let mut room = &mut head.bytes[..];
        // Sixteen digits and the end of the line fit.
        let _ = write!(room, "{size:x}\r\n");
        head.len = 18 - room.len();
        head
    }

    /// As it is written.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What is written after the last byte of a body that ends with its connection.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl Body {
    pub(super) fn none() -> Self {
        Self(State::Over)
    }

    pub(super) fn length(length: u64) -> Self {
        Self(if length == 0 { State::Over } else { State::Length(length) })
    }

    pub(super) fn chunked() -> Self {
        Self(State::Chunked(Chunked::default()))
    }

    pub(super) fn until_the_end() -> Self {
        Self(State::UntilTheEnd)
    }

    /// Whether it comes in chunks.
    pub(super) fn is_chunked(&self) -> bool {
        matches!(self.0, State::Chunked(_))
    }

    /// Whether the chunks it goes on in are ours.
    pub(super) fn gets_chunks(&self) -> bool {
        matches!(self.0, State::UntilTheEnd)
    }

    /// Whether all of it was taken.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.0, State::Over)
    }

    /// The server has ended its connection. Whether that is the end of the body.
    pub(super) fn ends_here(&mut self) -> bool {
        let ends = matches!(self.0, State::UntilTheEnd);
        if ends {
            self.0 = State::Over;
        }
        ends
    }

    /// Takes what belongs to it from the beginning of `bytes`. None: it is malformed.
    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> Option<Piece<'a>> {
        let mut piece =
            Piece { used: bytes.len(), begin: ChunkHead::default(), bytes, end: b"", content: bytes.len() as u64 };
        match &mut self.0 {
            State::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                (piece.used, piece.bytes, piece.content) = (here, &bytes[..here], here as u64);
                if *left == 0 {
                    self.0 = State::Over;
                }
            }
            State::Chunked(chunked) => {
                let before = chunked.content();
                let passed = chunked.scan_to_trailers(bytes)?;
                piece.bytes = &bytes[..passed];
                piece.content = chunked.content() - before;
                piece.used = passed + chunked.scan(&bytes[passed..])?;
                if chunked.is_over() {
                    piece.end = b"\r\n";
                    self.0 = State::Over;
                }
            }
            State::UntilTheEnd if bytes.is_empty() => {}
            State::UntilTheEnd => (piece.begin, piece.end) = (ChunkHead::new(bytes.len()), b"\r\n"),
            State::Over => (piece.used, piece.bytes, piece.content) = (0, b"", 0),
        }
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of `text`, read in pieces of `size` bytes; how many bytes belong to the body, and how many are content.
    fn written(mut body: Body, text: &str, size: usize) -> Option<(String, usize, u64)> {
        let (mut out, mut used, mut content) = (Vec::new(), 0, 0);
        for part in text.as_bytes().chunks(size) {
            let piece = body.take(part)?;
            out.extend_from_slice(&[piece.begin.as_bytes(), piece.bytes, piece.end].concat());
            (used, content) = (used + piece.used, content + piece.content);
            if body.is_over() {
                break;
            }
        }
        if body.ends_here() {
            out.extend_from_slice(LAST_CHUNK);
        }
        body.is_over().then(|| (String::from_utf8(out).unwrap(), used, content))
    }

    #[test]
    fn a_body_ends_where_its_framing_says_however_it_comes() {
        for size in 1..40 {
            let whole = |text: &str, used, content| Some((text.to_owned(), used, content));
            assert_eq!(written(Body::length(5), "hello, you", size), whole("hello", 5, 5));
            let chunks = "3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\n";
            let text = format!("{chunks}x: y\r\nmesh-error: z\r\n\r\nrest");
            assert_eq!(written(Body::chunked(), &text, size), whole(&format!("{chunks}\r\n"), text.len() - 4, 13));
        }
        assert_eq!(written(Body::until_the_end(), "abc", 2), Some(("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n".to_owned(), 3, 3)));
        assert_eq!(written(Body::none(), "abc", 3), Some((String::new(), 0, 0)));
        assert!(Body::length(0).is_over());
    }

    #[test]
    fn a_body_that_is_cut_short_or_malformed_has_no_end() {
        assert_eq!(written(Body::length(5), "hell", 9), None);
        for cut in ["", "3\r\nabc\r\n", "3\r\nabc\r\n0\r\n", "0\r\nx", "g\r\n", "3\r\nabcd\r\n", "1\na\r\n", "1 \n"] {
            assert_eq!(written(Body::chunked(), cut, 99), None, "{cut:?}");
        }
    }
}
