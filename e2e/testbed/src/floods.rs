//! Floods of HTTP/2 frames by a peer that keeps to no rule, for tests that look at what a proxy makes of them.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
    opening,
};

/// Bytes of frames per write.
const BURST: usize = 16 * 1024;
/// How a flood ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The proxy closed the connection.
    Closed,
    /// It stopped reading.
    Stopped,
    /// It read on until the flood was over.
    Endured,
}

/// What a peer says, and says again.
#[derive(Debug)]
pub struct Flood {
    /// What it is.
    pub name: &'static str,
    /// Sent once, on stream 1.
    pub begin: Vec<u8>,
    /// Sent again and again; given the number of the round.
    pub again: fn(u32) -> Vec<u8>,
    /// Whether the attacker reads what the proxy answers.
    pub reads: bool,
    /// Whether the proxy has to close the connection.
    pub closed: bool,
}

/// `GET / HTTP/2`, `host: web`.
pub fn request(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, b"\x82\x86\x84\x41\x03web")
}

/// The same with 70 000 bytes more (RFC 7541 §6.2.2, §5.1), in as many frames as that takes.
fn large_head(stream: u32) -> Vec<u8> {
    const FRAME: usize = 16 * 1024;
    let block = [&b"\x82\x86\x84\x41\x03web\0\x01x\x7f\xf1\xa1\x04"[..], &vec![b'b'; 70_000]].concat();
    let last = block.len().div_ceil(FRAME) - 1;
    let part = |(n, part): (usize, &[u8])| {
        let (kind, flags) = if n == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        frame(kind, flags | if n == last { END_HEADERS } else { 0 }, stream, part)
    };
    block.chunks(FRAME).enumerate().flat_map(part).collect()
}

/// Those that a proxy has to bear, or to end.
pub fn floods() -> [Flood; 11] {
    const fn odd(round: u32) -> u32 {
        2 * round + 1
    }
    let none = Vec::new;
    [
        Flood {
            name: "rapid reset",
            begin: none(),
            again: |n| {
                [request(odd(n), END_HEADERS | END_STREAM), frame(RST_STREAM, 0, odd(n), &[0, 0, 0, 8])].concat()
            },
            reads: true,
            closed: true,
        },
        Flood {
            name: "streams that the proxy has to reset",
            begin: none(),
            again: |n| {
                [request(odd(n), END_HEADERS | END_STREAM), frame(WINDOW_UPDATE, 0, odd(n), &[0, 0, 0, 0])].concat()
            },
            reads: true,
            closed: true,
        },
        Flood {
            name: "CONTINUATION without end",
            begin: request(1, 0),
            again: |_| frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b"),
            reads: true,
            closed: true,
        },
        Flood {
            name: "empty DATA",
            begin: request(1, END_HEADERS),
            again: |_| frame(DATA, 0, 1, &[]),
            reads: true,
            closed: true,
        },
        Flood { name: "PING", begin: none(), again: |_| frame(PING, 0, 0, &[0; 8]), reads: true, closed: true },
        Flood {
            name: "PING, answers not read",
            begin: none(),
            again: |_| frame(PING, 0, 0, &[0; 8]),
            reads: false,
            closed: true,
        },
        Flood {
            name: "SETTINGS, answers not read",
            begin: none(),
            again: |_| frame(SETTINGS, 0, 0, &[]),
            reads: false,
            closed: true,
        },
        Flood { name: "PRIORITY", begin: none(), again: |_| frame(PRIORITY, 0, 1, &[0; 5]), reads: true, closed: true },
        Flood {
            name: "a window that grows by one and one",
            begin: none(),
            again: |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            reads: true,
            closed: true,
        },
        Flood {
            name: "heads that are too large",
            begin: none(),
            again: |n| large_head(odd(n)),
            reads: true,
            closed: false,
        },
        Flood {
            name: "requests, answers not read",
            begin: none(),
            again: |n| request(odd(n), END_HEADERS | END_STREAM),
            reads: false,
            closed: false,
        },
    ]
}

/// Floods `address` for at most `length`; how it ended, and how many bytes were said.
pub fn attack(address: SocketAddr, flood: &Flood, length: Duration) -> io::Result<(End, u64)> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_write_timeout(Some(length))?;
    socket.write_all(&[opening(), flood.begin.clone()].concat())?;
    let mut answers = socket.try_clone()?;
    thread::scope(|scope| {
        if flood.reads {
            scope.spawn(move || while answers.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {});
        }
        let (until, mut round, mut said) = (Instant::now() + length, 0, 0);
        let end = loop {
            let mut burst = Vec::with_capacity(BURST + 64);
            while burst.len() < BURST {
                burst.extend((flood.again)(round));
                round += 1;
            }
            said += burst.len() as u64;
            match socket.write_all(&burst) {
                Ok(()) if Instant::now() > until => break End::Endured,
                Ok(()) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    break End::Stopped;
                }
                Err(_) => break End::Closed,
            }
        };
        let _ = socket.shutdown(Shutdown::Both);
        Ok((end, said))
    })
}
