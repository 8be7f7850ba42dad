//! Notes how the client's end of an HTTP connection came to its end, beneath hyper, which does not say.
//!
//! What comes first stands: the client's end or break, or ours. Used by `serve`.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{connections::How, stream::Stream};

/// How it ended. Atomic only because hyper wants `Send` streams for upgrades; one thread uses it.
#[derive(Clone, Default)]
pub(super) struct Ending(Arc<AtomicU8>);

const OPEN: u8 = 0;
const OURS: u8 = 1;
/// Everything from here on is the client's, in this order.
const CLIENTS: [How; 5] = [How::End, How::Reset, How::Cut, How::Timeout, How::Broken];

impl Ending {
    /// `stream`, noted.
    pub(super) fn of<T>(&self, inner: T) -> Watched<T> {
        Watched { inner, ending: self.clone() }
    }

    /// How the client ended it, if the client did.
    pub(super) fn by_client(&self) -> Option<How> {
        let noted = self.0.load(Ordering::Relaxed).checked_sub(OURS + 1)?;
        CLIENTS.get(usize::from(noted)).copied()
    }

    fn note(&self, what: u8) {
        if self.0.load(Ordering::Relaxed) == OPEN {
            self.0.store(what, Ordering::Relaxed);
        }
    }

    fn client(&self, how: How) {
        let place = CLIENTS.iter().position(|known| *known == how).unwrap_or_default();
        self.note(OURS + 1 + u8::try_from(place).unwrap_or_default());
    }
}

/// A client's stream whose end is noted.
pub(super) struct Watched<T> {
    inner: T,
    ending: Ending,
}

impl<T> Watched<T> {
    /// What is beneath.
    pub(super) fn get_ref(&self) -> &T {
        &self.inner
    }

    fn noted<R>(&self, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if let Poll::Ready(Err(error)) = &result {
            self.ending.client(How::of(error));
        }
        result
    }
}

impl Watched<Stream> {
    /// See [`Stream::put_back`].
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.inner.put_back(bytes);
    }

    /// See [`Stream::say_end`].
    pub(super) fn say_end(&mut self) {
        self.ending.note(OURS);
        self.inner.say_end();
    }

    /// See [`Stream::poll_readable`].
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let readable = self.inner.poll_readable(cx);
        self.noted(readable)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        ready!(self.noted(read))?;
        if room > 0 && buf.filled().len() == before {
            self.ending.client(How::End);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.noted(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.noted(flushed)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ending.note(OURS);
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn the_first_end_stands() {
        let (client, server) = tokio::io::duplex(64);
        let ending = Ending::default();
        let mut server = ending.of(server);
        assert_eq!(server.read(&mut []).await.unwrap(), 0);
        assert_eq!(ending.by_client(), None);
        drop(client);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        server.shutdown().await.unwrap();
        assert_eq!(ending.by_client(), Some(How::End));

        let (client, server) = tokio::io::duplex(64);
        let ending = Ending::default();
        let mut server = ending.of(server);
        server.shutdown().await.unwrap();
        drop(client);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(ending.by_client(), None);
    }

    /// A stream that fails.
    struct Failing;

    impl AsyncRead for Failing {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    #[tokio::test]
    async fn a_break_says_what_kind() {
        let ending = Ending::default();
        assert!(ending.of(Failing).read(&mut [0]).await.is_err());
        assert_eq!(ending.by_client(), Some(How::Reset));
    }
}
