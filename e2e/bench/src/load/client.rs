//! The client: asks over many connections, as often as answers come or so many times a second, and writes down how long it took.
//!
//! At a fixed rate a latency counts from the moment at which the request was due, whether or not it could be sent then: a proxy
//! that stalls is charged for every request that it kept from being sent (no coordinated omission).

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context as _;
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::time::Instant;

use super::{
    http1::{self, Answers},
    http2::{self, Calls},
    payload,
    server::LENGTHS,
    socket::{READ, Socket},
};

/// Before anything is counted: connections are made, pools are filled, clocks of processors go up.
pub(super) const WARM_UP: Duration = Duration::from_millis(300);
/// How long answers may be late before the test is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Events of the clock; others are numbers of connections.
const CLOCK: u64 = u64::MAX;

/// What is asked, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) what: What,
    pub(crate) pace: Pace,
    /// How long it is measured.
    pub(crate) time: Duration,
}

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Requests over HTTP/1.1 for so many bytes each, one after the other.
    Http1(usize),
    /// The same, but each connection is closed after one; at a closed loop.
    Fresh(usize),
    /// Calls over HTTP/2, so many at a time.
    Calls(usize),
}

impl What {
    /// A request of HTTP/1.1, and what is in an answer.
    fn messages(self) -> (Vec<u8>, Vec<u8>) {
        let length = match self {
            Self::Http1(length) | Self::Fresh(length) => length,
            Self::Calls(_) => http2::MESSAGE,
        };
        (http1::request(length), payload(length))
    }
}

/// When a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// When its connection has the answer to the one before.
    Closed,
    /// So many times a second, whatever comes back.
    Rate(u32),
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Answers, in the time that was measured.
    pub(crate) answers: usize,
    pub(crate) time: Duration,
    /// What `cpu` had more at the end of it.
    pub(crate) cpu: Duration,
    /// Of each request that was due in that time, sorted.
    pub(crate) latencies: Vec<Duration>,
}

/// Does it, from the network of the calling thread. `cpu` is asked at the beginning and at the end of the measured time.
pub(crate) fn run(to: SocketAddr, plan: &Plan, cpu: impl Fn() -> anyhow::Result<Duration>) -> anyhow::Result<Seen> {
    let (request, payload) = plan.what.messages();
    let mut client = Client::new(to, plan, &request, &payload)?;
    let opens = client.begun + WARM_UP;
    client.until(opens)?;
    let (begun, before) = (Instant::now(), cpu()?);
    client.counted = Some(Counted { from: begun, answers: 0, latencies: Vec::new() });
    client.until(begun + plan.time)?;
    let (time, cpu) = (begun.elapsed(), cpu()?.saturating_sub(before));
    let answers = client.counted.as_ref().map_or(0, |counted| counted.answers);
    client.drain(begun + plan.time)?;
    let mut latencies = client.counted.map(|counted| counted.latencies).unwrap_or_default();
    latencies.sort_unstable();
    anyhow::ensure!(answers > 0, "no answer in {time:?}");
    Ok(Seen { answers, time, cpu, latencies })
}

/// So many connections, each of which has had one answer and has nothing to do any more.
pub(crate) fn idle(to: SocketAddr, connections: u32) -> anyhow::Result<Vec<TcpStream>> {
    (0..connections).map(|_| one_by_one(to, What::Http1(LENGTHS[0]), 1)).collect()
}

/// Asks so many times on one connection, each time when the answer before has come.
pub(crate) fn one_by_one(to: SocketAddr, what: What, requests: u32) -> anyhow::Result<TcpStream> {
    let (request, payload) = what.messages();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let (mut output, mut finished, mut buffer) = (Vec::new(), Vec::new(), vec![0; 2 * LENGTHS[1]]);
    let mut speech = Speech::new(what, &payload, &mut output);
    for _ in 0..requests {
        speech.ask(Instant::now(), &request, &mut output)?;
        while finished.is_empty() {
            stream.write_all(&std::mem::take(&mut output)).context("send a request")?;
            let read = stream.read(&mut buffer).context("read an answer")?;
            anyhow::ensure!(read > 0, "a connection was closed");
            speech.read(&buffer[..read], &mut output, &mut finished)?;
        }
        finished.clear();
    }
    Ok(stream)
}

struct Client<'a> {
    to: SocketAddr,
    what: What,
    epoll: Epoll,
    clock: Option<Clock>,
    connections: Vec<Connection<'a>>,
    request: &'a [u8],
    payload: &'a [u8],
    begun: Instant,
    /// Connections without a request, longest idle first; only at a fixed rate.
    idle: VecDeque<usize>,
    /// Requests that no connection was free for, by when they were due.
    due: VecDeque<Instant>,
    counted: Option<Counted>,
    buffer: Vec<u8>,
    /// When the requests were due whose answers one read has brought.
    finished: Vec<Instant>,
}

struct Connection<'a> {
    socket: Socket,
    speech: Speech<'a>,
}

enum Speech<'a> {
    /// With when its request was due, while it has one.
    Http1(Answers<'a>, Option<Instant>),
    Calls(Calls<'a>),
}

struct Clock {
    timer: TimerFd,
    interval: Duration,
    next: Instant,
}

struct Counted {
    from: Instant,
    answers: usize,
    latencies: Vec<Duration>,
}

impl<'a> Client<'a> {
    fn new(to: SocketAddr, plan: &Plan, request: &'a [u8], payload: &'a [u8]) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut connections = Vec::new();
        for place in 0..plan.connections {
            connections.push(Connection::open(to, plan.what, payload, place, &epoll)?);
        }
        let begun = Instant::now();
        let clock = match plan.pace {
            Pace::Closed => None,
            Pace::Rate(rate) => Some(Clock::start(rate, begun, &epoll)?),
        };
        let mut client = Self {
            to,
            what: plan.what,
            epoll,
            clock,
            connections,
            request,
            payload,
            begun,
            idle: VecDeque::new(),
            due: VecDeque::new(),
            counted: None,
            buffer: vec![0; READ],
            finished: Vec::new(),
        };
        let width = if let What::Calls(width) = plan.what { width } else { 1 };
        for place in (0..plan.connections).cycle().take(plan.connections * width) {
            if client.clock.is_some() {
                client.idle.push_back(place);
            } else {
                client.ask(place, begun)?;
            }
        }
        for place in 0..plan.connections {
            client.send(place)?;
        }
        Ok(client)
    }

    /// Asks and reads until then.
    fn until(&mut self, end: Instant) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            if let Some(clock) = &mut self.clock {
                while clock.next <= now {
                    self.due.push_back(clock.next);
                    clock.next += clock.interval;
                }
            }
            self.turn(end - now)?;
        }
    }

    /// Waits for the answers to all that was due before `end`.
    fn drain(&mut self, end: Instant) -> anyhow::Result<()> {
        self.due.retain(|due| *due < end);
        // Those that nobody waits for at a closed loop were sent after all that counts.
        while self.clock.is_some() && (!self.due.is_empty() || self.connections.iter().any(|one| one.speech.busy())) {
            anyhow::ensure!(end.elapsed() < PATIENCE, "{} requests without an answer", self.due.len());
            self.turn(PATIENCE)?;
        }
        Ok(())
    }

    /// One turn of the loop.
    fn turn(&mut self, most: Duration) -> anyhow::Result<()> {
        while !self.due.is_empty() && !self.idle.is_empty() {
            if let (Some(due), Some(place)) = (self.due.pop_front(), self.idle.pop_front()) {
                self.ask(place, due)?;
                self.send(place)?;
            }
        }
        let mut events = [EpollEvent::empty(); 256];
        // A whole millisecond more, or the last one would be spent in turns that wait for nothing.
        let most = EpollTimeout::try_from(most + Duration::from_millis(1))?;
        let count = match self.epoll.wait(&mut events, most) {
            Err(nix::Error::EINTR) => return Ok(()),
            ready => ready?,
        };
        for event in &events[..count] {
            if event.data() == CLOCK {
                if let Some(clock) = &self.clock {
                    clock.timer.wait()?;
                }
            } else {
                self.read(usize::try_from(event.data())?)?;
            }
        }
        Ok(())
    }

    /// Makes a request that was due then; [`Client::send`] sends it.
    fn ask(&mut self, place: usize, due: Instant) -> anyhow::Result<()> {
        let Connection { socket, speech } = &mut self.connections[place];
        speech.ask(due, self.request, socket.output())
    }

    /// Sends all that a connection has to send.
    fn send(&mut self, place: usize) -> anyhow::Result<()> {
        let left = self.connections[place].socket.flush().context("send a request")?;
        anyhow::ensure!(!left, "a request does not fit into a socket");
        Ok(())
    }

    fn read(&mut self, place: usize) -> anyhow::Result<()> {
        let Connection { socket, speech } = &mut self.connections[place];
        let Some(read) = socket.read(&mut self.buffer).context("read an answer")? else { return Ok(()) };
        anyhow::ensure!(read > 0, "a connection was closed");
        speech.read(&self.buffer[..read], socket.output(), &mut self.finished)?;
        let now = Instant::now();
        let mut finished = std::mem::take(&mut self.finished);
        for asked in finished.drain(..) {
            if let Some(counted) = &mut self.counted {
                counted.answers += 1;
                if asked >= counted.from {
                    counted.latencies.push(now.saturating_duration_since(asked));
                }
            }
            if self.clock.is_some() {
                self.idle.push_back(place);
                continue;
            }
            if let What::Fresh(_) = self.what {
                // The kernel forgets an ended connection's descriptor by itself.
                self.connections[place] = Connection::open(self.to, self.what, self.payload, place, &self.epoll)?;
            }
            self.ask(place, now)?;
        }
        self.finished = finished;
        self.send(place)
    }
}

impl<'a> Connection<'a> {
    fn open(to: SocketAddr, what: What, payload: &'a [u8], place: usize, epoll: &Epoll) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connect to {to}"))?;
        let mut socket = Socket::new(stream)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
        let speech = Speech::new(what, payload, socket.output());
        Ok(Self { socket, speech })
    }
}

impl<'a> Speech<'a> {
    /// On a new connection; what is to be sent first goes to `out`.
    fn new(what: What, payload: &'a [u8], out: &mut Vec<u8>) -> Self {
        match what {
            What::Http1(_) | What::Fresh(_) => Self::Http1(Answers::new(payload), None),
            What::Calls(_) => Self::Calls(Calls::new(payload, out)),
        }
    }

    /// One more request, which was due then.
    fn ask(&mut self, due: Instant, request: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        match self {
            Self::Http1(_, asked) => {
                *asked = Some(due);
                out.extend_from_slice(request);
                Ok(())
            }
            Self::Calls(calls) => calls.ask(due, out),
        }
    }

    /// Reads on; when the requests were due whose answers are there goes to `finished`.
    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, finished: &mut Vec<Instant>) -> anyhow::Result<()> {
        match self {
            Self::Http1(answers, asked) => match answers.read(bytes)? {
                0 => {}
                1 => finished.push(asked.take().context("an answer without a request")?),
                _ => anyhow::bail!("more answers than requests"),
            },
            Self::Calls(calls) => calls.read(bytes, out, finished)?,
        }
        Ok(())
    }

    /// Whether an answer is to come.
    fn busy(&self) -> bool {
        match self {
            Self::Http1(_, asked) => asked.is_some(),
            Self::Calls(calls) => calls.busy(),
        }
    }
}

impl Clock {
    /// Ticks so many times a second; the kernel's timer is as precise as it can be, epoll's own is not.
    fn start(rate: u32, begun: Instant, epoll: &Epoll) -> anyhow::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        let interval = Duration::from_secs(1) / rate;
        timer.set(Expiration::Interval(TimeSpec::from_duration(interval)), TimerSetTimeFlags::empty())?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, CLOCK))?;
        Ok(Self { timer, interval, next: begun + interval })
    }
}
