//! One attempt at a request: the connection, the request on it, the head of the answer, or what is known of the failure.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use mesh_proto::outcome::Outcome;
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    time::Instant,
};

use super::{
    answer::{self, Answer, Asked},
    ask::Ask,
    write::{Pace, poll_write_all},
};
use crate::{
    buffer::{self, Buffer},
    error::{ProxyError, is_handshake_refused},
    http::{
        ending::Watched,
        retry::{self, End, First, after},
    },
    mux::Carries,
    pool::{self, Reach, Upstream},
    stream::{Io, MAX_INTERIM, Stream},
    tls::Alpn,
    worker::Worker,
};

/// The client, while it is not its turn.
pub(super) struct Client<'a> {
    pub(super) stream: &'a mut Watched<Stream>,
    /// Its end, or bytes that were put back.
    has_spoken: bool,
    /// In which it takes answers.
    pub(super) pace: &'a mut Pace,
}

impl<'a> Client<'a> {
    pub(super) fn new(stream: &'a mut Watched<Stream>, pace: &'a mut Pace) -> Self {
        Self { stream, has_spoken: false, pace }
    }

    /// Ready when the client is gone, so that nobody needs the answer. One that has only ended its side waits for it.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_spoken {
            return Poll::Pending;
        }
        let mut some = [0; 256];
        let mut some = ReadBuf::new(&mut some);
        match ready!(Pin::new(&mut *self.stream).poll_read(cx, &mut some)) {
            Err(_) => return Poll::Ready(()),
            Ok(()) if some.filled().is_empty() => {}
            Ok(()) => self.stream.put_back(Bytes::copy_from_slice(some.filled())),
        }
        self.has_spoken = true;
        Poll::Pending
    }
}

/// Why an attempt has no answer.
pub(super) enum Lost {
    /// The client is gone.
    Client,
    Upstream {
        error: ProxyError,
        first: First,
    },
}

impl Lost {
    pub(super) fn into_error(self) -> Option<ProxyError> {
        match self {
            Self::Client => None,
            Self::Upstream { error, .. } => Some(error),
        }
    }

    fn unsent(error: ProxyError) -> Self {
        let first = First::Unsent { may_pass: error.may_pass() };
        Self::Upstream { error, first }
    }

    fn sent(upstream: &Upstream, outcome: Outcome, detail: &dyn fmt::Display, end: End, reused: bool) -> Self {
        let again = after(end, reused);
        // Only of a handshake that was refused is it true that the application has seen nothing.
        let outcome = if again == retry::Again::Elsewhere { Outcome::TlsFailed } else { outcome };
        let error = ProxyError::new(outcome, format!("{}: {detail}", upstream.address()));
        Self::Upstream { error, first: First::Unanswered(again) }
    }

    fn broken(upstream: &Upstream, error: &io::Error, heard: bool, reused: bool) -> Self {
        let end = match () {
            () if is_handshake_refused(error) => End::HandshakeRefused,
            // Only a channel is refused after it was opened.
            () if error.kind() == io::ErrorKind::ConnectionRefused && !heard => End::NotProcessed,
            () if is_closed(error) && !heard => End::Closed,
            () => End::Broken,
        };
        Self::sent(upstream, Outcome::UpstreamReset, error, end, reused)
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// A request in flight counts on its upstream for as long as this lives.
pub(super) struct InFlight(pub(super) Rc<Upstream>);

impl InFlight {
    fn on(upstream: Rc<Upstream>) -> Self {
        upstream.load.begin();
        Self(upstream)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.load.end();
    }
}

/// An answer that has begun.
pub(super) struct Answered {
    pub(super) upstream: InFlight,
    pub(super) stream: Stream,
    pub(super) answer: Answer,
    /// Its head for the client.
    pub(super) head: Vec<u8>,
    /// With its head at the beginning.
    pub(super) read: Buffer,
}

/// Sends `request` to `upstream`, by `fresh` where that is given, and waits for the head of its answer. A request that is not
/// kept is given up when it is sent.
pub(super) async fn attempt(
    worker: &Rc<Worker>,
    upstream: Rc<Upstream>,
    fresh: Option<Stream>,
    request: &mut Vec<u8>,
    is_kept: bool,
    ask: &Ask,
    client: &mut Client<'_>,
) -> Result<Answered, Lost> {
    let shares = fresh.is_none() && upstream.shares(worker.config().share_from, ask.body);
    // Also while its connection is opened: others see that they are many.
    let upstream = InFlight::on(upstream);
    let (mut stream, reused) = match fresh {
        Some(stream) => (stream, false),
        None => match idle(worker, &upstream.0, shares) {
            Some(stream) => (stream, true),
            None => match Box::pin(open(worker, &upstream.0, shares)).await {
                Ok(stream) => (stream, false),
                Err(error) => return Err(Lost::unsent(error)),
            },
        },
    };
    let begun = Instant::now();
    let mut parts = [&request[..], b"", b"", b""];
    // A server that takes nothing does not keep what its client has given up.
    let written = poll_fn(|cx| match poll_write_all(&mut stream, cx, &mut parts) {
        Poll::Ready(written) => Poll::Ready(Some(written)),
        Poll::Pending => client.poll_gone(cx).map(|()| None),
    });
    if let Err(error) = written.await.ok_or(Lost::Client)? {
        return Err(Lost::broken(&upstream.0, &error, false, reused));
    }
    if !is_kept {
        // An answer may take long.
        *request = Vec::new();
    }
    let asked = Asked { method: &ask.method, closes: ask.closes, from_mesh: upstream.0.is_mesh() };
    let (mut kept, mut interim, mut head) = (None, 0, Vec::with_capacity(HEAD));
    // Of an unfinished head, so much was looked at.
    let mut looked = 0;
    loop {
        let heard = interim > 0 || kept.is_some();
        // A head has the room it needs.
        let most = if kept.is_some() { usize::MAX } else { client.pace.bytes() };
        let read = buffer::read(&mut stream, kept, most, |cx| client.poll_gone(cx)).await.ok_or(Lost::Client)?;
        let mut read = match read {
            Ok((1.., read)) => read,
            Ok(_) => {
                let end = if heard { End::Broken } else { End::Closed };
                let detail = "the connection ended before its answer was there";
                return Err(Lost::sent(&upstream.0, Outcome::UpstreamReset, &detail, end, reused));
            }
            Err(error) => return Err(Lost::broken(&upstream.0, &error, heard, reused)),
        };
        while answer::may_be_whole(read.filled(), looked) {
            match answer::read(read.filled(), asked, &mut head) {
                Ok(answer::Read::Whole(answer)) => {
                    let now = Instant::now();
                    upstream.0.load.observe(now - begun, now);
                    return Ok(Answered { upstream, stream, answer, head, read });
                }
                Ok(answer::Read::Interim(len)) => {
                    interim += 1;
                    if interim > MAX_INTERIM {
                        let (bad, detail) = (Outcome::UpstreamProtocolError, "interim answers (1xx) without end");
                        return Err(Lost::sent(&upstream.0, bad, &detail, End::Broken, reused));
                    }
                    read.drop_front(len);
                    looked = 0;
                }
                Ok(answer::Read::Partial) => break,
                Err(bad) => {
                    let outcome = Outcome::UpstreamProtocolError;
                    return Err(Lost::sent(&upstream.0, outcome, &bad, End::Broken, reused));
                }
            }
        }
        looked = read.filled().len();
        kept = Some(read).filter(|read| !read.filled().is_empty());
    }
}

/// Room for the head of most answers.
const HEAD: usize = 512;

/// A connection that is open already, the one used last, or a channel of one.
fn idle(worker: &Worker, upstream: &Upstream, shares: bool) -> Option<Stream> {
    // An application that is about to end may close a kept connection just now; one that has ended refuses a new one, which
    // says that it has not seen the request.
    let ends = upstream.reach == Reach::App && worker.shared.drain.is_draining();
    match () {
        () if ends => None,
        () if shares => upstream.take_channel(Carries::Http1).map(|channel| Io::Channel(channel).into()),
        () => upstream.take_idle(),
    }
}

async fn open(worker: &Rc<Worker>, upstream: &Rc<Upstream>, shares: bool) -> Result<Stream, ProxyError> {
    if shares && let Some(channel) = pool::open_channel(worker, upstream, Carries::Http1).await? {
        return Ok(Io::Channel(channel).into());
    }
    // It may have been opened for a channel, of which the peer knows nothing.
    match upstream.take_idle() {
        Some(stream) => Ok(stream),
        None => pool::open(worker, upstream, Alpn::Http1).await,
    }
}
