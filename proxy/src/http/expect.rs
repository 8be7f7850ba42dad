//! `Expect: 100-continue` through a proxy (RFC 9110 §10.1.1): the client is asked for the body when the server asks for it, and
//! not before. A server that answers instead never gets the body.
//!
//! hyper asks its client for a body at the first look at it, so that the body is not looked at until then. Made by `client`
//! for a request that expects; held by the request's body and by the lease of its connection.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use http::{Request, header::EXPECT};
use tokio::time::Sleep;

use super::body::RequestBody;

/// A server that does not know the expectation waits for the body; a client does not wait for ever (curl: 1 s).
const PATIENCE: Duration = Duration::from_secs(1);

/// Nobody knows yet whether the body is wanted.
const WAITING: u8 = 0;
/// It is.
const WANTED: u8 = 1;
/// The server has answered without it.
const ANSWERED: u8 = 2;
/// And that answer is over.
const OVER: u8 = 3;

/// Whether the server wants the body. Atomic only because hyper wants a `Send` callback.
#[derive(Clone, Default)]
pub(crate) struct Expectation(Arc<State>);

#[derive(Default)]
struct State {
    now: AtomicU8,
    waker: AtomicWaker,
}

/// The body of a request that expects.
pub(super) struct Waiting {
    expectation: Expectation,
    patience: Pin<Box<Sleep>>,
}

/// The body was not wanted.
#[derive(Debug, thiserror::Error)]
#[error("the server answered without the body")]
pub(super) struct Unwanted;

/// Holds the body of `request` back, if the client waits to be asked for it.
pub(crate) fn hold_back(request: &mut Request<RequestBody>) -> Option<Expectation> {
    let expects =
        request.headers().get(EXPECT).is_some_and(|what| what.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !expects || http_body::Body::is_end_stream(request.body()) {
        return None;
    }
    let expectation = Expectation::default();
    let body = expectation.clone();
    request.body_mut().wait(Waiting { expectation: body, patience: Box::pin(tokio::time::sleep(PATIENCE)) });
    Some(expectation)
}

impl Expectation {
    /// The server asks for the body.
    pub(crate) fn asked(&self) {
        self.advance(WAITING, WANTED);
    }

    /// The server has answered.
    pub(crate) fn answered(&self) {
        self.advance(WAITING, ANSWERED);
    }

    /// Whether the body will never be sent, so that the connection it was to be sent on is of no more use.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.0.now.load(Ordering::Relaxed) >= ANSWERED
    }

    /// The exchange is over, and so is the connection if the body was not sent.
    pub(crate) fn over(&self) {
        self.advance(WAITING, OVER);
        self.advance(ANSWERED, OVER);
    }

    fn advance(&self, from: u8, to: u8) {
        if self.0.now.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.0.waker.wake();
        }
    }
}

impl Waiting {
    /// Ready when the body may be sent, or never will be.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unwanted>> {
        let state = &self.expectation.0;
        state.waker.register(cx.waker());
        if self.patience.as_mut().poll(cx).is_ready() {
            self.expectation.advance(WAITING, WANTED);
        }
        match state.now.load(Ordering::Relaxed) {
            WANTED => Poll::Ready(Ok(())),
            OVER => Poll::Ready(Err(Unwanted)),
            _ => Poll::Pending,
        }
    }
}
