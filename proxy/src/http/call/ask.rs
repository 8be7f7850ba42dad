//! Sends a request as a call and waits for the head of its answer.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Poll, Waker},
};

use http::{Request, Response};

use super::{
    incoming::{Home, Incoming},
    line::{Line, Message},
    message::{self, Bad},
    sending::Sending,
};
use crate::{
    http::body::{BodyError, RequestBody},
    mux::Channel,
    pool::Upstream,
    worker::Worker,
};

/// Why a call has no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Its connection has ended.
    #[error("{0}")]
    Closed(io::Error),
    /// The peer has given it up, with a code of HTTP/2.
    #[error("given up with {}", h2::Reason::from(*.0).description())]
    Reset(u32),
    /// What came is none, or what was to be sent cannot be.
    #[error("{0}")]
    Bad(Bad),
    /// The request's body broke.
    #[error("the body of the request broke")]
    Body,
}

impl Failure {
    /// As hyper says it, so that the code gets to whoever the body is for.
    pub(super) fn into_body_error(self) -> BodyError {
        match self {
            Self::Reset(code) => h2::Error::from(h2::Reason::from(code)).into(),
            other => other.into(),
        }
    }
}

/// Sends `request` to `upstream` on `channel`.
pub(crate) async fn ask(
    worker: &Worker,
    upstream: &Rc<Upstream>,
    channel: Channel,
    request: Request<RequestBody>,
) -> Result<Response<Incoming>, Failure> {
    let mut head = Vec::with_capacity(HEAD);
    message::put_request(&mut head, &request).map_err(Failure::Bad)?;
    let call = Rc::new(Call::new(channel));
    let mut wanted = Wanted(Some(Rc::clone(&call)));
    let mut sending = Sending::new(Rc::clone(&call.channel), head, request.into_body());
    // Most requests are there with all their body, and need no task.
    match poll_fn(|cx| Poll::Ready(sending.poll(cx))).await {
        Poll::Ready(result) => {
            result?;
            call.sent.set(true);
            drop(sending);
        }
        Poll::Pending => {
            call.is_sending.set(true);
            worker.tasks.spawn_local("call body", send(Rc::clone(&call), sending));
        }
    }
    let mut line = Line::new(Rc::clone(&call.channel));
    match poll_fn(|cx| line.poll_next(cx)).await? {
        Some(Message::Response(response)) => {
            wanted.0 = None;
            let home = Home::Upstream(Rc::clone(upstream), call);
            Ok(response.map(|()| Incoming::new(line, home)))
        }
        Some(_) => Err(Failure::Bad("no head of an answer")),
        None => Err(Failure::Closed(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Sends what is left of a request, until nobody wants it any more.
async fn send(call: Rc<Call>, mut sending: Sending<RequestBody>) {
    let sent = poll_fn(|cx| {
        call.sender.replace(Some(cx.waker().clone()));
        match sending.poll(cx) {
            // A client that has left with a code is heard with it: its body broke. Else this is how it is heard.
            Poll::Pending if call.is_unwanted.get() => {
                call.channel.give_up(CANCEL);
                Poll::Ready(Err(Failure::Reset(CANCEL)))
            }
            polled => polled,
        }
    });
    match sent.await {
        Ok(()) => call.sent.set(true),
        // Whoever reads the answer hears of it.
        Err(failure) => tracing::debug!(%failure, "a request's body was not sent to its end"),
    }
    call.is_sending.set(false);
}

const CANCEL: u32 = 8;

/// What sender and reader of a call have in common.
pub(super) struct Call {
    channel: Rc<Channel>,
    /// All of the request was.
    sent: Cell<bool>,
    /// A task sends its body.
    is_sending: Cell<bool>,
    sender: Cell<Option<Waker>>,
    is_unwanted: Cell<bool>,
}

impl Call {
    fn new(channel: Channel) -> Self {
        Self {
            channel: Rc::new(channel),
            sent: Cell::default(),
            is_sending: Cell::default(),
            sender: Cell::default(),
            is_unwanted: Cell::default(),
        }
    }

    /// Nobody wants the rest of the answer.
    pub(super) fn give_up(&self) {
        if self.is_sending.get() {
            self.is_unwanted.set(true);
            self.sender.take().into_iter().for_each(Waker::wake);
        } else {
            self.channel.give_up(CANCEL);
        }
    }

    /// The answer is there to its end. The channel, where it can carry the next call.
    pub(super) fn over(self: Rc<Self>) -> Option<Channel> {
        if !self.sent.get() {
            self.give_up();
            return None;
        }
        Rc::try_unwrap(Rc::into_inner(self)?.channel).ok()
    }
}

/// Room for most heads.
const HEAD: usize = 1024;

/// A call that is given up when whoever waits for the answer is gone.
struct Wanted(Option<Rc<Call>>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|call| call.give_up());
    }
}
