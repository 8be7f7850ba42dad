//! The byte streams of the data path as one type: a socket, TLS over a socket, or the in-process way to the own inbound
//! side, each with bytes that were read ahead (detection) given back first.
//!
//! One concrete type keeps every later stage free of generics and boxes. It knows nothing of protocols.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use crate::{detect::guard::Guarded, mux::Channel, tls::Alpn};

/// A connection, whatever carries it.
pub(crate) type Stream = Prefixed<Io>;

/// What carries the bytes.
pub(crate) enum Io {
    /// Plain TCP.
    Tcp(TcpStream),
    /// Mutual TLS between proxies. Boxed: a rustls connection is large, and most connections of a pod are plain.
    Tls(Box<TlsStream<Prefixed<TcpStream>>>),
    /// One of many on a connection between proxies.
    Channel(Channel),
    /// To the own inbound side, in this process.
    Local(DuplexStream),
    /// Plain TCP of a client that has not spoken yet, though the server has.
    Guarded(Box<Guarded>),
}

/// A stream that first gives back what was read from it for detection.
pub(crate) struct Prefixed<T> {
    prefix: Bytes,
    /// What was read is the beginning of a head that has had its time.
    late: bool,
    inner: T,
}

impl<T> Prefixed<T> {
    /// Gives back `prefix`, then reads `inner`.
    pub(crate) fn new(prefix: Bytes, inner: T) -> Self {
        Self { prefix, late: false, inner }
    }

    /// Notes that the head which begins with what was read has had its time.
    pub(crate) fn late(mut self) -> Self {
        self.late = true;
        self
    }

    /// Whether it was so noted.
    pub(crate) fn is_late(&self) -> bool {
        self.late
    }

    /// Takes it apart.
    pub(crate) fn into_parts(self) -> (Bytes, T) {
        (self.prefix, self.inner)
    }
}

impl<T> From<T> for Prefixed<T> {
    fn from(inner: T) -> Self {
        Self { prefix: Bytes::new(), late: false, inner }
    }
}

impl From<Prefixed<TcpStream>> for Stream {
    fn from(socket: Prefixed<TcpStream>) -> Self {
        Self { prefix: socket.prefix, late: socket.late, inner: Io::Tcp(socket.inner) }
    }
}

impl Stream {
    /// Gives `bytes`, which were read from it, back first.
    pub(crate) fn unread(mut self, bytes: Bytes) -> Self {
        self.put_back(bytes);
        self
    }

    /// The same, in place.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        self.prefix = if self.prefix.is_empty() { bytes } else { [&bytes[..], &self.prefix[..]].concat().into() };
    }

    /// Whether nothing has come on an idle connection: no end, no error, no byte. Costs a look at what the event loop knows. A byte
    /// that has come is lost.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        Pin::new(self).poll_read(&mut nobody, &mut ReadBuf::new(&mut [0])).is_pending()
    }

    /// Says the end to a peer that has all it is due, as far as that is possible at once.
    pub(crate) fn say_end(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        // It is over whether or not the peer hears of it.
        let _ = Pin::new(self).poll_shutdown(&mut nobody);
    }

    /// Waits until there is something to read, or nothing ever will be.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.prefix.has_remaining() {
            return Poll::Ready(Ok(()));
        }
        match &self.inner {
            Io::Tcp(socket) => return socket.poll_read_ready(cx),
            Io::Channel(channel) => return channel.poll_readable(cx),
            Io::Tls(_) | Io::Local(_) | Io::Guarded(_) => {}
        }
        // Of these only a read can tell.
        let mut some = [0; 64];
        let mut read = ReadBuf::new(&mut some);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
        self.prefix = Bytes::copy_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }

    /// Makes the other side see an error, not an end: whatever is dropped after this was cut off, not finished.
    pub(crate) fn abort(self) {
        match self.inner {
            Io::Tcp(socket) => reset(&socket),
            Io::Guarded(guarded) => reset(&guarded.socket),
            // Dropped without close_notify: the peer's TLS tells that from an end. A channel says so.
            Io::Tls(_) | Io::Channel(_) | Io::Local(_) => {}
        }
    }

    /// What it carries, as the two proxies have agreed; none where it is no TLS.
    pub(crate) fn alpn(&self) -> Option<Alpn> {
        let Io::Tls(stream) = &self.inner else { return None };
        stream.get_ref().1.alpn_protocol().and_then(Alpn::from_bytes)
    }

    /// The channel that it is, if it is one of which nothing was read ahead.
    pub(crate) fn into_channel(self) -> Result<Channel, Self> {
        match self {
            Self { prefix, inner: Io::Channel(channel), .. } if prefix.is_empty() => Ok(channel),
            other => Err(other),
        }
    }
}

/// Makes dropping this socket send a reset.
pub(crate) fn reset(socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.has_remaining() {
            let n = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..n]);
            self.prefix.advance(n);
            if self.prefix.is_empty() {
                // Gives the memory back: the connection may live for days.
                self.prefix = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

/// In an `impl AsyncWrite` of a wrapper: writes, and the end, go to its `inner` as they are.
macro_rules! forward_writes {
    () => {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.inner).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(cx)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
        }

        fn is_write_vectored(&self) -> bool {
            self.inner.is_write_vectored()
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(cx)
        }
    };
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    forward_writes!();
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<T> {
    forward_writes!();
}

/// Whether anything was read from a [`Noted`] stream. Atomic only because hyper wants `Send` streams
/// for upgrades; one thread uses it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    anything: AtomicBool,
    /// Interim answers (1xx).
    interim: AtomicU32,
    waker: AtomicWaker,
}

/// Interim answers to one request: a thousand for a minute each are progress of most of a day, and no answer.
pub(crate) const MAX_INTERIM: u32 = 1000;

impl Heard {
    /// Whether something was.
    pub(crate) fn anything(&self) -> bool {
        self.0.anything.load(Ordering::Relaxed)
    }

    /// One more interim answer.
    pub(crate) fn interim(&self) {
        if self.0.interim.fetch_add(1, Ordering::Relaxed) >= MAX_INTERIM {
            self.0.waker.wake();
        }
    }

    fn is_only_interim(&self) -> bool {
        self.0.interim.load(Ordering::Relaxed) > MAX_INTERIM
    }

    /// Waits until there were more interim answers than anybody needs.
    pub(crate) async fn only_interim(&self) {
        poll_fn(|cx| {
            self.0.waker.register(cx.waker());
            if self.is_only_interim() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// A stream that notes when something is read from it.
pub(crate) struct Noted<T> {
    inner: T,
    heard: Heard,
}

impl<T> Noted<T> {
    /// Noted in `heard`.
    pub(crate) fn new(inner: T, heard: Heard) -> Self {
        Self { inner, heard }
    }

    /// What is beneath.
    pub(crate) fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Noted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Whoever waits for the answer is about to give up, and wakes the connection by that. Read on, a server that says them
        // faster than they are parsed would keep this thread from everything else.
        if self.heard.is_only_interim() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard.0.anything.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// Calls the same method of whichever stream it is; what is guarded is so for reading only.
macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Io::Tcp($io) => $call,
            Io::Tls($io) => $call,
            Io::Channel($io) => $call,
            Io::Local($io) => $call,
            Io::Guarded(guarded) => {
                let $io = &mut guarded.socket;
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Self::Channel(io) => Pin::new(io).poll_read(cx, buf),
            Self::Local(io) => Pin::new(io).poll_read(cx, buf),
            Self::Guarded(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
            Self::Channel(io) => io.is_write_vectored(),
            Self::Local(io) => io.is_write_vectored(),
            Self::Guarded(io) => io.socket.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn the_prefix_is_read_first_and_writes_go_through() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream: Stream = Prefixed::new(Bytes::from_static(b"abc"), Io::Local(near));
        far.write_all(b"def").await.unwrap();
        let mut read = [0; 6];
        stream.read_exact(&mut read[..2]).await.unwrap();
        stream.read_exact(&mut read[2..]).await.unwrap();
        assert_eq!(&read, b"abcdef");
        stream.write_all(b"back").await.unwrap();
        drop(stream);
        let mut back = String::new();
        far.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "back");
    }

    #[tokio::test]
    async fn of_a_server_that_says_only_interim_answers_no_more_is_read() {
        let heard = Heard::default();
        let mut endless = Noted::new(tokio::io::repeat(b'1'), heard.clone());
        for _ in 0..MAX_INTERIM {
            heard.interim();
        }
        let mut read = [0; 8];
        assert_eq!(endless.read(&mut read).await.unwrap(), 8);
        heard.interim();
        tokio::select! {
            biased;
            read = endless.read(&mut read) => panic!("{read:?} of it"),
            () = heard.only_interim() => {}
        }
    }
}
