//! One channel as its session knows it: bytes that came and were not read, credit both ways, ends.

use std::{
    io,
    task::{Context, Waker},
};

use tokio::io::ReadBuf;

use super::super::{
    WINDOW,
    frame::{Bad, REFUSED},
};

/// What is kept of a buffer whose bytes were all read; most messages are shorter.
const KEPT: usize = 2 * 1024;

/// Most that a window grows to: what HTTP/2 gives a stream.
const WIDEST: u32 = crate::http::STREAM_WINDOW;

pub(super) struct Slot {
    inbox: Vec<u8>,
    /// Of which so much was read.
    read: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Who wants to know that it is given up.
    watcher: Option<Waker>,
    /// Bytes that may be sent.
    credit: u32,
    /// Bytes that may still come, and those that may come at once.
    window: u32,
    width: u32,
    /// Bytes that were read and not yet credited.
    owed: u32,
    ended: bool,
    peer_ended: bool,
    reset: Option<u32>,
    left: bool,
    /// It carries nothing, and is kept for the next exchange.
    rests: bool,
    /// Its writer waits until the connection has room, not for credit.
    crowded: bool,
}

impl Slot {
    pub(super) fn new(credit: u32) -> Self {
        Self {
            inbox: Vec::new(),
            read: 0,
            reader: None,
            writer: None,
            watcher: None,
            credit,
            window: WINDOW,
            width: WINDOW,
            owed: 0,
            ended: false,
            peer_ended: false,
            reset: None,
            left: false,
            rests: false,
            crowded: false,
        }
    }

    /// Bytes have come.
    pub(super) fn came(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        if self.peer_ended {
            return Err("bytes after the end of their channel");
        }
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.window = self.window.checked_sub(len).ok_or("more bytes than the window of their channel")?;
        if self.reset.is_none() {
            // One who reads all the time, and never all of it, would keep what was read without end. Half of it at least: so
            // that no byte is moved twice for one that is read.
            if self.read > 0 && self.read >= self.unread() {
                self.inbox.drain(..self.read);
                self.read = 0;
            }
            self.inbox.extend_from_slice(bytes);
            wake(&mut self.reader);
        }
        Ok(())
    }

    pub(super) fn peer_ends(&mut self) {
        self.peer_ended = true;
        wake(&mut self.reader);
    }

    /// What has come before is read first.
    pub(super) fn peer_resets(&mut self, code: u32) {
        self.reset = Some(code);
        self.wake();
    }

    /// The code with which the peer has given it up.
    pub(super) fn reset_code(&self) -> Option<u32> {
        self.reset
    }

    /// So much more may be sent. False: that is more than there can be.
    pub(super) fn credit(&mut self, more: u32) -> bool {
        let credit = self.credit.checked_add(more).filter(|credit| i32::try_from(*credit).is_ok());
        if let Some(credit) = credit {
            self.credit = credit;
            wake(&mut self.writer);
        }
        credit.is_some()
    }

    /// Of so many bytes that are to be sent, those that may be.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<usize, io::ErrorKind> {
        if self.ended || self.reset.is_some() {
            return Err(self.kind());
        }
        let most = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.credit);
        self.credit -= most;
        Ok(most as usize)
    }

    /// What can be read now, if anything can: bytes, the end, or an error.
    pub(super) fn read(&mut self, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let unread = &self.inbox[self.read..];
        if unread.is_empty() {
            return match self.reset {
                Some(_) => Some(Err(self.kind().into())),
                None => self.peer_ended.then_some(Ok(())),
            };
        }
        let here = unread.len().min(buf.remaining());
        buf.put_slice(&unread[..here]);
        self.read += here;
        self.owed = self.owed.saturating_add(u32::try_from(here).unwrap_or(u32::MAX));
        if self.read == self.inbox.len() {
            self.read = 0;
            if self.inbox.capacity() > KEPT { self.inbox = Vec::new() } else { self.inbox.clear() }
        }
        Some(Ok(()))
    }

    /// Credit that is worth a frame: half a window. Nobody sends more after an end. The window grows for one who reads all that
    /// comes, out of `spare` bytes.
    pub(super) fn take_owed(&mut self, spare: &mut u32) -> u32 {
        if self.owed < self.width / 2 || self.peer_ended || self.reset.is_some() {
            return 0;
        }
        let mut credit = std::mem::take(&mut self.owed);
        if self.inbox.is_empty() {
            let more = self.width.min(WIDEST - self.width).min(*spare);
            *spare -= more;
            self.width += more;
            credit += more;
        }
        self.window += credit;
        credit
    }

    /// What it has beyond the window of every channel.
    pub(super) fn grown(&self) -> u32 {
        self.width - WINDOW
    }

    pub(super) fn reads_later(&mut self, cx: &Context<'_>) {
        note(&mut self.reader, cx);
    }

    pub(super) fn writes_later(&mut self, cx: &Context<'_>) {
        note(&mut self.writer, cx);
    }

    pub(super) fn watches(&mut self, cx: &Context<'_>) {
        note(&mut self.watcher, cx);
    }

    /// Wakes the writer when there is room on the connection. False: it does so already.
    pub(super) fn waits_for_room(&mut self, cx: &Context<'_>) -> bool {
        note(&mut self.writer, cx);
        !std::mem::replace(&mut self.crowded, true)
    }

    pub(super) fn has_room(&mut self) {
        self.crowded = false;
        wake(&mut self.writer);
    }

    pub(super) fn wake(&mut self) {
        wake(&mut self.watcher);
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    /// Says the end. False: it was said, or does not matter.
    pub(super) fn ends(&mut self) -> bool {
        !std::mem::replace(&mut self.ended, true) && self.reset.is_none()
    }

    /// Its user reads and writes no more.
    pub(super) fn leave(&mut self) {
        self.left = true;
        // Of two who share it, the other one.
        self.wake();
    }

    pub(super) fn is_left(&self) -> bool {
        self.left
    }

    fn unread(&self) -> usize {
        self.inbox.len() - self.read
    }

    /// Bytes that are kept, of which some may have been read.
    pub(super) fn held(&self) -> usize {
        self.inbox.len()
    }

    /// Forgets what nobody will read. Whether there was anything: the peer should know that nobody does.
    pub(super) fn drop_unread(&mut self) -> bool {
        let any = self.read < self.inbox.len();
        (self.inbox, self.read) = (Vec::new(), 0);
        any
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn is_over(&self) -> bool {
        self.reset.is_some() || (self.ended && self.peer_ended)
    }

    /// It is only kept, and over: nobody waits for what is known of it.
    pub(super) fn is_forgotten(&self) -> bool {
        self.rests && self.is_over()
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset.is_some()
    }

    /// It is kept, or used again. Whether it can be: it is open, and nothing has come on it.
    pub(super) fn rest(&mut self, rests: bool) -> bool {
        let can = self.read == self.inbox.len() && !self.peer_ended && !self.ended && self.reset.is_none();
        self.rests = rests && can;
        can
    }

    /// Says the end of one that is only kept. False: it is not, or it was said.
    pub(super) fn ends_resting(&mut self) -> bool {
        self.rests && self.ends()
    }

    fn kind(&self) -> io::ErrorKind {
        match self.reset {
            Some(REFUSED) => io::ErrorKind::ConnectionRefused,
            Some(_) => io::ErrorKind::ConnectionReset,
            None => io::ErrorKind::BrokenPipe,
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn note(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}
