//! HTTP/2 as the load speaks it: unary calls in the shape of gRPC (RFC 9113, RFC 7541), frames and header blocks made by hand.
//!
//! A call is HEADERS and a message, its answer HEADERS, a message and trailers. Header fields are put into the dynamic table by the
//! first call of a connection and named by their number from then on, as libraries do; one field is another at every call.

use std::collections::HashMap;

use anyhow::Context as _;
use tokio::time::Instant;

/// Of a call's message and of its answer's, with the five bytes before it.
pub(crate) const MESSAGE: usize = 128;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of a frame's head.
const HEAD: usize = 9;
/// Longest frame that may come (the default of SETTINGS_MAX_FRAME_SIZE).
const MAX_FRAME: usize = 16 << 10;
/// How far the connection's window is opened at first, and after how many bytes again.
const WINDOW: (u32, u32) = (1 << 24, 1 << 20);
/// What a receiver's table has room for, and its window (both the defaults).
const TABLE: u32 = 4096;
const FIRST_WINDOW: u32 = 65_535;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
const END: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// The calls of one client's connection.
#[derive(Debug)]
pub(super) struct Calls<'a> {
    link: Link,
    message: &'a [u8],
    next: u32,
    open: HashMap<u32, Call>,
}

#[derive(Debug)]
struct Call {
    due: Instant,
    received: usize,
}

impl<'a> Calls<'a> {
    /// On a new connection; `message` is what each call carries, there and back.
    pub(super) fn new(message: &'a [u8], out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(PREFACE);
        Self { link: Link::open(out), message, next: 1, open: HashMap::new() }
    }

    pub(super) fn busy(&self) -> bool {
        !self.open.is_empty()
    }

    /// One more call, which was due then.
    pub(super) fn ask(&mut self, due: Instant, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let id = self.next;
        self.next += 2;
        let mut block = vec![indexed(3), indexed(6)]; // POST, http
        let fields = [
            (Name::Static(4), "/bench.Echo/Call"),
            (Name::Static(1), "web.shop"),
            (Name::Static(31), "application/grpc"),
            (Name::Static(58), "mesh-bench"),
            (Name::New("te"), "trailers"),
            (Name::New("grpc-accept-encoding"), "identity,deflate,gzip"),
        ];
        for (place, (name, value)) in (0_u8..).zip(fields) {
            if id == 1 {
                literal(&mut block, name, value);
            } else {
                // The newest has number 62.
                block.push(indexed(61 + 6 - place));
            }
        }
        once(&mut block, "x-call", &format!("{id:08x}"));
        frame(out, HEADERS, END_HEADERS, id, &block);
        self.link.send(out, id, self.message, END)?;
        self.open.insert(id, Call { due, received: 0 });
        Ok(())
    }

    /// Reads on; what was due when of the calls that have come to their end goes to `finished`.
    pub(super) fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, finished: &mut Vec<Instant>) -> anyhow::Result<()> {
        let (open, message) = (&mut self.open, self.message);
        self.link.read(bytes, out, |_, frame, _| {
            let call = open.get_mut(&frame.stream).context("an answer to no call")?;
            if frame.kind == DATA {
                call.received = same(message, call.received, frame.payload)?;
            }
            if frame.flags & END != 0 {
                anyhow::ensure!(frame.kind == HEADERS, "an answer without trailers");
                anyhow::ensure!(call.received == message.len(), "an answer without its message");
                finished.extend(open.remove(&frame.stream).map(|call| call.due));
            }
            Ok(())
        })
    }
}

/// The calls of one connection of the server.
#[derive(Debug)]
pub(super) struct Served {
    link: Link,
    preface: usize,
    answered: bool,
    /// Bytes of the message of each open call.
    open: HashMap<u32, usize>,
}

impl Served {
    pub(super) fn new(out: &mut Vec<u8>) -> Self {
        Self { link: Link::open(out), preface: 0, answered: false, open: HashMap::new() }
    }

    /// Reads on and answers; `message` is what every call and every answer carries.
    pub(super) fn read(&mut self, mut bytes: &[u8], message: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        if self.preface < PREFACE.len() {
            let part = bytes.len().min(PREFACE.len() - self.preface);
            self.preface = same(PREFACE, self.preface, &bytes[..part])?;
            bytes = &bytes[part..];
        }
        let (open, answered) = (&mut self.open, &mut self.answered);
        self.link.read(bytes, out, |link, frame, out| {
            let received = open.entry(frame.stream).or_default();
            if frame.kind == DATA {
                *received = same(message, *received, frame.payload)?;
            }
            if frame.flags & END == 0 {
                return Ok(());
            }
            anyhow::ensure!(*received == message.len(), "a call without its message");
            open.remove(&frame.stream);
            let first = !std::mem::replace(answered, true);
            answer(link, frame.stream, first, message, out)
        })
    }
}

fn answer(link: &mut Link, id: u32, first: bool, message: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut head = vec![indexed(8)]; // 200
    let mut trailers = Vec::new();
    if first {
        literal(&mut head, Name::Static(31), "application/grpc");
        literal(&mut trailers, Name::New("grpc-status"), "0");
    } else {
        head.push(indexed(63));
        trailers.push(indexed(62));
    }
    frame(out, HEADERS, END_HEADERS, id, &head);
    link.send(out, id, message, 0)?;
    frame(out, HEADERS, END_HEADERS | END, id, &trailers);
    Ok(())
}

/// What the two ends of a connection have in common.
#[derive(Debug)]
struct Link {
    /// A frame that has not come to its end.
    begun: Vec<u8>,
    /// Bytes that may be sent.
    window: u32,
    /// Bytes that have come since the window was opened.
    received: u32,
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl Link {
    fn open(out: &mut Vec<u8>) -> Self {
        frame(out, SETTINGS, 0, 0, &[]);
        frame(out, WINDOW_UPDATE, 0, 0, &WINDOW.0.to_be_bytes());
        Self { begun: Vec::new(), window: FIRST_WINDOW, received: 0 }
    }

    /// A message, which is short enough for its stream's window.
    fn send(&mut self, out: &mut Vec<u8>, id: u32, message: &[u8], flags: u8) -> anyhow::Result<()> {
        let length = u32::try_from(message.len())?;
        self.window = self.window.checked_sub(length).context("the other side does not open its window")?;
        frame(out, DATA, flags, id, message);
        Ok(())
    }

    /// Reads on; calls `each` for every frame of HEADERS and DATA.
    fn read(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut each: impl FnMut(&mut Self, &Frame<'_>, &mut Vec<u8>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut kept = std::mem::take(&mut self.begun);
        let mut rest = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept
        };
        while let Some((head, behind)) = rest.split_at_checked(HEAD) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            anyhow::ensure!(length <= MAX_FRAME, "a frame of {length} bytes");
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            if frame.kind == DATA {
                self.received += u32::try_from(length)?;
            }
            match frame.kind {
                DATA | HEADERS => {
                    anyhow::ensure!(frame.flags & PADDED == 0, "padding");
                    anyhow::ensure!(frame.kind == DATA || frame.flags & END_HEADERS != 0, "a header block in pieces");
                    each(self, &frame, out)?;
                }
                _ => self.connection(&frame, out)?,
            }
            rest = behind;
        }
        if self.received >= WINDOW.1 {
            frame(out, WINDOW_UPDATE, 0, 0, &std::mem::take(&mut self.received).to_be_bytes());
        }
        let rest = rest.to_vec();
        self.begun = rest;
        Ok(())
    }

    fn connection(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> anyhow::Result<()> {
        match frame.kind {
            SETTINGS if frame.flags & END == 0 => {
                for setting in frame.payload.chunks_exact(6) {
                    let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
                    let table = setting[..2] == [0, 1];
                    anyhow::ensure!(!table || value >= TABLE, "a header table of {value} bytes");
                }
                self::frame(out, SETTINGS, END, 0, &[]);
            }
            PING if frame.flags & END == 0 => self::frame(out, PING, END, 0, frame.payload),
            WINDOW_UPDATE if frame.stream == 0 => {
                let more =
                    frame.payload.try_into().map(u32::from_be_bytes).context("a window update without a number")?;
                self.window = self.window.saturating_add(more);
            }
            RST_STREAM => anyhow::bail!("a stream was reset, code {:?}", frame.payload),
            GOAWAY => {
                anyhow::bail!("the connection is to end: {}", String::from_utf8_lossy(frame.payload).escape_debug())
            }
            CONTINUATION => anyhow::bail!("a header block in pieces"),
            _ => {}
        }
        Ok(())
    }
}

/// That these are the bytes of `whole` from `place` on; where they end.
fn same(whole: &[u8], place: usize, bytes: &[u8]) -> anyhow::Result<usize> {
    let end = place + bytes.len();
    anyhow::ensure!(whole.get(place..end) == Some(bytes), "other bytes than were sent");
    Ok(end)
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    // All that is sent here is short.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The name of a header field: by its number in the static table, or as text.
#[derive(Clone, Copy)]
enum Name<'a> {
    Static(u8),
    New(&'a str),
}

/// A field by its number.
fn indexed(number: u8) -> u8 {
    0x80 | number
}

/// A field as text, which the dynamic table keeps. Everything is shorter than 127 bytes.
fn literal(block: &mut Vec<u8>, name: Name<'_>, value: &str) {
    match name {
        Name::Static(number) => block.push(0x40 | number),
        Name::New(name) => {
            block.push(0x40);
            text(block, name);
        }
    }
    text(block, value);
}

/// A field as text that nobody keeps.
fn once(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    text(block, name);
    text(block, value);
}

fn text(block: &mut Vec<u8>, text: &str) {
    block.push(u8::try_from(text.len()).unwrap_or(126));
    block.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::payload;

    /// A client's and a server's connection whose bytes travel in pieces of `size`.
    fn exchange(size: usize, calls: usize, damage: bool) -> anyhow::Result<usize> {
        let (message, now) = (payload(MESSAGE), Instant::now());
        let (mut asked, mut answered, mut finished) = (Vec::new(), Vec::new(), Vec::new());
        let (mut client, mut server) = (Calls::new(&message, &mut asked), Served::new(&mut answered));
        for _ in 0..calls {
            client.ask(now, &mut asked)?;
        }
        if damage {
            *asked.last_mut().context("nothing was asked")? ^= 1;
        }
        // Until both have nothing to say.
        while !asked.is_empty() || !answered.is_empty() {
            for piece in std::mem::take(&mut asked).chunks(size) {
                server.read(piece, &message, &mut answered)?;
            }
            for piece in std::mem::take(&mut answered).chunks(size) {
                client.read(piece, &mut asked, &mut finished)?;
            }
        }
        anyhow::ensure!(!client.busy(), "calls without an answer");
        Ok(finished.len())
    }

    #[test]
    fn every_call_has_its_answer_in_whatever_pieces_they_come() {
        for size in [1, 2, 8, 9, 10, 100, 1 << 20] {
            assert_eq!(exchange(size, 20, false).unwrap(), 20, "pieces of {size}");
        }
    }

    #[test]
    fn a_message_that_was_changed_on_its_way_is_an_error() {
        assert!(exchange(1 << 20, 1, true).is_err());
    }
}
