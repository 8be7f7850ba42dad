//! A request that can be sent a second time: its head, and a small body, which is kept as it goes by until there is an answer.
//!
//! `outbound` and `inbound` make one before they give a request away, and [`retry`](super::retry) says whether it is used; the direct way,
//! whose bodies are in memory, asks for [`Room`] only. What is kept is bounded for each body and for all of a worker; what is larger is
//! sent once.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{
    Request,
    header::{EXPECT, UPGRADE},
    request::Parts,
};
use http_body::{Body as _, Frame, SizeHint};
use hyper::upgrade::OnUpgrade;

use super::body::{BodyError, RequestBody, Source};

/// Most that is kept of one body, in bytes: what calls and forms send, and it is copied.
const MOST: usize = 16 * 1024;
/// Most that is kept of all bodies of a worker, in bytes.
const MOST_OF_WORKER: usize = 4 * 1024 * 1024;

thread_local! {
    static KEPT: Cell<usize> = const { Cell::new(0) };
}

/// Room for what is kept of one body.
pub(super) struct Room(usize);

impl Room {
    /// For so many bytes. None: they are too many, or there is too much already.
    pub(super) fn of(bytes: usize) -> Option<Self> {
        let mut room = Self(0);
        room.grow(bytes).then_some(room)
    }

    /// For more bytes. False: no.
    fn grow(&mut self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let all = KEPT.get() + bytes;
        let fits = self.0 + bytes <= MOST && all <= MOST_OF_WORKER;
        if fits {
            self.0 += bytes;
            KEPT.set(all);
        }
        fits
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.0 > 0 {
            // At the end of the thread there is nobody to count.
            let _ = KEPT.try_with(|kept| kept.set(kept.get() - self.0));
        }
    }
}

/// A second request like the first. With its extensions, in which hyper keeps how the names of headers were written.
pub(crate) struct Repeat {
    head: Parts,
    body: Option<Keeper>,
}

impl Repeat {
    /// Of a request that is not sent yet. None: something of it is gone once it was sent, an upgrade or a body of which is known that it
    /// cannot be kept.
    pub(crate) fn of(request: &mut Request<RequestBody>) -> Option<Self> {
        if request.headers().contains_key(UPGRADE) {
            return None;
        }
        let body = match request.body().is_end_stream() {
            true => None,
            // What waits for the server to ask is of one attempt.
            false if request.headers().contains_key(EXPECT) => return None,
            false if request.body().size_hint().lower() > MOST as u64 => return None,
            false => request.body_mut().keep().map(Keeper),
        };
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        head.headers_mut().clone_from(request.headers());
        head.extensions_mut().clone_from(request.extensions());
        head.extensions_mut().remove::<OnUpgrade>();
        Some(Self { head: head.into_parts().0, body })
    }

    /// Whether everything of the request is here still.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.0.is_whole())
    }

    /// The request once more. The first one gets no more of its body.
    pub(crate) fn request(self) -> Request<RequestBody> {
        let body = self.body.as_ref().map_or_else(RequestBody::empty, |body| body.0.again());
        Request::from_parts(self.head, body)
    }
}

/// When this ends nothing needs to be kept.
struct Keeper(Rc<Kept>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.0.borrow_mut().bytes = None;
    }
}

/// A body of which a copy is kept while it is read.
pub(super) struct Kept(RefCell<State>);

struct State {
    rest: Rest,
    /// None: not all of it is here.
    bytes: Option<(BytesMut, Room)>,
}

enum Rest {
    Here(Source),
    /// It was read to its end.
    Over,
    /// Another request has it.
    Taken,
}

/// The request is sent once more, by somebody else.
#[derive(Debug, thiserror::Error)]
#[error("the request is sent once more elsewhere")]
struct Taken;

impl Kept {
    pub(super) fn new(source: Source) -> Self {
        let bytes = Some((BytesMut::new(), Room(0)));
        Self(RefCell::new(State { rest: Rest::Here(source), bytes }))
    }

    fn is_whole(&self) -> bool {
        self.0.borrow().bytes.is_some()
    }

    /// The body once more: what was kept, and what is still to come.
    fn again(&self) -> RequestBody {
        let State { rest, bytes } = &mut *self.0.borrow_mut();
        let kept = bytes.take().map(|(bytes, _)| bytes.freeze()).filter(|bytes| !bytes.is_empty());
        match std::mem::replace(rest, Rest::Taken) {
            Rest::Here(source) => RequestBody::of(kept, Some(source)),
            Rest::Over | Rest::Taken => RequestBody::of(kept, None),
        }
    }

    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let State { rest, bytes } = &mut *self.0.borrow_mut();
        let source = match rest {
            Rest::Here(source) => source,
            Rest::Over => return Poll::Ready(None),
            Rest::Taken => return Poll::Ready(Some(Err(Taken.into()))),
        };
        let frame = ready!(source.poll_frame(cx));
        match &frame {
            None => *rest = Rest::Over,
            Some(Ok(frame)) => {
                *bytes = bytes.take().and_then(|(mut bytes, mut room)| {
                    // Trailers are not kept: clients send none.
                    let data = frame.data_ref().filter(|data| room.grow(data.len()))?;
                    bytes.extend_from_slice(data);
                    Some((bytes, room))
                });
            }
            Some(Err(_)) => *bytes = None,
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match &self.0.borrow().rest {
            Rest::Here(source) => source.is_end_stream(),
            Rest::Over => true,
            Rest::Taken => false,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.0.borrow().rest {
            Rest::Here(source) => source.size_hint(),
            Rest::Over => SizeHint::with_exact(0),
            Rest::Taken => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_for_each_body_and_for_all_of_a_worker() {
        assert!(Room::of(MOST + 1).is_none());
        let mut one = Room::of(MOST - 1).unwrap();
        assert!(one.grow(1) && !one.grow(1));
        let all: Vec<Room> = std::iter::from_fn(|| Room::of(MOST)).collect();
        assert_eq!(all.len() + 1, MOST_OF_WORKER / MOST);
        assert!(Room::of(1).is_none() && Room::of(0).is_some());
        drop(all);
        assert_eq!(KEPT.get(), MOST);
        drop(one);
        assert_eq!(KEPT.get(), 0);
    }
}
