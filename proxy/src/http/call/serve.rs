//! Serves the calls of a channel, one after the other.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use tokio::sync::oneshot;

use super::{
    incoming::{Back, Home, Incoming},
    line::{Line, Message},
    message,
    sending::Sending,
};
use crate::{
    http::{body::ResponseBody, respond::Reset},
    mux::Channel,
};

/// Serves calls with `handle` until the peer ends the channel. A head that has begun is there within `head_timeout`.
pub(crate) async fn serve<H, F>(channel: Channel, head_timeout: Duration, handle: H)
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<ResponseBody>>,
{
    let channel = Rc::new(channel);
    let mut line = Line::new(Rc::clone(&channel));
    loop {
        let Some(request) = next(&mut line, head_timeout).await else { return channel.say_end() };
        let (home, mut back) = oneshot::channel();
        let request = request.map(|()| Incoming::new(line, Home::Server(home)));
        let mut answering = pin!(handle(request));
        let mut given_up = false;
        let response = poll_fn(|cx| {
            given_up = channel.poll_given_up(cx).is_ready();
            if given_up { Poll::Ready(None) } else { answering.as_mut().poll(cx).map(Some) }
        });
        let Some(response) = response.await else { return };
        if let Some(Reset(code)) = response.extensions().get::<Reset>() {
            return channel.give_up((*code).into());
        }
        let mut head = Vec::with_capacity(HEAD);
        if message::put_response(&mut head, &response).is_err() {
            return channel.give_up(h2::Reason::INTERNAL_ERROR.into());
        }
        let mut sending = Sending::new(Rc::clone(&channel), head, response.into_body());
        if poll_fn(|cx| sending.poll(cx)).await.is_err() {
            return;
        }
        drop(sending);
        // Whoever has the request's body may have use for it yet.
        let back = poll_fn(|cx| match channel.poll_given_up(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => Pin::new(&mut back).poll(cx).map(Result::ok),
        });
        let Some(Back { line: back, is_whole }) = back.await else { return };
        line = back;
        if !is_whole && !pass_over(&mut line).await {
            return;
        }
    }
}

/// After an answer before the end of its request: passes over what nobody wants, until the client has heard and gives the call up, or
/// has said all of it. It would not do to end the channel here: the client may have said the end already, and the next call.
async fn pass_over(line: &mut Line) -> bool {
    loop {
        match poll_fn(|cx| line.poll_next(cx)).await {
            Ok(Some(Message::Data(_))) => {}
            Ok(Some(Message::Trailers(_) | Message::End)) => return true,
            _ => return false,
        }
    }
}

/// Room for most heads.
const HEAD: usize = 512;

/// The next request's head. None: there is none.
async fn next(line: &mut Line, head_timeout: Duration) -> Option<Request<()>> {
    // Between two calls there is no hurry; a head that has begun is whole at once or soon.
    let message = match poll_fn(|cx| Poll::Ready(line.poll_next(cx))).await {
        Poll::Ready(message) => message,
        Poll::Pending => {
            if line.is_between() {
                poll_fn(|cx| line.poll_begun(cx)).await.ok()?;
            }
            tokio::time::timeout(head_timeout, poll_fn(|cx| line.poll_next(cx))).await.ok()?
        }
    };
    match message {
        Ok(Some(Message::Request(request))) => Some(request),
        _ => None,
    }
}
