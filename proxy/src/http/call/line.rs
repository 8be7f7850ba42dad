//! One end of a call's channel: messages as they are read, whoever writes beside it.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::{
    Failure,
    message::{self, HEAD},
};
use crate::mux::Channel;

/// Room for a usual message; what is read into it is given on without a copy.
const ROOM: usize = 2 * 1024;
/// The same of data of which more is known to come.
const MOST_ROOM: usize = 16 * 1024;

/// Reads messages. It holds no memory between two calls.
pub(super) struct Line {
    channel: Shared,
    read: BytesMut,
    /// Of the data that are being read.
    left: usize,
}

/// What was read.
pub(super) enum Message {
    Request(Request<()>),
    Response(Response<()>),
    /// Part of a body, which may go on.
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// A channel for reading.
struct Shared(Rc<Channel>);

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_get(cx, buf)
    }
}

impl Line {
    pub(super) fn new(channel: Rc<Channel>) -> Self {
        Self { channel: Shared(channel), read: BytesMut::new(), left: 0 }
    }

    pub(super) fn channel(&self) -> &Rc<Channel> {
        &self.channel.0
    }

    /// Bytes that were read and not given on.
    pub(super) fn held(&self) -> usize {
        self.read.len()
    }

    /// Whether nothing was read that is not given on.
    pub(super) fn is_between(&self) -> bool {
        self.read.is_empty() && self.left == 0
    }

    /// Takes the end of a message where it is what comes next and is there already.
    pub(super) fn has_ended(&mut self) -> bool {
        let ends = self.left == 0 && message::head(&self.read) == Some((message::END, 0));
        if ends {
            self.read.advance(HEAD);
            self.forget();
        }
        ends
    }

    /// Ready when something of the next message is there, or nothing ever will be.
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.0.poll_readable(cx)
    }

    /// The next message. None: the channel has ended before it.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Failure>> {
        loop {
            if let Some(message) = self.take()? {
                self.forget();
                return Poll::Ready(Ok(Some(message)));
            }
            // Nothing is held while nothing comes.
            if self.is_between() {
                ready!(self.channel.0.poll_readable(cx)).map_err(|error| self.failure(error))?;
            }
            if self.read.capacity() - self.read.len() < ROOM / 4 {
                self.read.reserve(self.left.clamp(ROOM, MOST_ROOM));
            }
            match ready!(poll_read_buf(Pin::new(&mut self.channel), cx, &mut self.read)) {
                Ok(1..) => {}
                Ok(_) if self.is_between() => {
                    self.read = BytesMut::new();
                    return Poll::Ready(Ok(None));
                }
                Ok(_) => return Poll::Ready(Err(Failure::Bad("a message that ends within"))),
                Err(error) => return Poll::Ready(Err(self.failure(error))),
            }
        }
    }

    fn failure(&self, error: io::Error) -> Failure {
        self.channel().reset_code().map_or(Failure::Closed(error), Failure::Reset)
    }

    fn take(&mut self) -> Result<Option<Message>, Failure> {
        if self.left > 0 {
            return Ok(self.data());
        }
        let Some((kind, len)) = message::head(&self.read) else { return Ok(None) };
        if kind == message::DATA {
            self.read.advance(HEAD);
            self.left = len;
            return if len == 0 { Err(Failure::Bad("data without a byte")) } else { Ok(self.data()) };
        }
        if len > message::MOST {
            return Err(Failure::Bad("a head that is too long"));
        }
        if self.read.len() < HEAD + len {
            return Ok(None);
        }
        self.read.advance(HEAD);
        let payload = self.read.split_to(len).freeze();
        Ok(Some(match kind {
            message::REQUEST => Message::Request(message::request(payload).map_err(Failure::Bad)?),
            message::RESPONSE => Message::Response(message::response(payload).map_err(Failure::Bad)?),
            message::TRAILERS => Message::Trailers(message::trailers(payload).map_err(Failure::Bad)?),
            message::END if len == 0 => Message::End,
            _ => return Err(Failure::Bad("a message that is none")),
        }))
    }

    fn data(&mut self) -> Option<Message> {
        let here = self.left.min(self.read.len());
        self.left -= here;
        (here > 0).then(|| Message::Data(self.read.split_to(here).freeze()))
    }

    /// Gives the memory back when all of it was given on: the next call may come in an hour.
    fn forget(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
    }
}
