//! What is on the wire: frames with a head of eight bytes, and a payload that is a channel's bytes or a number.
//!
//! Pure. A head is: kind (1 byte), what an opened channel carries (1 byte), length of the payload (2 bytes), channel (4 bytes), numbers big-endian. Data
//! are given on as they come, so nothing is kept of a frame but its head. Kinds that are not known are skipped: a later release may
//! say more.

/// Bytes of a head.
pub(super) const HEAD: usize = 8;
/// Most bytes of a payload: with its head one record of TLS.
pub(super) const MOST: usize = 16 * 1024 - HEAD;
/// Of the frames that are kept until they are whole.
const LONGEST_KEPT: usize = 8;

const HELLO: u8 = 0;
const OPEN: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const RESET: u8 = 4;
const CREDIT: u8 = 5;
const LEAVE: u8 = 6;

/// A frame, or a part of one that carries bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// The first of each side: bytes that a channel may be sent at first, and how many channels may be open.
    Hello { window: u32, channels: u32 },
    /// A new channel, and what it carries.
    Open(u32, u8),
    /// Bytes of a channel.
    Data(u32, &'a [u8]),
    /// No more bytes come on a channel.
    End(u32),
    /// A channel is given up, with an error code of HTTP/2 (RFC 9113 §7).
    Reset(u32, u32),
    /// A channel may be sent so many bytes more.
    Credit(u32, u32),
    /// No more channels should be opened.
    Leave,
}

/// Nobody wants it any more: CANCEL.
pub(super) const UNWANTED: u32 = 8;
/// Nobody has looked at it: REFUSED_STREAM.
pub(super) const REFUSED: u32 = 7;

/// Why bytes are no frames.
pub(super) type Bad = &'static str;

impl Frame<'_> {
    /// Writes it at the end of `out`. Data: see [`data`].
    pub(super) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Hello { window, channels } => {
                head(out, HELLO, 8, 0);
                out.extend_from_slice(&window.to_be_bytes());
                out.extend_from_slice(&channels.to_be_bytes());
            }
            Self::Open(channel, carries) => {
                let kind = out.len();
                head(out, OPEN, 0, channel);
                out[kind + 1] = carries;
            }
            Self::Data(channel, bytes) => {
                data(out, channel, bytes.len());
                out.extend_from_slice(bytes);
            }
            Self::End(channel) => head(out, END, 0, channel),
            Self::Reset(channel, code) => {
                head(out, RESET, 4, channel);
                out.extend_from_slice(&code.to_be_bytes());
            }
            Self::Credit(channel, bytes) => {
                head(out, CREDIT, 4, channel);
                out.extend_from_slice(&bytes.to_be_bytes());
            }
            Self::Leave => head(out, LEAVE, 0, 0),
        }
    }
}

/// Writes the head of `len` bytes of a channel, at most [`MOST`], which the caller writes behind it.
pub(super) fn data(out: &mut Vec<u8>, channel: u32, len: usize) {
    head(out, DATA, len, channel);
}

fn head(out: &mut Vec<u8>, kind: u8, len: usize, channel: u32) {
    debug_assert!(len <= MOST, "invariant: the length of a payload has two bytes");
    let [.., high, low] = len.to_be_bytes();
    let [a, b, c, d] = channel.to_be_bytes();
    out.extend_from_slice(&[kind, 0, high, low, a, b, c, d]);
}

/// Reads frames from bytes that come in any pieces.
#[derive(Debug, Default)]
pub(super) struct Parser {
    kept: [u8; HEAD + LONGEST_KEPT],
    have: usize,
    /// Of the payload that is given on, or skipped, as it comes.
    left: usize,
}

impl Parser {
    /// Takes the next frame, or part of one, from the beginning of `bytes`. None: more has to come.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Frame<'a>>, Bad> {
        loop {
            if self.left > 0 {
                let (here, rest) = bytes.split_at(self.left.min(bytes.len()));
                *bytes = rest;
                self.left -= here.len();
                let (kind, channel) = (self.kept[0], self.channel());
                if self.left == 0 {
                    self.have = 0;
                }
                match (kind, here) {
                    (_, []) => return Ok(None),
                    (DATA, here) => return Ok(Some(Frame::Data(channel, here))),
                    _ => continue,
                }
            }
            if !self.keep(HEAD, bytes) {
                return Ok(None);
            }
            let (kind, len) = (self.kept[0], usize::from(u16::from_be_bytes([self.kept[2], self.kept[3]])));
            if len > MOST {
                return Err("a frame that is too long");
            }
            let expected = match kind {
                HELLO => 8,
                OPEN | END | LEAVE => 0,
                RESET | CREDIT => 4,
                DATA if len == 0 => return Err("data without a byte"),
                _ if len == 0 => {
                    self.have = 0;
                    continue;
                }
                _ => {
                    self.left = len;
                    continue;
                }
            };
            if len != expected {
                return Err("a frame whose length is not that of its kind");
            }
            if !self.keep(HEAD + len, bytes) {
                return Ok(None);
            }
            self.have = 0;
            return Ok(Some(self.whole(kind)));
        }
    }

    /// Keeps bytes until there are `most`. Whether there are.
    fn keep(&mut self, most: usize, bytes: &mut &[u8]) -> bool {
        let (here, rest) = bytes.split_at(most.saturating_sub(self.have).min(bytes.len()));
        self.kept[self.have..self.have + here.len()].copy_from_slice(here);
        self.have += here.len();
        *bytes = rest;
        self.have >= most
    }

    fn whole(&self, kind: u8) -> Frame<'static> {
        let channel = self.channel();
        match kind {
            HELLO => Frame::Hello { window: self.number(HEAD), channels: self.number(HEAD + 4) },
            OPEN => Frame::Open(channel, self.kept[1]),
            END => Frame::End(channel),
            RESET => Frame::Reset(channel, self.number(HEAD)),
            CREDIT => Frame::Credit(channel, self.number(HEAD)),
            _ => Frame::Leave,
        }
    }

    fn channel(&self) -> u32 {
        self.number(4)
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.kept[at], self.kept[at + 1], self.kept[at + 2], self.kept[at + 3]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8], parser: &mut Parser, into: &mut Vec<String>) -> Result<(), Bad> {
        while let Some(frame) = parser.next(&mut bytes)? {
            match (frame, into.last_mut()) {
                // Parts of one frame are as good as the whole.
                (Frame::Data(channel, more), Some(last)) if last.starts_with(&format!("data {channel}:")) => {
                    last.push_str(std::str::from_utf8(more).unwrap());
                }
                (Frame::Data(channel, bytes), _) => {
                    into.push(format!("data {channel}:{}", std::str::from_utf8(bytes).unwrap()));
                }
                (other, _) => into.push(format!("{other:?}")),
            }
        }
        assert!(bytes.is_empty());
        Ok(())
    }

    #[test]
    fn frames_are_read_as_they_were_written_however_they_come() {
        let frames = [
            Frame::Hello { window: 70_000, channels: 3 },
            Frame::Open(1, 1),
            Frame::Data(1, b"GET / HTTP/1.1"),
            Frame::Credit(7, 1 << 20),
            Frame::Reset(8, REFUSED),
            Frame::Reset(8, UNWANTED),
            Frame::Data(u32::MAX, b"x"),
            Frame::End(1),
            Frame::Leave,
        ];
        let mut bytes = Vec::new();
        for frame in frames {
            frame.put(&mut bytes);
        }
        // What this release does not know.
        head(&mut bytes, 99, 0, 0);
        head(&mut bytes, 99, 20, 5);
        bytes.extend_from_slice(&[7; 20]);
        Frame::Open(2, 0).put(&mut bytes);
        let mut whole = Vec::new();
        read(&bytes, &mut Parser::default(), &mut whole).unwrap();
        assert_eq!(whole.len(), frames.len() + 1);
        assert_eq!((whole[2].as_str(), whole[9].as_str()), ("data 1:GET / HTTP/1.1", "Open(2, 0)"));
        assert_eq!(whole[3], format!("{:?}", frames[3]));
        for size in 1..40 {
            let (mut parser, mut parts) = (Parser::default(), Vec::new());
            bytes.chunks(size).for_each(|part| read(part, &mut parser, &mut parts).unwrap());
            assert_eq!(parts, whole, "{size}");
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for bad in [
            &[HELLO, 0, 0, 7, 0, 0, 0, 0][..],
            &[OPEN, 0, 0, 1, 0, 0, 0, 1],
            &[DATA, 0, 0, 0, 0, 0, 0, 1],
            &[DATA, 0, 0xff, 0xff, 0, 0, 0, 1],
            &[99, 0, 0x40, 0, 0, 0, 0, 1],
            &[RESET, 0, 0, 0, 0, 0, 0, 1],
        ] {
            assert!(Parser::default().next(&mut &bad[..]).is_err(), "{bad:?}");
        }
    }
}
