//! Random operations on both ends of a connection, in any order and in pieces of any size, against what a pair of byte streams would
//! do: who reads gets what was written, all of it where the end was said; an error comes only of somebody's doing; who waits is
//! woken; nothing is left.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    pin::Pin,
    sync::atomic::AtomicBool,
    task::{Context, Poll, Wake},
};

use proptest::prelude::*;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{
    super::session::{FLOOD, Role, SPARE, Session},
    *,
};

/// The one that opens, the one that serves.
type Side = usize;

#[derive(Debug, Clone)]
enum Op {
    Open,
    Write(Side, usize, usize),
    Read(Side, usize, usize),
    End(Side, usize),
    Drop(Side, usize),
    Refuse(usize),
    Keep(usize),
    /// What the connection of this side has written arrives at the other, so many bytes at most.
    Carry(Side, usize),
    Leave(Side),
}

fn op() -> impl Strategy<Value = Op> {
    let (side, which) = (0..2_usize, any::<usize>());
    let len = prop_oneof![1..100_usize, 1..3 * WINDOW as usize];
    prop_oneof![
        6 => Just(Op::Open),
        20 => (side.clone(), which, len.clone()).prop_map(|(side, which, len)| Op::Write(side, which, len)),
        20 => (side.clone(), which, len.clone()).prop_map(|(side, which, len)| Op::Read(side, which, len)),
        4 => (side.clone(), which).prop_map(|(side, which)| Op::End(side, which)),
        2 => (side.clone(), which).prop_map(|(side, which)| Op::Drop(side, which)),
        1 => which.prop_map(Op::Refuse),
        2 => which.prop_map(Op::Keep),
        20 => (side.clone(), len).prop_map(|(side, len)| Op::Carry(side, len)),
        1 => side.prop_map(Op::Leave),
    ]
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Somebody who waits.
#[derive(Default)]
struct Wait(Option<Arc<Flag>>);

impl Wait {
    /// Polls: who waits and was not woken must wait on.
    fn poll<T>(&mut self, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let flag = Arc::new(Flag::default());
        let result = poll(&mut Context::from_waker(&Arc::clone(&flag).into()));
        let before = self.0.take();
        if result.is_pending() {
            self.0 = Some(flag);
        } else if let Some(before) = before {
            assert!(before.0.load(Ordering::Relaxed), "it was not woken");
        }
        result
    }
}

/// One end of one channel.
#[derive(Default)]
struct End {
    channel: Option<Channel>,
    /// It was there once.
    used: bool,
    wrote: usize,
    read: usize,
    ended: bool,
    /// Dropped before its end was said, or with something unread.
    gave_up: bool,
    refused: bool,
    /// Its reads are over: the end, or an error.
    over: bool,
    reads: Wait,
    writes: Wait,
}

fn byte(id: u32, side: Side, at: usize) -> u8 {
    (at.wrapping_mul(7) ^ (at >> 8) ^ (id as usize * 2 + side)).to_le_bytes()[0]
}

struct World {
    sessions: [Arc<Mutex<Session>>; 2],
    channels: BTreeMap<u32, [End; 2]>,
    carried: [Vec<u8>; 2],
    drivers: [Wait; 2],
    last: u32,
}

impl World {
    fn new() -> Self {
        Self {
            sessions: [Role::Opens, Role::Serves].map(|role| Arc::new(Mutex::new(Session::new(role)))),
            channels: BTreeMap::new(),
            carried: Default::default(),
            drivers: Default::default(),
            last: 0,
        }
    }

    /// One of the channels that this side has.
    fn pick(&mut self, side: Side, which: usize) -> Option<(u32, &mut [End; 2])> {
        let mut there: Vec<_> = self.channels.iter_mut().filter(|(_, ends)| ends[side].channel.is_some()).collect();
        if there.is_empty() {
            return None;
        }
        let (id, ends) = there.swap_remove(which % there.len());
        Some((*id, ends))
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Open => self.open(),
            Op::Write(side, which, len) => {
                if let Some((id, ends)) = self.pick(side, which) {
                    write(id, side, ends, len);
                }
            }
            Op::Read(side, which, len) => {
                if let Some((id, ends)) = self.pick(side, which) {
                    read(id, side, ends, len);
                }
            }
            Op::End(side, which) => {
                if let Some((_, ends)) = self.pick(side, which) {
                    end(&mut ends[side]);
                }
            }
            Op::Drop(side, which) => {
                if let Some((_, ends)) = self.pick(side, which) {
                    give_up(&mut ends[side]);
                }
            }
            Op::Refuse(which) => {
                // As its users do: before they have looked at it.
                if let Some((_, ends)) = self.pick(1, which)
                    && let end = &mut ends[1]
                    && end.read + end.wrote == 0
                    && !end.ended
                {
                    end.channel.take().unwrap().refuse();
                    (end.refused, end.over) = (true, true);
                }
            }
            Op::Keep(which) => {
                if let Some((_, ends)) = self.pick(0, which) {
                    let channel = ends[0].channel.as_ref().unwrap();
                    assert!(!channel.rest() || channel.resume(), "it was kept, and cannot be used");
                }
            }
            Op::Carry(side, len) => self.carry(side, len),
            Op::Leave(side) => self.sessions[side].lock().leave(),
        }
        for session in &self.sessions {
            let (inboxes, out) = session.lock().held();
            assert!(
                inboxes <= 2 * (self.channels.len() * WINDOW as usize + SPARE as usize) && out < FLOOD,
                "{inboxes} {out}"
            );
        }
    }

    fn open(&mut self) {
        let id = self.sessions[0].lock().open(Carries::Http1);
        if let Some(id) = id {
            assert!(id > self.last);
            self.last = id;
            let mut ends: [End; 2] = Default::default();
            (ends[0].channel, ends[0].used) =
                (Some(Channel::new(Arc::clone(&self.sessions[0]), id, Carries::Http1)), true);
            self.channels.insert(id, ends);
        }
    }

    fn carry(&mut self, side: Side, len: usize) {
        let mut out = Vec::new();
        let session = &self.sessions[side];
        let _ = self.drivers[side].poll(|cx| {
            session.lock().poll_out(&mut out, cx);
            if out.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        });
        self.carried[side].extend_from_slice(&out);
        let len = len.min(self.carried[side].len());
        let arrived: Vec<u8> = self.carried[side].drain(..len).collect();
        let to = &self.sessions[1 - side];
        to.lock().receive(&arrived).unwrap();
        for (id, carries) in to.lock().take_opened() {
            let end = &mut self.channels.get_mut(&id).unwrap()[1];
            (end.channel, end.used) = (Some(Channel::new(Arc::clone(to), id, carries)), true);
        }
    }

    /// Everybody says the end and reads all there is; then nothing is left.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            for side in [0, 1] {
                self.carry(side, usize::MAX);
            }
            let mut left = false;
            for (id, ends) in &mut self.channels {
                for side in [0, 1] {
                    if ends[side].channel.is_some() {
                        left = true;
                        end(&mut ends[side]);
                        read(*id, side, ends, 100_000);
                        if ends[side].over {
                            ends[side].channel = None;
                        }
                    }
                }
            }
            if !left {
                break;
            }
        }
        for side in [0, 1] {
            self.carry(side, usize::MAX);
        }
        self.carry(0, usize::MAX);
        for session in &self.sessions {
            assert!(session.lock().is_unused());
            assert_eq!(session.lock().held(), (0, 0));
        }
        self.sessions[0].lock().leave();
        self.carry(0, usize::MAX);
        assert!(self.sessions[0].lock().is_done());
    }
}

fn write(id: u32, side: Side, ends: &mut [End; 2], len: usize) {
    let end = &mut ends[side];
    let bytes: Vec<u8> = (end.wrote..end.wrote + len).map(|at| byte(id, side, at)).collect();
    let channel = end.channel.as_mut().unwrap();
    match end.writes.poll(|cx| Pin::new(channel).poll_write(cx, &bytes)) {
        Poll::Pending => {}
        Poll::Ready(Ok(n)) => {
            assert!(!end.ended && n > 0 && n <= len);
            end.wrote += n;
        }
        Poll::Ready(Err(error)) => is_due(error.kind(), side, ends),
    }
}

fn read(id: u32, side: Side, ends: &mut [End; 2], len: usize) {
    let end = &mut ends[side];
    let (mut room, channel) = (vec![0; len], end.channel.as_mut().unwrap());
    let mut room = ReadBuf::new(&mut room);
    match end.reads.poll(|cx| Pin::new(channel).poll_read(cx, &mut room)) {
        Poll::Pending => assert!(!end.over),
        Poll::Ready(Ok(())) if room.filled().is_empty() => {
            end.over = true;
            assert!(ends[1 - side].ended, "an end that nobody has said");
            assert_eq!(ends[side].read, ends[1 - side].wrote, "of channel {id}");
        }
        Poll::Ready(Ok(())) => {
            for (at, read) in room.filled().iter().enumerate() {
                assert_eq!(*read, byte(id, 1 - side, end.read + at), "of channel {id}");
            }
            end.read += room.filled().len();
            assert!(end.read <= ends[1 - side].wrote);
        }
        Poll::Ready(Err(error)) => {
            end.over = true;
            is_due(error.kind(), side, ends);
        }
    }
}

/// An error that this side sees has a cause.
fn is_due(kind: ErrorKind, side: Side, ends: &[End; 2]) {
    let (own, other) = (&ends[side], &ends[1 - side]);
    let is_due = match kind {
        ErrorKind::ConnectionReset => other.gave_up,
        ErrorKind::ConnectionRefused => other.refused,
        // Also of one that was only kept, which a drain has ended.
        ErrorKind::BrokenPipe => own.ended,
        _ => false,
    };
    assert!(is_due, "{kind} for side {side}");
}

fn end(end: &mut End) {
    let channel = end.channel.as_mut().unwrap();
    assert!(Pin::new(channel).poll_shutdown(&mut Context::from_waker(std::task::Waker::noop())).is_ready());
    // Its own doing is no reason to wake anybody.
    (end.ended, end.writes) = (true, Wait::default());
}

/// Without a look at what has come.
fn give_up(end: &mut End) {
    end.channel = None;
    (end.gave_up, end.over) = (true, true);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_channels_do_is_what_byte_streams_do(ops in proptest::collection::vec(op(), 1..400)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
        }
        world.finish();
    }
}
