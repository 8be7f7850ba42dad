//! The body of a call as it is read.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::oneshot;

use super::{
    Failure,
    ask::Call,
    line::{Line, Message},
};
use crate::{http::body::BodyError, pool::Upstream};

/// A request's or an answer's.
pub(crate) struct Incoming {
    /// None after the end.
    line: Option<Line>,
    home: Home,
}

/// Where its line goes when it has ended.
pub(super) enum Home {
    /// To the one who serves the next call on it. Dropped: it has broken.
    Server(oneshot::Sender<Back>),
    /// To the upstream, where all of the request was sent. Dropped before, nobody wants the call any more.
    Upstream(Rc<Upstream>, Rc<Call>),
    /// It has ended.
    Nowhere,
}

/// A line that has come home.
pub(super) struct Back {
    pub(super) line: Line,
    /// The body was read to its end; else its reader has left.
    pub(super) is_whole: bool,
}

impl Incoming {
    pub(super) fn new(mut line: Line, home: Home) -> Self {
        let ended = line.has_ended();
        let mut body = Self { line: Some(line), home };
        if ended {
            body.end();
        }
        body
    }

    fn end(&mut self) {
        let Some(line) = self.line.take() else { return };
        match std::mem::replace(&mut self.home, Home::Nowhere) {
            Home::Server(home) => drop(home.send(Back { line, is_whole: true })),
            Home::Upstream(upstream, call) => {
                let is_between = line.is_between();
                drop(line);
                if let Some(channel) = call.over().filter(|_| is_between) {
                    upstream.put_channel(channel);
                }
            }
            Home::Nowhere => {}
        }
    }

    fn give_up(&mut self) {
        let Some(line) = self.line.take() else { return };
        match std::mem::replace(&mut self.home, Home::Nowhere) {
            Home::Server(home) => drop(home.send(Back { line, is_whole: false })),
            Home::Upstream(_, call) => call.give_up(),
            Home::Nowhere => {}
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(line) = &mut self.line else { return Poll::Ready(None) };
        let message = ready!(line.poll_next(cx));
        Poll::Ready(match message {
            Ok(Some(Message::Data(data))) => {
                if line.has_ended() {
                    self.end();
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Some(Message::Trailers(trailers))) => {
                self.end();
                Some(Ok(Frame::trailers(trailers)))
            }
            Ok(Some(Message::End)) => {
                self.end();
                None
            }
            Ok(Some(Message::Request(_) | Message::Response(_))) => {
                Some(Err(self.broken(Failure::Bad("a head within a body"))))
            }
            Ok(None) => Some(Err(self.broken(Failure::Closed(io::ErrorKind::UnexpectedEof.into())))),
            Err(failure) => Some(Err(self.broken(failure))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.line.is_none()
    }
}

impl Incoming {
    fn broken(&mut self, failure: Failure) -> BodyError {
        if matches!(self.home, Home::Server(_)) {
            (self.home, self.line) = (Home::Nowhere, None);
        }
        self.give_up();
        failure.into_body_error()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.give_up();
    }
}
