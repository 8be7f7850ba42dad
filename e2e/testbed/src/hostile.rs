//! Servers that keep to no rule and never stop, for tests that look at what a proxy makes of them.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::{frames, wait::DEADLINE};

/// How long a client waits for a server that goes on and on.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes per write of what is repeated.
const BURST: usize = 16 * 1024;

/// What a server says to a request.
#[derive(Debug)]
pub struct Attack {
    /// What it is.
    pub name: &'static str,
    /// Whether the client asks by HTTP/2.
    pub http2: bool,
    /// Said to a request, once.
    begin: &'static [u8],
    /// Then again and again; empty: the connection is closed.
    again: &'static [u8],
    /// Whether the answer has to be a 502 with this code; else the client may have to give up.
    pub code: Option<&'static str>,
}

const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// `:status: 200` on stream 1.
const HEAD: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88";

/// What a proxy has to bear of servers.
pub const ATTACKS: [Attack; 11] = [
    http1("nothing", b"", b"", Some("upstream-reset")),
    http1("half a head", b"HTTP/1.1 200 OK\r\ncontent-", b"", Some("upstream-reset")),
    http1("garbage", b"\x16\x03\x01\0\x05hello", b"\0\xff", Some("upstream-protocol-error")),
    http1("a head without end", b"HTTP/1.1 200 OK\r\n", b"a: bbbbbbbbbbbbbbbb\r\n", Some("upstream-protocol-error")),
    http1("103 without end", b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", Some("upstream-protocol-error")),
    http2("HTTP/1 to HTTP/2", b"HTTP/1.1 200 OK\r\n\r\n", b"hello"),
    http2("PING without end", SETTINGS, b"\0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    http2("SETTINGS without end", SETTINGS, SETTINGS),
    http2(
        "CONTINUATION without end",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x88",
        b"\0\0\x05\x09\0\0\0\0\x01\0\x01x\x01y",
    ),
    http2("103 without end on HTTP/2", SETTINGS, b"\0\0\x05\x01\x04\0\0\0\x01\x08\x03103"),
    http2("empty DATA without end", HEAD, b"\0\0\0\0\0\0\0\0\x01"),
];

const fn http1(name: &'static str, begin: &'static [u8], again: &'static [u8], code: Option<&'static str>) -> Attack {
    Attack { name, http2: false, begin, again, code }
}

const fn http2(name: &'static str, begin: &'static [u8], again: &'static [u8]) -> Attack {
    Attack { name, http2: true, begin, again, code: None }
}

/// What the hostile server does with the next connection: the number of an attack.
pub type Now = AtomicUsize;

/// Serves until the listener's owner ends the process; each connection on a thread of its own, until it is closed.
pub fn serve(listener: &TcpListener, now: &Now, over: &AtomicBool) {
    thread::scope(|scope| {
        for socket in listener.incoming() {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let attack = &ATTACKS[now.load(Ordering::Relaxed)];
            scope.spawn(move || socket.and_then(|socket| answer(socket, attack)));
        }
    });
}

fn answer(mut socket: TcpStream, attack: &Attack) -> io::Result<()> {
    socket.set_write_timeout(Some(PATIENCE))?;
    // However late the question comes, what follows it is the attack and not the end of a connection.
    socket.set_read_timeout(Some(DEADLINE))?;
    let mut read = [0; 4096];
    let mut heard = Vec::new();
    // A head of HTTP/1, or preface and HEADERS of HTTP/2: its type stands in the fourth byte of a frame.
    let asked = |heard: &[u8]| {
        if attack.http2 {
            heard.windows(9).any(|frame| frame[3] == 1 && frame[5..] == [0, 0, 0, 1])
        } else {
            heard.ends_with(b"\r\n\r\n")
        }
    };
    while !asked(&heard) {
        let n = socket.read(&mut read)?;
        if n == 0 {
            return Ok(());
        }
        heard.extend_from_slice(&read[..n]);
    }
    socket.write_all(attack.begin)?;
    if attack.again.is_empty() {
        return Ok(());
    }
    let burst = attack.again.repeat(BURST / attack.again.len() + 1);
    loop {
        socket.write_all(&burst)?;
    }
}

/// Asks by HTTP/2, takes whatever comes, and gives up in the end.
pub fn ask_http2(address: SocketAddr) -> io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    // `GET / HTTP/2`, `host: web`, on stream 1.
    socket.write_all(&[&frames::opening()[..], b"\0\0\x08\x01\x05\0\0\0\x01\x82\x86\x84\x41\x03web"].concat())?;
    let until = Instant::now() + PATIENCE;
    let mut read = [0; 4096];
    while Instant::now() < until {
        match socket.read(&mut read) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}
