//! A channel as its user has it: a byte stream. Dropped before both ends were said, it is given up.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Carries,
    frame::{REFUSED, UNWANTED},
    session::Session,
};

/// One channel. Behind a lock only because hyper wants `Send` streams for upgrades; one thread uses it.
pub(crate) struct Channel {
    session: Arc<Mutex<Session>>,
    id: u32,
    carries: Carries,
}

impl Channel {
    pub(super) fn new(session: Arc<Mutex<Session>>, id: u32, carries: Carries) -> Self {
        Self { session, id, carries }
    }

    /// What was said of it when it was opened.
    pub(crate) fn carries(&self) -> Carries {
        self.carries
    }

    /// Gives it up with an error code of HTTP/2. What is read or written after that is an error.
    pub(crate) fn give_up(&self, code: u32) {
        self.session.lock().left(self.id, code);
    }

    /// Waits until the peer has given it up, and says with which code; none where the connection has ended.
    pub(crate) fn poll_given_up(&self, cx: &Context<'_>) -> Poll<Option<u32>> {
        self.session.lock().poll_given_up(self.id, cx)
    }

    /// The code with which the peer has given it up, if it has.
    pub(crate) fn reset_code(&self) -> Option<u32> {
        match self.poll_given_up(&Context::from_waker(Waker::noop())) {
            Poll::Ready(code) => code,
            Poll::Pending => None,
        }
    }

    /// See [`AsyncRead`]. Who reads and who writes share it.
    pub(crate) fn poll_get(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.session.lock().poll_read(self.id, cx, buf)
    }

    /// See [`AsyncWrite`].
    pub(crate) fn poll_put(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.session.lock().poll_write(self.id, cx, &[IoSlice::new(bytes)])
    }

    /// Nothing more will be written.
    pub(crate) fn say_end(&self) {
        self.session.lock().say_end(self.id);
    }

    /// Keeps it for the next exchange. False: there will be none on it.
    pub(crate) fn rest(&self) -> bool {
        self.session.lock().rest(self.id, true)
    }

    /// It was kept, and is to carry the next exchange. False: something has come on it, or its connection is about to end.
    pub(crate) fn resume(&self) -> bool {
        self.session.lock().rest(self.id, false)
    }

    /// Gives it up before anybody has looked at what comes on it, and says so.
    pub(crate) fn refuse(self) {
        self.give_up(REFUSED);
    }

    /// Ready when there is something to read, or nothing ever will be.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.lock().poll_read(self.id, cx, &mut ReadBuf::new(&mut []))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.give_up(UNWANTED);
    }
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_get(cx, buf)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_put(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.session.lock().poll_write(self.id, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written leaves with the next write of the connection.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.say_end();
        Poll::Ready(Ok(()))
    }
}
