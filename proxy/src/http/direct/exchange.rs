//! One request and its answer, on their way.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use mesh_proto::outcome::Outcome;
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    time::Instant,
};

use super::{
    Desk,
    answer::{self, Answer, Asked},
    ask::{self, Ask},
    body::LAST_CHUNK,
    buffer::{Buffer, Pace, write_all},
};
use crate::{
    error::{ProxyError, is_handshake_refused},
    http::{
        body::ResponseBody,
        ending::Watched,
        headers,
        respond::{self, Asker},
        retry::{self, End, First, after},
    },
    pool::{self, Reach, Upstream},
    record::Record,
    stream::{MAX_INTERIM, Stream},
    tls::Alpn,
    trace,
    worker::Worker,
};

/// Carries the request that was read into `read`, of which `head` is to be sent on. Whether the connection goes on.
pub(super) async fn exchange<D: Desk>(
    desk: &D,
    stream: &mut Watched<Stream>,
    pace: &mut Pace,
    ask: Ask,
    read: Buffer,
    mut head: Vec<u8>,
) -> bool {
    let worker = desk.worker();
    let mut plan = desk.plan();
    let whole = |bytes: &[u8]| ask::request(&bytes[..ask.head]);
    let (mut record, traced) = Record::head(worker, desk.side(), desk.edge(&plan), || whole(read.filled()));
    if let Some(request) = traced {
        trace::write(request.headers(), |name, value| ask::put(&mut head, name, value));
    }
    head.extend_from_slice(b"\r\n");
    if ask.body > 0 {
        head.extend_from_slice(&read.filled()[ask.head..]);
        record.body_meter().add(ask.body as u64);
    }
    let chosen = desk.first(&mut plan, &|| whole(read.filled()), &mut record);
    drop(read);
    let mut client = Client { stream, heard: Heard::Nothing, pace };
    let sent = match chosen {
        Ok((upstream, fresh)) => {
            let first = attempt(worker, upstream, fresh, &mut head, &ask, &mut client).await;
            match second(desk, &mut plan, &ask, first, &mut record) {
                Ok(Again::No(answered)) => Ok(answered),
                Ok(Again::At(upstream)) => {
                    let again = attempt(worker, upstream, None, &mut head, &ask, &mut client).await;
                    again.map_err(Lost::into_error)
                }
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(Some(error)),
    };
    drop(head);
    match sent {
        Ok(answered) => answered.carry(&mut client, record, &ask).await,
        Err(Some(error)) => refuse(client.stream, record, &error, &ask).await,
        Err(None) => {
            record.cut_off();
            false
        }
    }
}

/// The client, while it is not its turn.
struct Client<'a> {
    stream: &'a mut Watched<Stream>,
    heard: Heard,
    /// In which it takes answers.
    pace: &'a mut Pace,
}

#[derive(PartialEq, Eq)]
enum Heard {
    Nothing,
    /// Its end, or bytes that were put back.
    Something,
}

impl Client<'_> {
    /// Ready when the client is gone, so that nobody needs the answer. One that has only ended its side waits for it.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.heard == Heard::Something {
            return Poll::Pending;
        }
        let mut some = [0; 256];
        let mut some = ReadBuf::new(&mut some);
        match ready!(Pin::new(&mut *self.stream).poll_read(cx, &mut some)) {
            Err(_) => return Poll::Ready(()),
            Ok(()) if some.filled().is_empty() => {}
            Ok(()) => self.stream.put_back(Bytes::copy_from_slice(some.filled())),
        }
        self.heard = Heard::Something;
        Poll::Pending
    }
}

/// Why an attempt has no answer.
enum Lost {
    /// The client is gone.
    Client,
    Upstream {
        error: ProxyError,
        first: First,
    },
}

impl Lost {
    fn into_error(self) -> Option<ProxyError> {
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
struct InFlight(Rc<Upstream>);

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
struct Answered {
    upstream: InFlight,
    stream: Stream,
    answer: Answer,
    /// Its head for the client.
    head: Vec<u8>,
    /// With its head at the beginning.
    read: Buffer,
}

async fn attempt(
    worker: &Rc<Worker>,
    upstream: Rc<Upstream>,
    fresh: Option<Stream>,
    request: &mut Vec<u8>,
    ask: &Ask,
    client: &mut Client<'_>,
) -> Result<Answered, Lost> {
    let (mut stream, reused) = match fresh {
        Some(stream) => (stream, false),
        None => match idle(worker, &upstream) {
            Some(stream) => (stream, true),
            None => match Box::pin(pool::open(worker, &upstream, Alpn::Http1)).await {
                Ok(stream) => (stream, false),
                Err(error) => return Err(Lost::unsent(error)),
            },
        },
    };
    let begun = Instant::now();
    let upstream = InFlight::on(upstream);
    if let Err(error) = write_all(&mut stream, [request, b"", b"", b""]).await {
        return Err(Lost::broken(&upstream.0, &error, false, reused));
    }
    if ask.body > 0 {
        // It is not sent again, and an answer may take long.
        *request = Vec::new();
    }
    let asked = Asked { method: &ask.method, closes: ask.closes, from_mesh: upstream.0.is_mesh() };
    let (mut kept, mut interim, mut head) = (None, 0, Vec::with_capacity(HEAD));
    loop {
        let heard = interim > 0 || kept.is_some();
        let read = poll_fn(|cx| {
            let mut buffer: Buffer = kept.take().unwrap_or_else(Buffer::take);
            // A head has the room it needs.
            let most = if buffer.filled().is_empty() { client.pace.bytes() } else { usize::MAX };
            match buffer.poll_read(&mut stream, cx, most) {
                Poll::Ready(result) => Poll::Ready(Some((result, buffer))),
                Poll::Pending => {
                    kept = (!buffer.filled().is_empty()).then_some(buffer);
                    client.poll_gone(cx).map(|()| None)
                }
            }
        });
        let (result, mut read) = read.await.ok_or(Lost::Client)?;
        match result {
            Ok(1..) => {}
            Ok(_) => {
                let end = if heard { End::Broken } else { End::Closed };
                let detail = "the connection ended before its answer was there";
                return Err(Lost::sent(&upstream.0, Outcome::UpstreamReset, &detail, end, reused));
            }
            Err(error) => return Err(Lost::broken(&upstream.0, &error, heard, reused)),
        }
        loop {
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
                }
                Ok(answer::Read::Partial) => break,
                Err(bad) => {
                    let outcome = Outcome::UpstreamProtocolError;
                    return Err(Lost::sent(&upstream.0, outcome, &bad, End::Broken, reused));
                }
            }
        }
        kept = Some(read);
    }
}

/// Room for the head of most answers.
const HEAD: usize = 512;

/// An idle connection, the one used last.
fn idle(worker: &Worker, upstream: &Upstream) -> Option<Stream> {
    // An application that is about to end may close a kept connection just now; one that has ended refuses a new one, which
    // says that it has not seen the request.
    let ends = upstream.reach == Reach::App && worker.shared.drain.is_draining();
    if ends { None } else { upstream.take_idle() }
}

/// What comes of a first attempt.
enum Again {
    No(Answered),
    At(Rc<Upstream>),
}

/// Whether it stands, or the request is sent once more (contracts §4): see [`retry`]. None of an error: the client is gone.
fn second<D: Desk>(
    desk: &D,
    plan: &mut D::Plan,
    ask: &Ask,
    first: Result<Answered, Lost>,
    record: &mut Record,
) -> Result<Again, Option<ProxyError>> {
    let kind = retry::Request { repeatable: ask.body == 0, idempotent: headers::is_idempotent(&ask.method) };
    match first {
        Ok(answered) => {
            // Only a proxy of ours can know that the application has not seen the request.
            if answered.answer.said.is_some_and(|code| code.facts().retry_safe) {
                // Refusing is quick; it must not look like the quickest endpoint.
                answered.upstream.0.failed(desk.worker().config().connect_timeout);
                if let Some(upstream) = desk.second(plan, First::Unseen, kind, record)? {
                    return Ok(Again::At(upstream));
                }
            }
            Ok(Again::No(answered))
        }
        Err(Lost::Client) => Err(None),
        Err(Lost::Upstream { error, first }) => {
            desk.second(plan, first, kind, record)?.map(Again::At).ok_or(Some(error))
        }
    }
}

impl Answered {
    /// Passes it on to the client. Whether the client's connection goes on.
    async fn carry(self, client: &mut Client<'_>, mut record: Record, ask: &Ask) -> bool {
        let Self {
            upstream,
            mut stream,
            answer: Answer { len, status, mut body, reusable, said, grpc },
            head,
            mut read,
        } = self;
        if let Some(outcome) = said {
            let detail = format!("{}: said by the peer's proxy", upstream.0.address());
            record.failed(&ProxyError::new(outcome, detail));
        }
        let headers = if grpc || record.is_watched() { answer::headers(read.filled()) } else { HeaderMap::new() };
        record.answered(status, &headers);
        // Until it is whole.
        record.cut_off();
        let (mut head, mut from) = (&head[..], len);
        loop {
            let Some(piece) = body.take(&read.filled()[from..]) else {
                record.broke("a chunk of the answer is malformed");
                return false;
            };
            let parts = [head, piece.begin.as_bytes(), piece.bytes, piece.end];
            match write_all(client.stream, parts).await {
                Ok(at_once) => client.pace.went(at_once),
                Err(_) => return false,
            }
            record.sent(piece.content);
            if body.is_over() {
                // More than the answer is nothing that could be told from the next one.
                if reusable && from + piece.used == read.filled().len() {
                    upstream.0.put_idle(stream);
                } else {
                    stream.say_end();
                }
                break;
            }
            (head, from) = (b"", 0);
            drop(read);
            let next = poll_fn(|cx| {
                let mut buffer = Buffer::take();
                match buffer.poll_read(&mut stream, cx, client.pace.bytes()) {
                    Poll::Ready(result) => Poll::Ready(Some((result, buffer))),
                    Poll::Pending => client.poll_gone(cx).map(|()| None),
                }
            });
            match next.await {
                None => return false,
                Some((Ok(1..), more)) => read = more,
                Some((Ok(_), _)) if body.ends_here() => {
                    if write_all(client.stream, [LAST_CHUNK, b"", b"", b""]).await.is_err() {
                        return false;
                    }
                    break;
                }
                Some((Ok(_), _)) => {
                    record.broke("the answer ended before its end");
                    return false;
                }
                Some((Err(error), _)) => {
                    record.broke(error);
                    return false;
                }
            }
        }
        record.is_whole();
        goes_on(client.stream, ask)
    }
}

/// Answers in the server's place. Whether the client's connection goes on.
async fn refuse(client: &mut Watched<Stream>, mut record: Record, error: &ProxyError, ask: &Ask) -> bool {
    record.failed(error);
    // The body was read: the next request may come.
    let response = respond::failed(error, Asker::free(ask.grpc));
    record.answered(response.status(), response.headers());
    let (head, text) = written(response, ask);
    record.cut_off();
    if write_all(client, [&head, &text, b"", b""]).await.is_err() {
        return false;
    }
    record.sent(text.len() as u64);
    record.is_whole();
    goes_on(client, ask)
}

fn goes_on(client: &mut Watched<Stream>, ask: &Ask) -> bool {
    if ask.closes {
        client.say_end();
    }
    !ask.closes
}

/// An answer of ours as bytes: head and text.
fn written(response: Response<ResponseBody>, ask: &Ask) -> (Vec<u8>, Bytes) {
    let (parts, body) = response.into_parts();
    let text = body.into_text();
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(format!("content-length: {}\r\n", text.len()).as_bytes());
    if ask.closes {
        head.extend_from_slice(b"connection: close\r\n");
    }
    head.extend_from_slice(b"\r\n");
    (head, if ask.method == http::Method::HEAD { Bytes::new() } else { text })
}
