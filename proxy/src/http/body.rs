//! Bodies on their way through: counted, and tied to what must happen when they end.

mod incoming;
mod request;

use std::{
    pin::Pin,
    task::{Context, Poll},
};

pub(crate) use self::incoming::Incoming;
pub(super) use self::request::Source;
pub(crate) use self::request::{BodyError, RequestBody};
use super::{client::Lease, headers};
use crate::record::Record;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// An answer's body, on its way to the client. When it ends, the connection it came by goes back to its pool and the request
/// is recorded.
pub(crate) struct ResponseBody {
    content: Content,
    ended: bool,
    /// Dropped before `record`: what happens at the end is in this order.
    lease: Option<Lease>,
    record: Option<Record>,
}

enum Content {
    Empty,
    Text(Option<Bytes>),
    Incoming(Incoming),
}

impl ResponseBody {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self::of(Content::Empty)
    }

    /// A text of our own.
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Self::of(Content::Text(Some(text.into())))
    }

    /// A server's answer, and the connection it arrives by.
    pub(crate) fn incoming(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self::of(Content::Incoming(incoming));
        body.lease = Some(lease);
        body
    }

    /// The text that it is; nothing of what a server sent.
    pub(super) fn into_text(mut self) -> Bytes {
        match &mut self.content {
            Content::Text(text) => text.take().unwrap_or_default(),
            Content::Empty | Content::Incoming(_) => Bytes::new(),
        }
    }

    /// With the record that is written at its end.
    pub(crate) fn recorded(mut self, record: Record) -> Self {
        self.record = Some(record);
        self
    }

    fn of(content: Content) -> Self {
        Self { content, ended: false, lease: None, record: None }
    }

    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, BodyError>>) {
        match frame {
            None => self.ended = true,
            Some(Ok(frame)) => {
                // Nothing follows them, and hyper does not ask whether something does.
                self.ended |= frame.is_trailers();
                if let Some(record) = &mut self.record {
                    if let Some(data) = frame.data_ref() {
                        record.sent(data.len() as u64);
                    }
                    if let Some(trailers) = frame.trailers_ref() {
                        record.trailers(trailers);
                    }
                }
            }
            Some(Err(error)) => {
                if let Some(record) = &mut self.record {
                    record.broke(error);
                }
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = match &mut self.content {
            Content::Empty => None,
            Content::Text(text) => text.take().map(|text| Ok(Frame::data(text))),
            Content::Incoming(incoming) => std::task::ready!(Pin::new(incoming).poll_frame(cx)),
        };
        // No proxy of ours puts its code into trailers.
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            headers::strip_error(trailers);
        }
        self.note(frame.as_ref());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Text(text) => text.is_none(),
            Content::Incoming(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Content::Incoming(incoming) => incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let whole = self.ended || self.is_end_stream();
        if let Some(lease) = self.lease.take()
            && whole
        {
            lease.give_back();
        }
        if let Some(record) = &mut self.record
            && !whole
        {
            record.cut_off();
        }
    }
}

/// gRPC status of an answer's head (trailers-only) or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
