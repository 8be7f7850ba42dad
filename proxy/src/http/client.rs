//! Sends a request to one upstream over a pooled connection, and says what may be done about a failure.

use std::{cell::Cell, future::Future, io, rc::Rc};

use futures_util::future::Either;
use http::{HeaderValue, Request, Response, header::CONNECTION};
use mesh_proto::outcome::Outcome;
use tokio::sync::oneshot;

use super::{
    Version,
    body::{Incoming, RequestBody, ResponseBody},
    call::{self, Failure},
    expect::{self, Expectation},
    headers,
    retry::{Again, End, First, after},
};
use crate::{
    error::{ProxyError, is_handshake_refused},
    mux::{Carries, Channel},
    pool::{self, Fate, H1Connection, H2Connection, Reach, Upstream},
    stream::{Heard, Stream},
    tls::Alpn,
    worker::Worker,
};

/// A request that got no answer.
pub(crate) struct Unanswered {
    /// Why.
    pub(crate) error: ProxyError,
    /// The request itself, where nothing of it was sent: it can go elsewhere, with its body.
    pub(crate) request: Option<Request<RequestBody>>,
    /// What is known of what the server did, where something of it may have been sent.
    again: Again,
}

impl Unanswered {
    fn unsent(error: ProxyError, request: Request<RequestBody>) -> Box<Self> {
        Box::new(Self { error, request: Some(request), again: Again::Safe })
    }

    fn sent(
        upstream: &Upstream,
        error: &hyper::Error,
        end: End,
        reused: bool,
        request: Option<Request<RequestBody>>,
    ) -> Box<Self> {
        let again = after(end, reused);
        // Only of a handshake that was refused is it true that the application has seen nothing.
        let refused = again == Again::Elsewhere;
        let error = ProxyError { reset: reset_code(error), ..upstream_error(upstream, error, refused) };
        Box::new(Self { error, request, again })
    }

    fn failed(upstream: &Upstream, failure: &Failure, reused: bool) -> Box<Self> {
        let (end, outcome, reset) = match failure {
            Failure::Closed(_) => (End::Closed, Outcome::UpstreamReset, None),
            Failure::Reset(code) if h2::Reason::from(*code) == h2::Reason::REFUSED_STREAM => {
                (End::NotProcessed, Outcome::UpstreamReset, Some(h2::Reason::REFUSED_STREAM))
            }
            Failure::Reset(code) => (End::Broken, Outcome::UpstreamReset, Some((*code).into())),
            Failure::Bad(_) => (End::Broken, Outcome::UpstreamProtocolError, None),
            Failure::Body => (End::Broken, Outcome::BadRequest, None),
        };
        let error = ProxyError { reset, ..ProxyError::new(outcome, format!("{}: {failure}", upstream.address())) };
        Box::new(Self { error, request: None, again: after(end, reused) })
    }

    fn only_interim(upstream: &Upstream) -> Box<Self> {
        let detail = format!("{}: interim answers (1xx) without end", upstream.address());
        let error = ProxyError::new(Outcome::UpstreamProtocolError, detail);
        Box::new(Self { error, request: None, again: after(End::Broken, false) })
    }

    /// For the decision about a second attempt.
    pub(crate) fn first(&self) -> First {
        match self.request {
            Some(_) => First::Unsent { may_pass: self.error.may_pass() },
            None => First::Unanswered(self.again),
        }
    }
}

/// Holds the place of a request on its upstream while the answer is read.
pub(crate) struct Lease {
    upstream: Rc<Upstream>,
    by: By,
    /// Of a body that may never be sent.
    expectation: Option<Expectation>,
    /// Whether the request's body was sent whole; None: there is none.
    sent: Option<Rc<Cell<bool>>>,
    /// The server closes the connection after its answer.
    closes: bool,
    /// The server speaks HTTP/1.0. To hyper the whole connection then does, and it would send a chunked body as none.
    is_http10: bool,
}

enum By {
    Http1(Option<H1Connection>),
    Http2(Rc<H2Connection>),
    Call,
}

impl Lease {
    fn begin(upstream: &Rc<Upstream>, by: By) -> Self {
        upstream.load.begin();
        if let By::Http2(connection) = &by {
            connection.streams.set(connection.streams.get() + 1);
        }
        Self { upstream: Rc::clone(upstream), by, expectation: None, sent: None, closes: false, is_http10: false }
    }

    /// The server's answer, as the body of which this lives on.
    pub(crate) fn answer(self, mut response: Response<Incoming>) -> Response<ResponseBody> {
        // The client must not send it after all, on a connection that would go on (RFC 9110 §10.1.1); and what is left of one
        // that the server reads no more is for nobody (RFC 9112 §9.6).
        if self.is_body_unwanted() || self.is_body_cut() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| ResponseBody::incoming(body, self))
    }

    fn is_body_unwanted(&self) -> bool {
        self.expectation.as_ref().is_some_and(Expectation::is_unwanted)
    }

    /// Whether the server ends the connection before the body was sent whole.
    fn is_body_cut(&self) -> bool {
        self.closes && !self.is_body_sent()
    }

    fn is_body_sent(&self) -> bool {
        self.sent.as_ref().is_none_or(|whole| whole.get())
    }

    /// The answer was read to its end: an HTTP/1 connection may carry the next one. Without this it is closed.
    pub(crate) fn give_back(mut self) {
        if !self.is_body_unwanted() && !self.is_http10 && !self.closes && self.is_body_sent() {
            self.decide(Fate::Stays);
        }
    }

    /// The server has agreed to leave HTTP: its connection, when hyper has let go of it.
    pub(crate) fn leave(mut self) -> oneshot::Receiver<Stream> {
        let (to, connection) = oneshot::channel();
        self.decide(Fate::Leaves(to));
        connection
    }

    fn decide(&mut self, fate: Fate) {
        if let By::Http1(connection) = &mut self.by
            && let Some(connection) = connection.take()
        {
            // In vain where it has broken.
            let _ = connection.fate.send(fate);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.upstream.load.end();
        if let Some(expectation) = &self.expectation {
            expectation.over();
        }
        if let By::Http2(connection) = &self.by {
            connection.streams.set(connection.streams.get().saturating_sub(1));
        }
    }
}

/// Sends `request`. `fresh` is a connection that is already open and is to be used for it.
pub(crate) fn send<'a>(
    worker: &'a Rc<Worker>,
    upstream: &'a Rc<Upstream>,
    version: Version,
    request: Request<RequestBody>,
    fresh: Option<Stream>,
) -> impl Future<Output = Result<(Response<Incoming>, Lease), Box<Unanswered>>> + use<'a> {
    match version {
        Version::Http1 => Either::Left(send_http1(worker, upstream, request, fresh)),
        Version::Http2 => Either::Right(send_http2(worker, upstream, request, fresh)),
    }
}

async fn send_http1(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    mut request: Request<RequestBody>,
    mut fresh: Option<Stream>,
) -> Result<(Response<Incoming>, Lease), Box<Unanswered>> {
    let expectation = expect::hold_back(&mut request);
    let sent = request.body_mut().whole();
    loop {
        // An application that is about to end may close a kept connection just now; one that has ended refuses a new one, which
        // says that it has not seen the request.
        let ends = upstream.reach == Reach::App && worker.shared.drain.is_draining();
        let idle = if fresh.is_some() || ends { None } else { upstream.take_idle() };
        let reused = idle.is_some();
        let opened = match idle.or(fresh.take()) {
            Some(stream) => Ok(stream),
            None => Box::pin(pool::open(worker, upstream, Alpn::Http1)).await,
        };
        let connection = match opened {
            Ok(stream) => pool::handshake_http1(worker, upstream, stream).await,
            Err(error) => Err(error),
        };
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(error) => return Err(Unanswered::unsent(error, request)),
        };
        let heard = connection.heard.clone();
        listen_for_interim(&mut request, heard.clone(), expectation.clone());
        let begun = tokio::time::Instant::now();
        let answer = connection.sender.try_send_request(request);
        let mut lease = Lease::begin(upstream, By::Http1(Some(connection)));
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = heard.only_interim() => return Err(Unanswered::only_interim(upstream)),
        };
        match answer {
            Ok(response) => {
                let now = tokio::time::Instant::now();
                upstream.load.observe(now - begun, now);
                lease.is_http10 = response.version() == http::Version::HTTP_10;
                lease.closes = lease.is_http10 || headers::closes(response.headers());
                lease.sent = sent;
                lease.expectation = expectation.inspect(Expectation::answered);
                return Ok((response.map(Incoming::from), lease));
            }
            Err(mut failed) => match failed.take_message() {
                // A pooled connection that had closed meanwhile: take the next one. Each turn uses one up, so this ends.
                Some(unsent) if reused => request = unsent,
                unsent => {
                    let error = failed.into_error();
                    let end = match () {
                        () if is_handshake_refused(&error) => End::HandshakeRefused,
                        () if is_closed(&error) && !heard.anything() => End::Closed,
                        () => End::Broken,
                    };
                    return Err(Unanswered::sent(upstream, &error, end, reused, unsent));
                }
            },
        }
    }
}

/// Answers of 1xx go no further (hyper sends none): one asks for the body, and no server sends them for ever.
fn listen_for_interim(request: &mut Request<RequestBody>, heard: Heard, expectation: Option<Expectation>) {
    hyper::ext::on_informational(request, move |answer| {
        heard.interim();
        if let Some(expectation) = &expectation
            && answer.status() == http::StatusCode::CONTINUE
        {
            expectation.asked();
        }
    });
}

async fn send_http2(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    mut request: Request<RequestBody>,
    mut fresh: Option<Stream>,
) -> Result<(Response<Incoming>, Lease), Box<Unanswered>> {
    if fresh.is_none() && upstream.shares_calls() {
        let open = match upstream.take_channel(Carries::Calls) {
            Some(channel) => Ok(Some((channel, true))),
            None => Box::pin(pool::open_channel(worker, upstream, Carries::Calls))
                .await
                .map(|opened| Some((opened?, false))),
        };
        match open {
            Ok(Some((channel, reused))) => return send_call(worker, upstream, channel, request, reused).await,
            Ok(None) => {}
            Err(error) => return Err(Unanswered::unsent(error, request)),
        }
    }
    // The second turn is for a connection that closed between the look at the pool and the sending.
    for last in [false, true] {
        let connection = match fresh.take() {
            Some(stream) => Box::pin(pool::handshake_http2(worker, upstream, stream)).await,
            None => pool::http2(worker, upstream).await,
        };
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => return Err(Unanswered::unsent(error, request)),
        };
        let reused = connection.answered.get();
        let mut sender = connection.sender.clone();
        let begun = tokio::time::Instant::now();
        let lease = Lease::begin(upstream, By::Http2(Rc::clone(&connection)));
        match sender.try_send_request(request).await {
            Ok(response) => {
                let now = tokio::time::Instant::now();
                upstream.load.observe(now - begun, now);
                connection.answered.set(true);
                return Ok((response.map(Incoming::from), lease));
            }
            Err(mut failed) => match failed.take_message() {
                Some(unsent) if !last => request = unsent,
                unsent => {
                    let error = failed.into_error();
                    return Err(Unanswered::sent(upstream, &error, end_of_stream(&error), reused, unsent));
                }
            },
        }
    }
    let error =
        ProxyError::new(Outcome::UpstreamReset, format!("{}: connections close as soon as opened", upstream.address()));
    Err(Unanswered::unsent(error, request))
}

async fn send_call(
    worker: &Worker,
    upstream: &Rc<Upstream>,
    channel: Channel,
    request: Request<RequestBody>,
    reused: bool,
) -> Result<(Response<Incoming>, Lease), Box<Unanswered>> {
    let begun = tokio::time::Instant::now();
    let lease = Lease::begin(upstream, By::Call);
    match call::ask(worker, upstream, channel, request).await {
        Ok(response) => {
            let now = tokio::time::Instant::now();
            upstream.load.observe(now - begun, now);
            Ok((response.map(Incoming::from), lease))
        }
        Err(failure) => Err(Unanswered::failed(upstream, &failure, reused)),
    }
}

fn is_closed(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_closed() || error.is_canceled() || is_reset(error)
}

fn is_reset(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    io.is_some_and(|io| matches!(io.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

/// How a stream of HTTP/2 ended without an answer.
fn end_of_stream(error: &hyper::Error) -> End {
    let Some(h2) = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>()) else {
        return if is_closed(error) { End::Closed } else { End::Broken };
    };
    match () {
        // h2 gives a peer's GOAWAY as the error of those streams only that are past the last one it processed.
        () if h2.is_remote() && (h2.is_go_away() || h2.reason() == Some(h2::Reason::REFUSED_STREAM)) => {
            End::NotProcessed
        }
        () if h2.is_io() => End::Closed,
        () => End::Broken,
    }
}

/// The code with which the server ended a stream of HTTP/2. One that it did not process, by its GOAWAY, is refused.
fn reset_code(error: &hyper::Error) -> Option<h2::Reason> {
    let h2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>())?;
    match () {
        () if h2.is_remote() && h2.is_go_away() => Some(h2::Reason::REFUSED_STREAM),
        () if h2.is_remote() => h2.reason(),
        () => None,
    }
}

/// Whether the server broke the rules of HTTP/2, and we ended the stream or the connection for it.
fn is_bad_http2(error: &hyper::Error) -> bool {
    let h2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    // The latter is what `control_frames` says.
    h2.is_some_and(|h2| h2.is_library() || h2.get_io().is_some_and(|io| io.kind() == io::ErrorKind::InvalidData))
}

/// What a failure of hyper means for the client.
fn upstream_error(upstream: &Upstream, error: &hyper::Error, handshake_refused: bool) -> ProxyError {
    let outcome = if error.is_parse() || is_bad_http2(error) {
        Outcome::UpstreamProtocolError
    } else if handshake_refused {
        Outcome::TlsFailed
    } else if error.is_user() {
        // The only part of the client call that a client supplies is its body, which broke.
        Outcome::BadRequest
    } else {
        Outcome::UpstreamReset
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    ProxyError::new(outcome, format!("{}: {error}{cause}", upstream.address()))
}
