//! Reads bytes as the messages of calls: for the fuzz target `call`, which has no other way to them.

use std::{
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::{
    Failure,
    line::{Line, Message},
    message,
};
use crate::mux::{Carries, Trial};

/// What is read of a channel's bytes that come in these pieces, each message as a line, and what breaks it off. Panics where a head
/// that was read would be another one when it is written again.
pub fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut trial, channel) = Trial::with_channel(Carries::Calls);
    let mut line = Line::new(Rc::new(channel));
    let (mut said, mut data) = (Vec::new(), 0);
    for piece in pieces {
        trial.hear_data(piece);
        loop {
            let message = match line.poll_next(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(Message::Data(bytes)))) => {
                    assert!(!bytes.is_empty());
                    data += bytes.len();
                    continue;
                }
                Poll::Ready(message) => message,
            };
            // In how many pieces they come does not matter.
            if data > 0 {
                said.push(format!("{} bytes", std::mem::take(&mut data)));
            }
            match message {
                Ok(Some(message)) => said.push(shown(message)),
                Ok(None) => panic!("nobody has said the end"),
                Err(failure) => {
                    said.push(failure.to_string());
                    return said;
                }
            }
        }
        assert!(line.held() <= message::HEAD + message::MOST, "{} bytes are held", line.held());
    }
    said.push(format!("{data} bytes at last"));
    said
}

/// As it is, and as it is read when it was written again.
fn shown(message: Message) -> String {
    let mut out = Vec::new();
    let (before, after) = match message {
        Message::Request(head) => {
            message::put_request(&mut out, &head).expect("it was read");
            let again = message::request(payload(out)).map_err(Failure::Bad);
            (format!("{head:?}"), format!("{:?}", again.expect("it was written")))
        }
        Message::Response(head) => {
            message::put_response(&mut out, &head).expect("it was read");
            let again = message::response(payload(out)).map_err(Failure::Bad);
            (format!("{head:?}"), format!("{:?}", again.expect("it was written")))
        }
        Message::Trailers(fields) => {
            message::put_trailers(&mut out, &fields).expect("they were read");
            let again = message::trailers(payload(out)).map_err(Failure::Bad);
            (format!("{fields:?}"), format!("{:?}", again.expect("they were written")))
        }
        Message::Data(_) => unreachable!("invariant: data are counted"),
        Message::End => return "end".into(),
    };
    assert_eq!(before, after);
    before
}

fn payload(out: Vec<u8>) -> bytes::Bytes {
    let (_, len) = message::head(&out).expect("it has a head");
    assert_eq!(len + message::HEAD, out.len());
    bytes::Bytes::from(out).slice(message::HEAD..)
}
