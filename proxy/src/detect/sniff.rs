//! Reads the first bytes of a connection until the protocol is known, somebody else speaks, or time is up.
//!
//! The reading half of detection: what the answer means is the caller's business.

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

use super::{Detected, Detector};

/// Read at once. Most first flights (a request head, a ClientHello) fit; the detector says how many are read in all.
const READ: usize = 2 * 1024;

/// The first bytes of a connection, and the detector that has seen them. Survives being interrupted: what was read stays.
#[derive(Default)]
pub(crate) struct Sniffer {
    /// Everything read so far; to be given back by whoever carries on.
    pub(crate) read: BytesMut,
    detector: Detector,
}

/// What came of listening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Enough to tell.
    Protocol(Detected),
    /// The client closed its sending side first: with the bytes there are, it can only be opaque.
    End,
    /// It began, and did not go on in time.
    Unfinished,
}

impl Sniffer {
    /// For a port whose bytes are not to be looked at: see [`Detector::only_tls`].
    pub(crate) fn only_tls() -> Self {
        Self { read: BytesMut::new(), detector: Detector::only_tls() }
    }

    /// Whether the client has said anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.read.is_empty()
    }

    /// Whether the client has begun what looks like a ClientHello.
    pub(crate) fn looks_like_tls(&self) -> bool {
        self.read.first() == Some(&0x16) && self.read.get(1).is_none_or(|major| *major == 0x03)
    }

    /// Waits for the client's first bytes; false when it ended instead. Cancel safe.
    pub(crate) async fn first_bytes(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        if self.read.is_empty() {
            return self.read_on(io).await;
        }
        Ok(true)
    }

    /// Reads until the protocol is known or the client has nothing more to say. Cancel safe.
    pub(crate) async fn listen(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<Heard> {
        loop {
            if let Some(detected) = self.detector.look(&self.read) {
                return Ok(Heard::Protocol(detected));
            }
            if !self.read_on(io).await? {
                return Ok(Heard::End);
            }
        }
    }

    /// Reads what there is; false at the end. By way of the stack: a client that says nothing costs no buffer, one that says
    /// little a small one.
    async fn read_on(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        poll_fn(|cx| {
            let mut space = [MaybeUninit::uninit(); READ];
            let mut space = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut space))?;
            self.read.extend_from_slice(space.filled());
            Poll::Ready(Ok(!space.filled().is_empty()))
        })
        .await
    }

    /// Waits at most `limit` for what it takes to tell, also where the client says nothing: for a port on which it has to.
    pub(crate) async fn must_say(&mut self, io: &mut (impl AsyncRead + Unpin), limit: Duration) -> io::Result<Heard> {
        within(limit, self.listen(io)).await.unwrap_or(Ok(Heard::Unfinished))
    }

    /// Once the client has begun to speak, waits at most `limit` for the rest of what it takes to tell; without it, the bytes
    /// are opaque. As long as the client says nothing, it waits: who speaks first decides, not a clock. Cancel safe, but
    /// the limit then starts again.
    pub(crate) async fn listen_for(&mut self, io: &mut (impl AsyncRead + Unpin), limit: Duration) -> io::Result<Heard> {
        if !self.first_bytes(io).await? {
            return Ok(Heard::End);
        }
        let unfinished = Ok(Heard::Unfinished);
        within(limit, self.listen(io)).await.unwrap_or(unfinished)
    }
}

/// None when `limit` passes first.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}
