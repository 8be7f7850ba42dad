//! A request's body, on its way to the server: counted, held back until it is wanted, and kept where it may be sent again.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Incoming;
use crate::{
    http::{expect::Waiting, headers, repeat::Kept},
    record::BodyMeter,
};

/// A request's body, on its way to the server.
pub(crate) struct RequestBody {
    /// What was sent before, by an attempt that came to nothing.
    before: Option<Bytes>,
    content: Content,
    /// Until the server asks for it.
    waiting: Option<Waiting>,
    /// Whether it was read to its end, for whoever asked.
    whole: Option<Rc<Cell<bool>>>,
}

enum Content {
    None,
    Source(Source),
    Kept(Rc<Kept>),
}

/// A body as it comes from the client, counted.
pub(in crate::http) struct Source {
    incoming: Incoming,
    meter: BodyMeter,
    /// What is taken out of the trailers.
    strip: fn(&mut HeaderMap),
}

/// Why a request's body broke: hyper's, with the code of an HTTP/2 stream in it, or ours.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl RequestBody {
    /// Of a client's request.
    pub(crate) fn new(incoming: impl Into<Incoming>, meter: BodyMeter) -> Self {
        let source = Some(Source { incoming: incoming.into(), meter, strip: |_| {} });
        Self::of(None, source.filter(|source| !source.is_end_stream()))
    }

    /// For an application: without claims in the trailers, either.
    pub(crate) fn without_claims(mut self) -> Self {
        if let Content::Source(source) = &mut self.content {
            source.strip = headers::strip_claims;
        }
        self
    }

    /// Not before the server wants it.
    pub(in crate::http) fn wait(&mut self, waiting: Waiting) {
        self.waiting = Some(waiting);
    }

    /// Becomes true when all of it was read to be sent; None: there is none.
    pub(in crate::http) fn whole(&mut self) -> Option<Rc<Cell<bool>>> {
        (!self.is_end_stream()).then(|| Rc::clone(self.whole.get_or_insert_default()))
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self::of(None, None)
    }

    /// What an attempt before has sent, and then what it has not.
    pub(in crate::http) fn of(before: Option<Bytes>, source: Option<Source>) -> Self {
        let content = source.map_or(Content::None, Content::Source);
        Self { before, content, waiting: None, whole: None }
    }

    /// From here on, what is read of it is kept. None: there is none.
    pub(in crate::http) fn keep(&mut self) -> Option<Rc<Kept>> {
        let (content, kept) = match std::mem::replace(&mut self.content, Content::None) {
            Content::None => (Content::None, None),
            Content::Source(source) => {
                let kept = Rc::new(Kept::new(source));
                (Content::Kept(Rc::clone(&kept)), Some(kept))
            }
            Content::Kept(kept) => (Content::Kept(Rc::clone(&kept)), Some(kept)),
        };
        self.content = content;
        kept
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.poll(cx))?;
            self.waiting = None;
        }
        let frame = match self.before.take() {
            Some(before) => Some(Ok(Frame::data(before))),
            None => match &mut self.content {
                Content::None => None,
                Content::Source(source) => ready!(source.poll_frame(cx)),
                Content::Kept(kept) => ready!(kept.poll_frame(cx)),
            },
        };
        // hyper does not ask again after the last byte of a known length.
        if let Some(whole) = &self.whole {
            whole.set(frame.is_none() || self.is_end_stream());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let is_over = match &self.content {
            Content::None => true,
            Content::Source(source) => source.is_end_stream(),
            Content::Kept(kept) => kept.is_end_stream(),
        };
        is_over && self.before.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = match &self.content {
            Content::None => SizeHint::with_exact(0),
            Content::Source(source) => source.size_hint(),
            Content::Kept(kept) => kept.size_hint(),
        };
        if let Some(before) = &self.before {
            let before = before.len() as u64;
            let (lower, upper) = (hint.lower() + before, hint.upper().map(|upper| upper + before));
            hint = SizeHint::new();
            hint.set_lower(lower);
            if let Some(upper) = upper {
                hint.set_upper(upper);
            }
        }
        hint
    }
}

impl Source {
    pub(in crate::http) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            (self.strip)(trailers);
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.meter.add(data.len() as u64);
        }
        Poll::Ready(frame)
    }

    pub(in crate::http) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(in crate::http) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
