//! One request and its answer, on their way: a first attempt, a second one where that is safe, and what the client gets.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::{
    Desk,
    answer::{self, Answer},
    ask::{self, Ask},
    attempt::{Answered, Client, Lost, attempt},
    body::LAST_CHUNK,
    put_header,
    write::{Pace, write_all},
};
use crate::{
    buffer::{self, Buffer},
    error::ProxyError,
    http::{
        body::ResponseBody,
        ending::Watched,
        headers,
        repeat::Room,
        respond::{self, Asker},
        retry::{self, First},
    },
    pool::Upstream,
    record::Record,
    stream::Stream,
    trace,
};

/// Carries the request that was read into `read`, of which `head` is to be sent on. Whether the connection goes on.
pub(super) async fn exchange<D: Desk>(
    desk: &D,
    stream: &mut Watched<Stream>,
    pace: &mut Pace,
    ask: Ask,
    read: Buffer,
    mut head: Vec<u8>,
) -> bool {
    let worker = desk.worker();
    let mut plan = desk.plan();
    let whole = |bytes: &[u8]| ask::request(&bytes[..ask.head]);
    let (mut record, traced) = Record::head(worker, desk.side(), desk.edge(&plan), || whole(read.filled()));
    if let Some(request) = traced {
        trace::write(request.headers(), |name, value| put_header(&mut head, name, value));
    }
    head.extend_from_slice(b"\r\n");
    if ask.body > 0 {
        head.extend_from_slice(&read.filled()[ask.head..]);
        record.body_meter().add(ask.body as u64);
    }
    let chosen = desk.first(&mut plan, &|| whole(read.filled()), &mut record);
    drop(read);
    // With its body it is in memory already, where there is room for it until there is an answer.
    let room = Room::of(ask.body);
    let mut client = Client::new(stream, pace);
    let sent = match chosen {
        Ok((upstream, fresh)) => {
            let first = attempt(worker, upstream, fresh, &mut head, room.is_some(), &ask, &mut client).await;
            match second(desk, &mut plan, &ask, room.is_some(), first, &mut record) {
                Ok(Again::No(answered)) => Ok(answered),
                Ok(Again::At(upstream)) => {
                    let again = attempt(worker, upstream, None, &mut head, false, &ask, &mut client).await;
                    again.map_err(Lost::into_error)
                }
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(Some(error)),
    };
    drop((head, room));
    match sent {
        Ok(answered) => answered.carry(&mut client, record, &ask).await,
        Err(Some(error)) => refuse(client.stream, record, &error, &ask).await,
        Err(None) => {
            record.cut_off();
            false
        }
    }
}

/// What comes of a first attempt.
enum Again {
    No(Answered),
    At(Rc<Upstream>),
}

/// Whether it stands, or the request is sent once more (contracts §4): see [`retry`]. None of an error: the client is gone.
fn second<D: Desk>(
    desk: &D,
    plan: &mut D::Plan,
    ask: &Ask,
    repeatable: bool,
    first: Result<Answered, Lost>,
    record: &mut Record,
) -> Result<Again, Option<ProxyError>> {
    let kind = retry::Request { repeatable, idempotent: headers::is_idempotent(&ask.method) };
    match first {
        Ok(mut answered) => {
            // Only a proxy of ours can know that the application has not seen the request.
            if answered.answer.said.is_some_and(|code| code.facts().retry_safe) {
                // Refusing is quick; it must not look like the quickest endpoint.
                answered.upstream.0.failed(desk.worker().config().connect_timeout);
                if let Some(upstream) = desk.second(plan, First::Unseen, kind, record)? {
                    answered.stream.say_end();
                    return Ok(Again::At(upstream));
                }
            }
            Ok(Again::No(answered))
        }
        Err(Lost::Client) => Err(None),
        Err(Lost::Upstream { error, first }) => {
            desk.second(plan, first, kind, record)?.map(Again::At).ok_or(Some(error))
        }
    }
}

impl Answered {
    /// Passes it on to the client. Whether the client's connection goes on.
    async fn carry(self, client: &mut Client<'_>, mut record: Record, ask: &Ask) -> bool {
        let Self {
            upstream,
            mut stream,
            answer: Answer { len, status, mut body, reusable, said, grpc },
            head,
            mut read,
        } = self;
        if let Some(outcome) = said {
            let detail = format!("{}: said by the peer's proxy", upstream.0.address());
            record.failed(&ProxyError::new(outcome, detail));
        }
        let headers = if grpc || record.is_watched() { answer::headers(read.filled()) } else { HeaderMap::new() };
        record.answered(status, &headers);
        // Until it is whole.
        record.cut_off();
        let (mut head, mut from, mut bytes) = (&head[..], len, 0);
        loop {
            let Some(piece) = body.take(&read.filled()[from..]) else {
                // The client sees an answer that breaks off, not none.
                let _ = write_all(client.stream, [head, b"", b"", b""]).await;
                record.broke("a chunk of the answer is malformed");
                return false;
            };
            let parts = [head, piece.begin.as_bytes(), piece.bytes, piece.end];
            match write_all(client.stream, parts).await {
                Ok(at_once) => client.pace.went(at_once),
                Err(_) => return false,
            }
            record.sent(piece.content);
            bytes += piece.content;
            if body.is_over() {
                upstream.0.answered_with(bytes);
                // More than the answer is nothing that could be told from the next one.
                if reusable && from + piece.used == read.filled().len() {
                    upstream.0.put_idle(stream);
                } else {
                    stream.say_end();
                }
                break;
            }
            (head, from) = (b"", 0);
            drop(read);
            let most = client.pace.bytes();
            let next = buffer::read(&mut stream, None, most, |cx| client.poll_gone(cx)).await;
            match next {
                None => return false,
                Some(Ok((1.., more))) => read = more,
                Some(Ok(_)) if body.ends_here() => {
                    if write_all(client.stream, [LAST_CHUNK, b"", b"", b""]).await.is_err() {
                        return false;
                    }
                    break;
                }
                Some(Ok(_)) => {
                    record.broke("the answer ended before its end");
                    return false;
                }
                Some(Err(error)) => {
                    record.broke(error);
                    return false;
                }
            }
        }
        record.went_whole();
        goes_on(client.stream, ask)
    }
}

/// Answers in the server's place. Whether the client's connection goes on.
async fn refuse(client: &mut Watched<Stream>, mut record: Record, error: &ProxyError, ask: &Ask) -> bool {
    record.failed(error);
    // The body was read: the next request may come.
    let response = respond::failed(error, Asker::free());
    record.answered(response.status(), response.headers());
    let (head, text) = written(response, ask);
    record.cut_off();
    if write_all(client, [&head, &text, b"", b""]).await.is_err() {
        return false;
    }
    record.sent(text.len() as u64);
    record.went_whole();
    goes_on(client, ask)
}

fn goes_on(client: &mut Watched<Stream>, ask: &Ask) -> bool {
    if ask.closes {
        client.say_end();
    }
    !ask.closes
}

/// An answer of ours as bytes: head and text.
fn written(response: Response<ResponseBody>, ask: &Ask) -> (Vec<u8>, Bytes) {
    let (parts, body) = response.into_parts();
    let text = body.into_text();
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        put_header(&mut head, name.as_str().as_bytes(), value.as_bytes());
    }
    put_header(&mut head, b"content-length", text.len().to_string().as_bytes());
    if ask.closes {
        put_header(&mut head, b"connection", b"close");
    }
    head.extend_from_slice(b"\r\n");
    (head, if ask.method == http::Method::HEAD { Bytes::new() } else { text })
}
