//! Reads and writes the connection for its session: one task, which does both in a turn.
//!
//! It is woken once by all channels that have something to say, after them, so that what they say leaves in one write. When it
//! ends, for whatever reason, so does every channel.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::io::AsyncWrite as _;

use super::{channel::Channel, session::Session};
use crate::{
    buffer::{Buffer, PIECE},
    stream::Stream,
};

/// What is kept of a buffer that was written.
const KEPT: usize = 16 * 1024;

pub(super) struct Driver {
    stream: Stream,
    session: Arc<Mutex<Session>>,
    /// What is being written, and how much of it was.
    out: Vec<u8>,
    written: usize,
}

/// What has come of the connection.
enum Heard {
    /// All there is for now; the task is woken when there is more.
    All,
    /// As much as there may be answers to that are not written.
    Enough,
    End,
}

impl Driver {
    pub(super) fn new(stream: Stream, session: Arc<Mutex<Session>>) -> Self {
        Self { stream, session, out: Vec::new(), written: 0 }
    }

    /// Until the connection ends. When `until` is ready, the peer is asked to open no more channels; not before it has opened one,
    /// which it is about to.
    pub(super) async fn run(
        mut self,
        until: impl Future<Output = ()>,
        mut opened: impl FnMut(Channel),
    ) -> io::Result<()> {
        let mut until = pin!(until);
        let mut leaves = false;
        let ended = poll_fn(|cx| {
            leaves = leaves || until.as_mut().poll(cx).is_ready();
            loop {
                let heard = self.poll_read(cx, &mut opened)?;
                if leaves && self.session.lock().was_used() {
                    self.session.lock().leave();
                }
                if matches!(heard, Heard::End) {
                    return Poll::Ready(Ok(()));
                }
                let written = self.poll_write(cx);
                // Else what was in the way of reading is being written, and nobody would wake this task for what comes.
                if written.is_ready() || matches!(heard, Heard::All) || self.session.lock().is_flooded() {
                    return written;
                }
            }
        })
        .await;
        match &ended {
            Ok(()) => self.stream.say_end(),
            Err(error) => self.session.lock().end(error.kind()),
        }
        ended
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, opened: &mut impl FnMut(Channel)) -> io::Result<Heard> {
        let mut buffer = Buffer::take();
        loop {
            if self.session.lock().is_flooded() {
                return Ok(Heard::Enough);
            }
            match buffer.poll_read(&mut self.stream, cx, PIECE) {
                Poll::Pending => return Ok(Heard::All),
                Poll::Ready(Ok(0)) => return Ok(Heard::End),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
            let (taken, new) = {
                let mut session = self.session.lock();
                (session.receive(buffer.filled()), session.take_opened())
            };
            buffer.drop_front(buffer.filled().len());
            for (id, carries) in new {
                opened(Channel::new(Arc::clone(&self.session), id, carries));
            }
            if let Err(bad) = taken {
                return Err(io::Error::new(io::ErrorKind::InvalidData, bad));
            }
        }
    }

    /// Ready when nothing will ever have to be written again.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.out.len() {
                if self.out.capacity() > KEPT {
                    self.out = Vec::new();
                }
                self.written = 0;
                self.out.clear();
                self.session.lock().poll_out(&mut self.out, cx);
            }
            if self.out.is_empty() {
                ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                return if self.session.lock().is_done() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            self.written += ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out[self.written..]))?;
        }
    }
}

impl Drop for Driver {
    /// Channels outlive neither a connection that ended nor a task that was dropped.
    fn drop(&mut self) {
        self.session.lock().end(io::ErrorKind::ConnectionReset);
    }
}
