//! Stands between an HTTP/2 peer and hyper, and ends the connection of a peer that sends frame after frame and carries nothing
//! with them: SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA (CVE-2019-9512, -9515, -9518 and the like).
//!
//! h2 bounds what such frames make it hold, not how many it works on. Used for clients by `serve` and for upstreams by `pool`;
//! resets and CONTINUATION, which h2 counts itself, and everything about streams are h2's.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Duration, Instant},
};

/// Frames of a peer that carry nothing, in [`WINDOW`] (reliability.md §1.3).
pub(crate) const MAX_CONTROL_FRAMES: u32 = 1000;
/// As many more for each frame that carries something, whoever sends it: a download of many small frames is acknowledged one
/// by one (as Envoy's ten WINDOW_UPDATE per DATA).
const PER_CARRYING: u32 = 10;
/// After this the count begins anew: a connection with nothing but a PING now and then may live for months.
const WINDOW: Duration = Duration::from_secs(10);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
/// Length, type, flags, stream (RFC 9113 §4.1).
const HEAD: usize = 9;
/// What a client says before its first frame.
const PREFACE: usize = 24;
/// GOAWAY of everything, ENHANCE_YOUR_CALM.
const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b";

/// A connection whose peer may send only so much that carries nothing.
pub(crate) struct Bounded<T> {
    inner: T,
    theirs: Frames,
    ours: Frames,
    left: u32,
    since: Instant,
}

impl<T> Bounded<T> {
    /// The peer is a client.
    pub(crate) fn client(inner: T) -> Self {
        Self::new(inner, Frames::after(PREFACE), Frames::after(0))
    }

    /// The peer is a server.
    pub(crate) fn server(inner: T) -> Self {
        Self::new(inner, Frames::after(0), Frames::after(PREFACE))
    }

    fn new(inner: T, theirs: Frames, ours: Frames) -> Self {
        Self { inner, theirs, ours, left: MAX_CONTROL_FRAMES, since: Instant::now() }
    }

    /// Counts what was read; false: it was too much.
    fn read(&mut self, bytes: &[u8]) -> bool {
        let (left, since) = (&mut self.left, &mut self.since);
        self.theirs.all(bytes, |carries| match (carries, *left) {
            (true, _) => {
                *left = left.saturating_add(PER_CARRYING);
                true
            }
            (false, 0) => {
                let now = Instant::now();
                if now - *since < WINDOW {
                    return false;
                }
                (*left, *since) = (MAX_CONTROL_FRAMES - 1, now);
                true
            }
            (false, _) => {
                *left -= 1;
                true
            }
        })
    }

    /// Counts what was written.
    fn wrote(&mut self, bytes: &[u8]) {
        let left = &mut self.left;
        self.ours.all(bytes, |carries| {
            if carries {
                *left = left.saturating_add(PER_CARRYING);
            }
            true
        });
    }
}

/// Finds the frames in one direction of a connection.
#[derive(Debug)]
struct Frames {
    /// Of the next frame's head.
    head: [u8; HEAD],
    known: usize,
    /// Bytes until it begins.
    skip: usize,
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self { head: [0; HEAD], known: 0, skip }
    }

    /// Whether `good` said of every frame that begins in `bytes` that it is; it is told whether the frame carries something.
    fn all(&mut self, mut bytes: &[u8], mut good: impl FnMut(bool) -> bool) -> bool {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let n = (HEAD - self.known).min(bytes.len());
            self.head[self.known..self.known + n].copy_from_slice(&bytes[..n]);
            self.known += n;
            bytes = &bytes[n..];
            if self.known < HEAD {
                return true;
            }
            let [high, middle, low, kind, flags, ..] = self.head;
            self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            self.known = 0;
            // The end of a stream comes once for each.
            let carries = kind == HEADERS || kind == DATA && (self.skip > 0 || flags & END_STREAM != 0);
            if !good(carries) {
                return false;
            }
        }
    }

    /// Whether a frame of another kind may be put in between here.
    fn is_between(&self) -> bool {
        self.known == 0 && self.skip == 0
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Bounded<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        if this.read(&buf.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        if this.ours.is_between() {
            // If there is room for it: a peer that does not read is not waited for.
            let _ = Pin::new(&mut this.inner).poll_write(cx, GOAWAY);
            let _ = Pin::new(&mut this.inner).poll_flush(cx);
        }
        let reason = format!("the peer sent more than {MAX_CONTROL_FRAMES} frames that carry nothing");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Bounded<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        this.wrote(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let n = buf.len().min(left);
            this.wrote(&buf[..n]);
            left -= n;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const WINDOW_UPDATE: &[u8] = b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01";
    const EMPTY_DATA: &[u8] = b"\0\0\0\0\0\0\0\0\x01";
    const LAST_DATA: &[u8] = b"\0\0\0\0\x01\0\0\0\x01";
    const ONE_BYTE: &[u8] = b"\0\0\x01\0\0\0\0\0\x01x";
    const HEAD: &[u8] = b"\0\0\x01\x01\x04\0\0\0\x01\x88";

    fn connection() -> Bounded<()> {
        Bounded::server(())
    }

    #[tokio::test(start_paused = true)]
    async fn the_frame_after_the_thousandth_that_carries_nothing_is_too_much() {
        for frame in [PING, SETTINGS, WINDOW_UPDATE, EMPTY_DATA] {
            let mut one = connection();
            assert!(one.read(&frame.repeat(1000)));
            assert!(!one.read(frame), "{frame:?}");
        }
        assert!(!Bounded::client(()).read(&[&[b'P'; PREFACE], &SETTINGS.repeat(1001)[..]].concat()));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_found_however_they_are_cut() {
        let bytes = [&[b'P'; PREFACE], HEAD, &PING.repeat(1010)].concat();
        for size in 1..40 {
            let mut one = Bounded::client(());
            assert!(bytes.chunks(size).all(|bytes| one.read(bytes)), "{size}");
            assert_eq!((one.left, one.theirs.is_between()), (0, true), "{size}");
            assert!(!PING.chunks(size).all(|bytes| one.read(bytes)), "{size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_carried_either_way_gives_room_for_ten_more() {
        for frame in [HEAD, ONE_BYTE, LAST_DATA] {
            let (mut theirs, mut ours) = (connection(), connection());
            assert!(theirs.read(frame));
            ours.wrote(&[&[b'P'; PREFACE], frame].concat());
            for mut one in [theirs, ours] {
                assert!(one.read(&PING.repeat(1010)) && !one.read(PING), "{frame:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_now_and_then_is_never_too_much() {
        let mut one = connection();
        for _ in 0..50 {
            tokio::time::advance(WINDOW).await;
            assert!(one.read(&PING.repeat(1000)));
        }
        assert!(!one.read(PING));
    }
}
