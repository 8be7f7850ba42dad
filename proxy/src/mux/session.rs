//! What is known of one connection and its channels: what came for each, what each may send, what is to be written.
//!
//! Pure but for wakers. [`drive`](super::drive) gives it what was read and takes what is to be written; a
//! [`Channel`](super::Channel) does the same from the other side. Nothing grows without bound: what comes is bounded by the windows
//! that were given, what goes out by [`MOST_OUT`], channels by what was promised.

mod slot;

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    task::{Context, Poll, Waker},
};

use tokio::io::ReadBuf;

use self::slot::Slot;
use super::{
    Carries, MAX_CHANNELS, WINDOW,
    frame::{self, Bad, Frame, Parser, REFUSED, UNWANTED},
};

/// Bytes of frames that wait to be written; who has more to say waits, and no channel is opened.
pub(super) const MOST_OUT: usize = 64 * 1024;
/// From so many on, nothing more is read of a peer that reads nothing: what it says may have to be answered. The end that opens
/// channels does not come so far, with what [`MOST_OUT`] lets pass and a few small frames of each channel: two honest ends cannot
/// wait for each other.
pub(super) const FLOOD: usize = 2 * MOST_OUT;
/// Channels that are over for their peer while their task has not yet let go are counted apart: one who gives up all and opens as
/// many is no offender. Beyond so many in all, nothing more is read until a task has had its turn; what was read already may bring
/// [`MAX_CHANNELS`] more.
pub(super) const MOST_SLOTS: usize = 2 * MAX_CHANNELS as usize;

/// What all windows of a connection may have grown by.
pub(super) const SPARE: u32 = crate::http::CONNECTION_WINDOW;

/// Who may open channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Opens,
    Serves,
}

pub(super) struct Session {
    role: Role,
    parser: Parser,
    slots: HashMap<u32, Slot, ahash::RandomState>,
    /// The newest channel.
    last: u32,
    /// What the peer said at first.
    hello: Option<Hello>,
    opened: Vec<(u32, Carries)>,
    spare: u32,
    out: Vec<u8>,
    /// Channels that wait for room in `out`.
    crowd: Vec<u32>,
    driver: Option<Waker>,
    /// No more channels are to be opened.
    leaves: bool,
    over: Option<io::ErrorKind>,
}

#[derive(Clone, Copy)]
struct Hello {
    window: u32,
    channels: u32,
}

impl Session {
    pub(super) fn new(role: Role) -> Self {
        let mut out = Vec::new();
        Frame::Hello { window: WINDOW, channels: MAX_CHANNELS }.put(&mut out);
        Self {
            role,
            parser: Parser::default(),
            slots: HashMap::default(),
            last: 0,
            hello: None,
            opened: Vec::new(),
            spare: SPARE,
            out,
            crowd: Vec::new(),
            driver: None,
            leaves: false,
            over: None,
        }
    }

    /// A new channel, unless there are as many as the peer serves, or it is far behind.
    pub(super) fn open(&mut self, carries: Carries) -> Option<u32> {
        let most = self.hello.map_or(MAX_CHANNELS, |hello| hello.channels.min(MAX_CHANNELS));
        if !self.is_open() || self.slots.len() >= most as usize || self.out.len() >= MOST_OUT {
            return None;
        }
        self.last = self.last.checked_add(1)?;
        self.slots.insert(self.last, Slot::new(self.hello.map_or(0, |hello| hello.window)));
        self.say(Frame::Open(self.last, carries as u8));
        Some(self.last)
    }

    pub(super) fn is_open(&self) -> bool {
        self.over.is_none() && !self.leaves && self.last < u32::MAX
    }

    pub(super) fn is_unused(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether the connection is of no more use.
    pub(super) fn is_done(&self) -> bool {
        self.role == Role::Opens && self.leaves && self.slots.is_empty() && self.out.is_empty()
    }

    /// Opens no more channels, and ends those that are only kept; or asks the peer to do so.
    pub(super) fn leave(&mut self) {
        if std::mem::replace(&mut self.leaves, true) {
            return;
        }
        match self.role {
            Role::Serves => Frame::Leave.put(&mut self.out),
            Role::Opens => {
                let resting = self.slots.iter_mut().filter_map(|(id, slot)| slot.ends_resting().then_some(*id));
                resting.for_each(|id| Frame::End(id).put(&mut self.out));
                let forgotten = self.slots.extract_if(|_, slot| slot.is_forgotten());
                self.spare += forgotten.map(|(_, slot)| slot.grown()).sum::<u32>();
            }
        }
        self.wake_driver();
    }

    /// Whether a channel was ever opened.
    pub(super) fn was_used(&self) -> bool {
        self.last > 0
    }

    /// The connection has ended, with this error for whoever still wants something of it.
    pub(super) fn end(&mut self, kind: io::ErrorKind) {
        self.over.get_or_insert(kind);
        // Whose users are gone wait for nothing any more.
        self.slots.retain(|_, slot| !slot.is_left());
        self.slots.values_mut().for_each(Slot::wake);
    }

    /// Whether the peer has to wait before more of it is heard: until it takes what is said to it, or until tasks of channels that
    /// it gave up have let go.
    pub(super) fn is_flooded(&self) -> bool {
        self.out.len() >= FLOOD || self.slots.len() > MOST_SLOTS
    }

    /// Takes what was read.
    pub(super) fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Bad> {
        while let Some(frame) = self.parser.next(&mut bytes)? {
            self.take(frame)?;
        }
        Ok(())
    }

    fn take(&mut self, frame: Frame<'_>) -> Result<(), Bad> {
        if let Frame::Hello { window, channels } = frame {
            if self.hello.replace(Hello { window, channels }).is_some() {
                return Err("a second greeting");
            }
            let may_be = i32::try_from(window).is_ok() && self.slots.values_mut().all(|slot| slot.credit(window));
            return if may_be { Ok(()) } else { Err("a window larger than there can be") };
        }
        if self.hello.is_none() {
            return Err("a frame before the greeting");
        }
        match frame {
            Frame::Open(id, carries) => return self.opened_by_peer(id, carries),
            Frame::Leave if self.role == Role::Opens => self.leave(),
            Frame::Leave | Frame::Hello { .. } => {}
            Frame::Reset(id, _) if self.forget_opened(id) => {}
            Frame::Data(id, _) | Frame::End(id) | Frame::Reset(id, _) | Frame::Credit(id, _) => {
                let Some(slot) = self.slots.get_mut(&id) else {
                    // Of one that is gone here, and was not yet there.
                    return if id <= self.last { Ok(()) } else { Err("a channel that nobody has opened") };
                };
                match frame {
                    Frame::Data(_, bytes) => slot.came(bytes)?,
                    Frame::End(_) => slot.peer_ends(),
                    Frame::Reset(_, code) => slot.peer_resets(code),
                    Frame::Credit(_, more) if !slot.credit(more) => return Err("more credit than there can be"),
                    _ => {}
                }
                if slot.is_forgotten() {
                    self.remove(id);
                } else if slot.is_left() {
                    self.close_left(id);
                }
            }
        }
        Ok(())
    }

    /// A channel that its user has left, and the peer not yet or just now.
    fn close_left(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.is_over() {
            self.remove(id);
        } else if slot.drop_unread() {
            self.remove(id);
            self.say(Frame::Reset(id, UNWANTED));
        }
    }

    fn opened_by_peer(&mut self, id: u32, carries: u8) -> Result<(), Bad> {
        if self.role == Role::Opens || id <= self.last {
            return Err("a channel that is not the peer's to open");
        }
        let open = self.slots.values().filter(|slot| !slot.is_over()).count();
        if open >= MAX_CHANNELS as usize {
            return Err("more channels than were promised");
        }
        self.last = id;
        let Some(carries) = Carries::from_byte(carries) else {
            // What a later release may have to say.
            self.say(Frame::Reset(id, REFUSED));
            return Ok(());
        };
        self.slots.insert(id, Slot::new(self.hello.map_or(0, |hello| hello.window)));
        self.opened.push((id, carries));
        Ok(())
    }

    /// Forgets a channel that nobody has seen yet. False: there is none.
    fn forget_opened(&mut self, id: u32) -> bool {
        let place = self.opened.iter().position(|(opened, _)| *opened == id);
        if let Some(place) = place {
            self.opened.remove(place);
            self.remove(id);
        }
        place.is_some()
    }

    /// Channels that the peer has opened since.
    pub(super) fn take_opened(&mut self) -> Vec<(u32, Carries)> {
        std::mem::take(&mut self.opened)
    }

    /// What is to be written, in place of `written`, which was. Nothing: `cx` is woken when there is something.
    pub(super) fn poll_out(&mut self, written: &mut Vec<u8>, cx: &Context<'_>) {
        if self.out.is_empty() {
            match &mut self.driver {
                Some(driver) => driver.clone_from(cx.waker()),
                driver @ None => *driver = Some(cx.waker().clone()),
            }
            return;
        }
        written.clear();
        std::mem::swap(&mut self.out, written);
        for id in self.crowd.drain(..) {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.has_room();
            }
        }
    }

    /// Bytes that are kept for who reads, and bytes to be written.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.slots.values().map(Slot::held).sum(), self.out.len())
    }

    fn say(&mut self, frame: Frame<'_>) {
        frame.put(&mut self.out);
        self.wake_driver();
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// For a channel: it is kept for the next exchange, or used for it. Whether it can be.
    pub(super) fn rest(&mut self, id: u32, rests: bool) -> bool {
        self.is_open() && self.slots.get_mut(&id).is_some_and(|slot| slot.rest(rests))
    }

    /// For a channel: reads. Into no room: only whether there is something.
    pub(super) fn poll_read(&mut self, id: u32, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(slot) = self.slots.get_mut(&id) else { return Poll::Ready(Err(self.gone())) };
        if let Some(result) = slot.read(buf) {
            let owed = slot.take_owed(&mut self.spare);
            if owed > 0 {
                self.say(Frame::Credit(id, owed));
            }
            return Poll::Ready(result);
        }
        if self.over.is_some() {
            return Poll::Ready(Err(self.gone()));
        }
        slot.reads_later(cx);
        Poll::Pending
    }

    /// For a channel: writes what there is credit and room for.
    pub(super) fn poll_write(
        &mut self,
        id: u32,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.over.is_some() {
            return Poll::Ready(Err(self.gone()));
        }
        let Some(slot) = self.slots.get_mut(&id) else { return Poll::Ready(Err(self.gone())) };
        let all = parts.iter().map(|part| part.len()).sum::<usize>();
        if all == 0 {
            return Poll::Ready(Ok(0));
        }
        let is_full = self.out.len() >= MOST_OUT;
        let len = match slot.spend(if is_full { 0 } else { all.min(frame::MOST) }) {
            Err(kind) => return Poll::Ready(Err(kind.into())),
            Ok(0) if is_full => {
                if slot.waits_for_room(cx) {
                    self.crowd.push(id);
                }
                return Poll::Pending;
            }
            Ok(0) => {
                slot.writes_later(cx);
                return Poll::Pending;
            }
            Ok(len) => len,
        };
        frame::data(&mut self.out, id, len);
        let mut left = len;
        for part in parts {
            let here = left.min(part.len());
            self.out.extend_from_slice(&part[..here]);
            left -= here;
        }
        self.wake_driver();
        Poll::Ready(Ok(len))
    }

    /// For a channel: says its end.
    pub(super) fn say_end(&mut self, id: u32) {
        if self.over.is_none() && self.slots.get_mut(&id).is_some_and(Slot::ends) {
            self.say(Frame::End(id));
        }
    }

    /// For a channel: its user is gone; where it is still open, with this code.
    pub(super) fn left(&mut self, id: u32, code: u32) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.leave();
        if self.over.is_some() || slot.is_reset() {
            self.remove(id);
        } else if slot.has_ended() {
            self.close_left(id);
        } else {
            self.remove(id);
            self.say(Frame::Reset(id, code));
        }
    }

    fn remove(&mut self, id: u32) {
        if let Some(slot) = self.slots.remove(&id) {
            self.spare += slot.grown();
        }
        self.wake_driver();
    }

    /// For a channel: waits until the peer has given it up, and says with which code; none where the connection has ended.
    pub(super) fn poll_given_up(&mut self, id: u32, cx: &Context<'_>) -> Poll<Option<u32>> {
        match self.slots.get_mut(&id) {
            Some(slot) if self.over.is_none() && !slot.is_reset() => {
                slot.watches(cx);
                Poll::Pending
            }
            Some(slot) => Poll::Ready(slot.reset_code()),
            None => Poll::Ready(None),
        }
    }

    fn gone(&self) -> io::Error {
        self.over.unwrap_or(io::ErrorKind::BrokenPipe).into()
    }
}
