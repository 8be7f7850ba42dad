//! Stands between an HTTP/1 client and hyper: passes on whole heads that are beyond doubt, and turns one that is not into a
//! request of our own, so that it is answered, recorded and counted like any other, in its turn.
//!
//! hyper answers what it cannot read by itself, without a code, and reads some things that another program may read
//! differently. Used by `serve` for HTTP/1. What is right and what follows is decided in [`head`](super::head) and
//! [`framing`](super::framing); this moves the bytes.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{
    framing::{Framing, Rest},
    head::{self, Refusal},
};

/// How long, and how much, a client that was answered in the middle of its request may still send before its connection is
/// closed: closed with bytes unread, the kernel would reset it, and the client might not see the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 * 1024 * 1024;
/// Read at once of that. Thrown away, so that few large reads are better than many.
const LINGER_READ: usize = 16 * 1024;

/// Stands for a head that cannot be told as a request, in the live view. No method of anybody's.
const UNREADABLE: &[u8] = b"- * HTTP/1.1";

/// What guard and service tell each other. Atomic only because hyper wants `Send` streams for upgrades.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// Number of the request that is ours in place of the client's; 0: there is none.
    refused: AtomicU64,
    /// Why.
    refusal: AtomicU8,
    /// Number of the last request that was answered, twice, and one more if the connection has left HTTP with that answer.
    answered: AtomicU64,
    /// hyper asks for the next head, of which there is nothing.
    asked: AtomicBool,
    /// hyper has written something that is not flushed.
    unflushed: AtomicBool,
}

impl Verdicts {
    /// Whether request number `request` (from 1) stands for one that was refused.
    pub(super) fn refused(&self, request: u64) -> Option<Refusal> {
        (self.refused.load(Ordering::Relaxed) == request)
            .then(|| Refusal::from_number(self.refusal.load(Ordering::Relaxed)))
            .flatten()
    }

    /// The answer to a request is known, and with it whether the connection leaves HTTP.
    pub(super) fn answered(&self, request: u64, left: bool) {
        self.answered.store(request * 2 + u64::from(left), Ordering::Relaxed);
    }

    /// Whether hyper has nothing of the client's or for it: it asks for a head only when the answers to all before are written. True
    /// only between two polls of its connection, at the end of which it flushes.
    pub(super) fn is_at_rest(&self) -> bool {
        self.asked.load(Ordering::Relaxed) && !self.unflushed.load(Ordering::Relaxed)
    }

    /// Whether the connection leaves HTTP with the answer to `request`; none: there is no answer yet.
    fn left_with(&self, request: u64) -> Option<bool> {
        let answered = self.answered.load(Ordering::Relaxed);
        (answered / 2 == request).then_some(answered % 2 == 1)
    }
}

/// A client's stream, as hyper may see it.
pub(super) struct Guard<T> {
    inner: T,
    framing: Framing,
    verdicts: Arc<Verdicts>,
    heads: u64,
    /// To be passed on.
    ready: Bytes,
    /// Read, and not yet to be passed on: an unfinished head, or what follows an offer to leave HTTP. Bounded: a head that is
    /// longer than allowed is refused, and after an offer nothing is read.
    held: BytesMut,
    patience: Patience,
    end: Option<End>,
    linger: Option<Box<Linger>>,
}

/// The time that a head has from when it is waited for with its first bytes there. No clock runs for a connection that is idle,
/// nor for a head that comes at once.
struct Patience {
    limit: Duration,
    /// The first head had its time before it came here.
    is_over: bool,
    left: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// Ready when an unfinished head has had its time.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over {
            return Poll::Ready(());
        }
        self.left.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.limit))).as_mut().poll(cx)
    }

    /// A head has come to its end.
    fn renew(&mut self) {
        (self.is_over, self.left) = (false, None);
    }
}

/// Bytes that are read for the client's sake alone.
struct Linger {
    limit: Pin<Box<Sleep>>,
    read: usize,
    scratch: [u8; LINGER_READ],
}

/// What comes after `ready`.
enum End {
    /// Nothing more: a request was refused.
    Refused,
    /// An error.
    Broken(Refusal),
}

impl<T> Guard<T> {
    /// In front of `inner`. A head has `limit`; the first one has had it if `is_late`.
    pub(super) fn new(inner: T, verdicts: Arc<Verdicts>, limit: Duration, is_late: bool) -> Self {
        Self {
            inner,
            framing: Framing::default(),
            verdicts,
            heads: 0,
            ready: Bytes::new(),
            held: BytesMut::new(),
            patience: Patience { limit, is_over: is_late, left: None },
            end: None,
            linger: None,
        }
    }

    /// What is beneath.
    pub(super) fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Scans what is held: what may be passed on becomes `ready`.
    fn scan_held(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        let passed = self.scan(&held);
        let ready = held.split_to(passed);
        self.held = held;
        self.push_ready(ready.freeze());
        self.put_refused();
    }

    /// How much of `bytes` may be passed on. What follows, if anything, is `held` or ends it.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let scan = self.framing.scan(bytes);
        self.heads += scan.heads;
        if scan.heads > 0 {
            self.patience.renew();
        }
        match scan.rest {
            Rest::None | Rest::Wait => {}
            Rest::Broken(refusal) => self.end = Some(End::Broken(refusal)),
            Rest::Refused(refusal) => self.refuse(refusal),
        }
        scan.passed
    }

    /// The next head is ours.
    fn refuse(&mut self, refusal: Refusal) {
        self.heads += 1;
        self.verdicts.refusal.store(refusal as u8, Ordering::Relaxed);
        self.verdicts.refused.store(self.heads, Ordering::Relaxed);
        self.end = Some(End::Refused);
    }

    /// In place of what was refused and is held: a request with the same first line, where that can be read.
    fn put_refused(&mut self) {
        if matches!(self.end, Some(End::Refused)) {
            let line = head::readable_line(&self.held).unwrap_or(UNREADABLE);
            let head = [line, b"\r\nconnection: close\r\n\r\n"].concat();
            self.held = BytesMut::new();
            self.push_ready(head.into());
        }
    }

    fn push_ready(&mut self, bytes: Bytes) {
        self.ready = if self.ready.is_empty() { bytes } else { [&self.ready[..], &bytes[..]].concat().into() };
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.ready.len().min(buf.remaining());
        buf.put_slice(&self.ready[..n]);
        self.ready.advance(n);
        if self.ready.is_empty() {
            // Gives the memory back.
            self.ready = Bytes::new();
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.ready.is_empty() {
                this.give(buf);
                return Poll::Ready(Ok(()));
            }
            match &this.end {
                Some(End::Refused) => return Poll::Ready(Ok(())),
                Some(End::Broken(refusal)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal.detail())));
                }
                None => {}
            }
            if this.framing.is_undecided() {
                // hyper reads on when the answer is out, and then it is decided: nobody need be woken.
                let Some(left) = this.verdicts.left_with(this.heads) else {
                    return Poll::Pending;
                };
                this.framing.decided(left);
                this.scan_held();
                continue;
            }
            let before = buf.filled().len();
            let read = Pin::new(&mut this.inner).poll_read(cx, buf);
            let asked = read.is_pending() && this.held.is_empty() && this.framing.is_between();
            this.verdicts.asked.store(asked, Ordering::Relaxed);
            match read {
                Poll::Ready(read) => read?,
                Poll::Pending if this.held.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    ready!(this.patience.poll_end(cx));
                    this.refuse(Refusal::TooSlow);
                    this.put_refused();
                    continue;
                }
            }
            if buf.filled().len() == before {
                // The end; a head without one is nobody's.
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let passed = this.scan(&buf.filled()[before..]);
                this.held.extend_from_slice(&buf.filled()[before + passed..]);
                buf.set_filled(before + passed);
                this.put_refused();
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.extend_from_slice(&buf.filled()[before..]);
                buf.set_filled(before);
                this.scan_held();
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.verdicts.unflushed.store(true, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        if flushed.is_ready() {
            self.verdicts.unflushed.store(false, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.verdicts.unflushed.store(true, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        if this.end.is_none() && !this.framing.is_in_body() {
            return Poll::Ready(Ok(()));
        }
        let linger = this.linger.get_or_insert_with(|| {
            Box::new(Linger { limit: Box::pin(tokio::time::sleep(LINGER)), read: 0, scratch: [0; LINGER_READ] })
        });
        while linger.read < LINGER_BYTES && linger.limit.as_mut().poll(cx).is_pending() {
            let mut scratch = ReadBuf::new(&mut linger.scratch);
            match ready!(Pin::new(&mut this.inner).poll_read(cx, &mut scratch)) {
                Ok(()) if !scratch.filled().is_empty() => linger.read += scratch.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::{Instant, timeout},
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A client whose bytes come in these parts.
    struct Parts(VecDeque<Vec<u8>>);

    impl AsyncRead for Parts {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if let Some(mut part) = self.0.pop_front() {
                let n = part.len().min(buf.remaining());
                buf.put_slice(&part[..n]);
                let rest = part.split_off(n);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    /// What hyper reads of `text`, given in parts that end at `ends`, with reads of `room` bytes.
    async fn seen(text: &[u8], mut ends: Vec<usize>, room: usize) -> String {
        ends.sort_unstable();
        ends.push(text.len());
        let mut from = 0;
        let parts = ends.into_iter().map(|end| text[std::mem::replace(&mut from, end)..end].to_vec());
        let parts = parts.filter(|part| !part.is_empty()).collect();
        let mut guard = Guard::new(Parts(parts), Arc::default(), LIMIT, false);
        let (mut seen, mut buffer) = (Vec::new(), vec![0; room]);
        while let Ok(n @ 1..) = guard.read(&mut buffer).await {
            seen.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8(seen).unwrap()
    }

    const GOOD: &str = "POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\
                        POST /2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n\
                        GET /3 HTTP/1.1\r\nhost: a\r\n\r\n";
    const BAD: &str = "GET /4 HTTP/1.1\r\na : b\r\n\r\nGET /5 HTTP/1.1\r\nhost: a\r\n\r\n";
    const OURS: &str = "GET /4 HTTP/1.1\r\nconnection: close\r\n\r\n";

    proptest::proptest! {
        #[test]
        fn what_is_right_passes_byte_for_byte_and_what_is_not_is_replaced_however_it_comes(
            cuts: Vec<proptest::sample::Index>, room in 1..200_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for (text, expected) in [
                (GOOD.to_owned(), GOOD.to_owned()),
                (format!("{GOOD}{BAD}"), format!("{GOOD}{OURS}")),
                // An end in the middle of a head: nobody's.
                (format!("{GOOD}GET /4 HTTP/1.1\r\nho"), GOOD.to_owned()),
            ] {
                let ends = cuts.iter().map(|cut| cut.index(text.len())).collect();
                proptest::prop_assert_eq!(runtime.block_on(seen(text.as_bytes(), ends, room)), expected);
            }
        }
    }

    #[tokio::test]
    async fn what_follows_an_offer_to_leave_http_waits_for_the_answer() {
        let offer = "GET / HTTP/1.1\r\nupgrade: a\r\n\r\n";
        for (left, expected) in [(true, "no HTTP\0"), (false, "- * HTTP/1.1\r\nconnection: close\r\n\r\n")] {
            let verdicts = Arc::new(Verdicts::default());
            let parts = [format!("{offer}no HTTP\0").into_bytes(), b"\r\n\r\n".to_vec()];
            let mut guard = Guard::new(Parts(parts.into()), Arc::clone(&verdicts), LIMIT, false);
            let mut buffer = [0; 200];
            let n = guard.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..n], offer.as_bytes());
            let waiting = futures_util::FutureExt::now_or_never(guard.read(&mut buffer));
            assert!(waiting.is_none(), "nothing before the answer");
            verdicts.answered(1, left);
            let n = guard.read(&mut buffer).await.unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..n]).unwrap(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_unfinished_head_has_a_limit_and_it_is_kept_to_the_moment() {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut guard = Guard::new(server, Arc::default(), LIMIT, false);
        let (mut buffer, idle) = ([0; 200], Duration::from_hours(1));
        let head = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        assert!(timeout(idle, guard.read(&mut buffer)).await.is_err(), "nothing was said");
        for _ in 0..3 {
            // Each head has its own time.
            client.write_all(&head.as_bytes()[..5]).await.unwrap();
            assert!(timeout(LIMIT * 2 / 3, guard.read(&mut buffer)).await.is_err(), "not whole yet");
            client.write_all(&head.as_bytes()[5..]).await.unwrap();
            let n = guard.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..n], head.as_bytes());
            assert!(timeout(idle, guard.read(&mut buffer)).await.is_err(), "idle between requests");
        }
        client.write_all(b"GET / HTTP/1.1\r\nh").await.unwrap();
        let begun = Instant::now();
        let drip = async {
            while client.write_all(b"h").await.is_ok() {
                tokio::time::sleep(LIMIT / 7).await;
            }
        };
        let n = tokio::select! {
            n = guard.read(&mut buffer) => n.unwrap(),
            () = drip => 0,
        };
        assert_eq!(std::str::from_utf8(&buffer[..n]).unwrap(), "GET / HTTP/1.1\r\nconnection: close\r\n\r\n");
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() < LIMIT * 11 / 10, "{:?}", begun.elapsed());
    }
}
