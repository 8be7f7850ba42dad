//! One message on its way into a channel: what is already bytes, and the body that follows.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Body;

use super::{
    Failure,
    message::{self, Bad, MOST_DATA},
};
use crate::{http::body::BodyError, mux::Channel};

/// What is gathered before it is written: as much as one frame carries.
const PIECE: usize = 16 * 1024;
/// Error codes of HTTP/2 (RFC 9113 §7).
const INTERNAL_ERROR: u32 = 2;

/// It ends when all is written, when the peer gives the channel up, or, giving it up itself, when the body breaks.
pub(super) struct Sending<B> {
    channel: Rc<Channel>,
    out: Vec<u8>,
    written: usize,
    body: B,
    ended: bool,
}

impl<B> Sending<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    /// `out` is the head.
    pub(super) fn new(channel: Rc<Channel>, mut out: Vec<u8>, body: B) -> Self {
        let ended = body.is_end_stream();
        if ended {
            message::put_end(&mut out);
        }
        Self { channel, out, written: 0, body, ended }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            if self.ended || self.out.len() - self.written >= PIECE {
                ready!(self.poll_write(cx))?;
                if self.ended {
                    return Poll::Ready(Ok(()));
                }
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    ready!(self.poll_write(cx))?;
                    // Nothing else would tell that nobody waits for it any more.
                    return match self.channel.poll_given_up(cx) {
                        Poll::Ready(code) => Poll::Ready(Err(given_up(code))),
                        Poll::Pending => Poll::Pending,
                    };
                }
                Poll::Ready(Some(Err(error))) => {
                    self.channel.give_up(code_of(&error));
                    return Poll::Ready(Err(Failure::Body));
                }
                Poll::Ready(frame) => {
                    if let Err(bad) = self.put(frame.and_then(Result::ok)) {
                        self.channel.give_up(INTERNAL_ERROR);
                        return Poll::Ready(Err(Failure::Bad(bad)));
                    }
                }
            }
        }
    }

    fn put(&mut self, frame: Option<http_body::Frame<Bytes>>) -> Result<(), Bad> {
        let Some(frame) = frame else {
            self.ended = true;
            message::put_end(&mut self.out);
            return Ok(());
        };
        match frame.into_data() {
            Ok(data) => {
                for piece in data.chunks(MOST_DATA) {
                    message::put_data(&mut self.out, piece.len());
                    self.out.extend_from_slice(piece);
                }
                if self.body.is_end_stream() {
                    self.ended = true;
                    message::put_end(&mut self.out);
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.ended = true;
                    message::put_trailers(&mut self.out, &trailers)?;
                }
            }
        }
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while self.written < self.out.len() {
            let written = ready!(self.channel.poll_put(cx, &self.out[self.written..]));
            self.written += written.map_err(|error| match self.channel.reset_code() {
                Some(code) => Failure::Reset(code),
                None => Failure::Closed(error),
            })?;
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

fn given_up(code: Option<u32>) -> Failure {
    code.map_or_else(|| Failure::Closed(std::io::ErrorKind::ConnectionReset.into()), Failure::Reset)
}

/// The code that a body broke with: of the stream it came by, or our own.
fn code_of(error: &BodyError) -> u32 {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason) {
            return reason.into();
        }
        cause = error.source();
    }
    INTERNAL_ERROR
}
