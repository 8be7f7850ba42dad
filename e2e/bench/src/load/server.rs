//! The application behind the proxies: one thread that answers on one port per protocol, as quickly as it can.

use std::{
    io::{PipeWriter, pipe},
    net::{IpAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
};

use anyhow::Context as _;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use parking_lot::Mutex;

use super::{
    http1::{self, Requests},
    http2::{self, Served},
    payload,
    socket::{READ, Socket},
    stream::{self, Counted},
};

/// HTTP/1.1.
pub(crate) const HTTP_PORT: u16 = 8081;
/// HTTP/2, with prior knowledge.
pub(crate) const CALLS_PORT: u16 = 8082;
/// Bytes of no protocol; the answer is how many came.
pub(crate) const BYTES_PORT: u16 = 8083;
/// Lengths of answers that are made beforehand; it gives no others.
pub(crate) const LENGTHS: [usize; 2] = [1 << 10, 64 << 10];
/// Events that are neither of a listener nor of a connection: the end.
const END: u64 = u64::MAX;
/// Numbers of listeners start here, those of connections at 0.
const LISTENERS: u64 = 1 << 32;

/// A running server; ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    end: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
    complaint: Arc<Mutex<Option<String>>>,
}

impl Server {
    /// Listens on `ip`, in the network of the calling thread.
    pub(crate) fn start(ip: IpAddr) -> anyhow::Result<Self> {
        let (ended, end) = pipe()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&ended, EpollEvent::new(EpollFlags::EPOLLIN, END))?;
        let mut listeners = Vec::new();
        for (port, number) in [HTTP_PORT, CALLS_PORT, BYTES_PORT].into_iter().zip(LISTENERS..) {
            let listener = TcpListener::bind((ip, port)).with_context(|| format!("listen on port {port}"))?;
            listener.set_nonblocking(true)?;
            epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
            listeners.push((port, listener));
        }
        let complaint = Arc::new(Mutex::new(None));
        let complaints = Arc::clone(&complaint);
        let thread = std::thread::Builder::new().name("server".into()).spawn(move || {
            let _kept = ended;
            let mut serving = Serving {
                epoll,
                listeners,
                connections: Vec::new(),
                answers: LENGTHS.map(|length| http1::answer(&payload(length))),
                message: payload(http2::MESSAGE),
                bytes: stream::pattern(),
                complaints,
            };
            if let Err(error) = serving.run() {
                serving.complain(&error);
            }
        })?;
        Ok(Self { end: Some(end), thread: Some(thread), complaint })
    }

    /// What it could not understand, since it was asked last.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.complaint.lock().take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread.
            let _ = thread.join();
        }
    }
}

struct Serving {
    epoll: Epoll,
    /// With their ports.
    listeners: Vec<(u16, TcpListener)>,
    /// By number; numbers of ended ones are used again.
    connections: Vec<Option<Connection>>,
    /// Of the lengths in [`LENGTHS`].
    answers: [Vec<u8>; 2],
    /// Of every call.
    message: Vec<u8>,
    /// What bytes of no protocol are.
    bytes: Vec<u8>,
    complaints: Arc<Mutex<Option<String>>>,
}

struct Connection {
    socket: Socket,
    speech: Speech,
    /// Whether the kernel tells when there is room again.
    waits: bool,
}

enum Speech {
    Http1(Requests),
    Calls(Box<Served>),
    Bytes(Counted),
}

impl Serving {
    fn run(&mut self) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        let mut buffer = vec![0; READ];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(nix::Error::EINTR) => continue,
                ready => ready?,
            };
            for event in &events[..count] {
                match event.data() {
                    END => return Ok(()),
                    number @ LISTENERS.. => self.accept(usize::try_from(number - LISTENERS)?)?,
                    number => {
                        let place = usize::try_from(number)?;
                        let open = self.serve(place, &mut buffer).unwrap_or_else(|error| {
                            self.complain(&error);
                            false
                        });
                        if !open {
                            self.connections[place] = None;
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) -> anyhow::Result<()> {
        let (port, listener) = &self.listeners[listener];
        // Where the client has left already, there is nobody to serve.
        let Ok((stream, _)) = listener.accept() else { return Ok(()) };
        let place = self.connections.iter().position(Option::is_none).unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let mut socket = Socket::new(stream)?;
        let speech = match *port {
            CALLS_PORT => Speech::Calls(Box::new(Served::new(socket.output()))),
            BYTES_PORT => Speech::Bytes(Counted::default()),
            _ => Speech::Http1(Requests::default()),
        };
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
        self.connections[place] = Some(Connection { socket, speech, waits: false });
        Ok(())
    }

    /// Reads and answers. False where the connection has ended.
    fn serve(&mut self, place: usize, buffer: &mut [u8]) -> anyhow::Result<bool> {
        // An event of a connection that ended earlier in this turn.
        let Some(connection) = &mut self.connections[place] else { return Ok(true) };
        // A client that leaves, however it does, is no mistake of its.
        let Ok(read) = connection.socket.read(buffer) else { return Ok(false) };
        if let Some(read) = read {
            let (socket, answers) = (&mut connection.socket, &self.answers);
            match &mut connection.speech {
                // A sender of bytes is told how many came, when it has sent all.
                Speech::Bytes(counted) if read == 0 => {
                    socket.output().extend_from_slice(&counted.total().to_be_bytes());
                    // Sent as a whole, or the sender misses it.
                    let _ = socket.flush();
                    return Ok(false);
                }
                _ if read == 0 => return Ok(false),
                Speech::Bytes(counted) => counted.read(&buffer[..read], &self.bytes)?,
                Speech::Calls(calls) => calls.read(&buffer[..read], &self.message, socket.output())?,
                Speech::Http1(requests) => {
                    let mut unknown = None;
                    let place = |length| LENGTHS.iter().position(|made| *made == length);
                    requests.read(&buffer[..read], |length| match place(length) {
                        Some(made) => socket.output().extend_from_slice(&answers[made]),
                        None => unknown = Some(length),
                    })?;
                    anyhow::ensure!(unknown.is_none(), "an answer of {unknown:?} bytes is not made");
                }
            }
        }
        let Ok(waits) = connection.socket.flush() else { return Ok(false) };
        if waits != connection.waits {
            connection.waits = waits;
            let room = if waits { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            self.epoll.modify(&connection.socket, &mut EpollEvent::new(EpollFlags::EPOLLIN | room, place as u64))?;
        }
        Ok(true)
    }

    fn complain(&self, error: &anyhow::Error) {
        *self.complaints.lock() = Some(format!("{error:#}"));
    }
}
