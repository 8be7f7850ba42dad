//! Servers that keep to no rule and never stop, to the real binary: requests to others go on by the same proxy, it says what
//! happened, and its memory comes back.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use mesh_testbed::{Member, apps::HTTP_PORT, frames, manifests, member::Pod, talk::get, until, wait::DEADLINE};
use tokio::time::Instant;

use crate::{WEB_A, WEB_B, http, mesh, settings};

/// How long a client waits for a server that goes on and on.
const PATIENCE: Duration = Duration::from_secs(1);
/// What may stay behind (reliability.md §3.1: INV 3).
const LEFT_BEHIND: f64 = 16.0 * 1024.0 * 1024.0;
/// Bytes per write of what is repeated.
const BURST: usize = 16 * 1024;

struct Attack {
    name: &'static str,
    /// Whether the client asks by HTTP/2.
    http2: bool,
    /// Said to a request, once.
    begin: &'static [u8],
    /// Then again and again; empty: the connection is closed.
    again: &'static [u8],
    /// Whether the answer has to be a 502 with this code; else the client may have to give up.
    code: Option<&'static str>,
}

const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// `:status: 200` on stream 1.
const HEAD: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88";

const ATTACKS: [Attack; 11] = [
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
type Now = AtomicUsize;

/// Serves until the listener's owner ends the process; each connection on a thread of its own, until it is closed.
fn serve(listener: &TcpListener, now: &Now, over: &AtomicBool) {
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
fn ask_http2(address: SocketAddr) -> io::Result<()> {
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

fn resident(member: &Member) -> io::Result<f64> {
    member.gauge("process_resident_memory_bytes", &[])
}

pub(crate) fn hostile_servers_harm_neither_the_proxy_nor_requests_to_others() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let _good = mesh.member(&Pod::new("a", "web", 1))?;
    let client = mesh.member(&Pod::new("client", "client", 2))?;
    let outsider = mesh.outsider("outsider", 9)?;
    let address = Ipv4Addr::new(10, 0, 0, 9);
    let listener = outsider.run(|| TcpListener::bind((address, HTTP_PORT)))??;
    mesh.control.apply("endpoints-b.yaml", &manifests::endpoints("web-b", address))?;
    let (now, over) = (Now::default(), AtomicBool::new(false));
    let ask = |service| client.run(|| get(http(service), "/", &[]))?;

    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &now, &over));
        let result = attacked(&client, &now, &ask);
        over.store(true, Ordering::Relaxed);
        // So that the listener looks up.
        let _ = outsider.run(|| TcpStream::connect((address, HTTP_PORT)));
        result
    })
}

fn attacked(
    client: &Member,
    now: &Now,
    ask: &(impl Fn(Ipv4Addr) -> io::Result<mesh_testbed::talk::Answer> + Sync),
) -> anyhow::Result<()> {
    until("the hostile server is an endpoint", || (ask(WEB_B).ok()?.status == 502).then_some(()))?;
    anyhow::ensure!(ask(WEB_A)?.status == 200, "the good server");
    let (started, before) = (client.gauge("process_start_time_seconds", &[])?, resident(client)?);
    for (number, attack) in ATTACKS.iter().enumerate() {
        now.store(number, Ordering::Relaxed);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let victim = scope.spawn(|| {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) || asked < 20 {
                    let answer = ask(WEB_A)?;
                    anyhow::ensure!(answer.status == 200, "{}: another request got {answer:?}", attack.name);
                    asked += 1;
                }
                anyhow::Ok(())
            });
            let attacked = (|| {
                if attack.http2 {
                    return anyhow::Ok(client.run(|| ask_http2(http(WEB_B)))??);
                }
                for _ in 0..3 {
                    let answer = ask(WEB_B)?;
                    let said = (answer.status, answer.header("mesh-error"));
                    anyhow::ensure!(said == (502, attack.code), "{}: {answer:?}", attack.name);
                }
                Ok(())
            })();
            done.store(true, Ordering::Relaxed);
            let victim = victim.join().map_err(|_| anyhow::anyhow!("the victim panicked"))?;
            attacked.and(victim)
        })?;
    }
    until("the memory is back", || (resident(client).ok()? <= before + LEFT_BEHIND).then_some(()))?;
    let restarted = client.gauge("process_start_time_seconds", &[])? - started;
    anyhow::ensure!(restarted.abs() < 0.5, "it is another process");
    anyhow::ensure!(!client.log().contains("panicked"), "{}", client.log());
    Ok(())
}
