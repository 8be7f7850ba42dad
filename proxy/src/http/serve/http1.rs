//! HTTP/1 on a client's connection: by the [direct way](crate::http::direct) where that can be, else by hyper, and by nothing
//! while it is idle.
//!
//! hyper keeps two buffers of 8 KiB and the room of a request's future for as long as its connection lives, and applications
//! keep hundreds of connections that carry nothing. So a connection is taken out of hyper when all is answered that has come; it
//! waits as a bare stream for the client's next byte. To make hyper's part anew takes about a microsecond. Called by
//! [`serve`](super::serve).

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, header};
use hyper::{
    body::Incoming as FromHyper,
    server::conn::http1::{Builder, UpgradeableConnection},
    service::{Service, service_fn},
};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use crate::{
    drain::Drain,
    http::{
        MAX_HEAD,
        body::{Incoming, ResponseBody},
        direct::{self, Desk, Next},
        ending::Watched,
        guard::{Guard, Verdicts},
    },
    stream::Stream,
};

/// While draining, a connection that stays idle this long is closed; one in use learns of it by `connection: close`. Closing
/// idle ones at once would race with requests already on the way.
const DRAIN_IDLE: Duration = Duration::from_secs(2);

/// What hyper may have read beyond the end of a head.
const READ_AHEAD: usize = 8 * 1024;

/// A client's stream as hyper gets it.
type ClientIo = TokioIo<Guard<Watched<Stream>>>;

/// Serves every request of `stream`; those that may go the direct way, with `desk`.
pub(super) async fn serve<H, F, D>(
    head_timeout: Duration,
    stream: Watched<Stream>,
    handle: H,
    drain: &Drain,
    desk: Option<&D>,
) -> hyper::Result<()>
where
    H: Fn(Request<Incoming>) -> F + Unpin + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
    D: Desk,
{
    let verdicts = Arc::new(Verdicts::default());
    let mut is_late = stream.get_ref().is_late();
    let mut io = TokioIo::new(Guard::new(stream, Arc::clone(&verdicts), head_timeout, is_late));
    let (draining, requests) = (drain.clone(), Cell::new(0));
    let of_service = Arc::clone(&verdicts);
    let mut service = service_fn(move |request: Request<FromHyper>| {
        let mut request = request.map(Incoming::from);
        let version = request.version();
        let number = requests.get() + 1;
        requests.set(number);
        if let Some(refusal) = of_service.refused(number) {
            request.extensions_mut().insert(refusal);
        }
        let (draining, verdicts) = (draining.clone(), Arc::clone(&of_service));
        handle(request).map(move |mut response| {
            verdicts.answered(number, response.status() == http::StatusCode::SWITCHING_PROTOCOLS);
            if draining.is_draining() && response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                // To hyper, HTTP/1.1 for a client of HTTP/1.0 means to keep the connection.
                *response.version_mut() = version;
            }
            Ok::<_, Infallible>(response)
        })
    });
    let turn = Turn { verdicts, drain };
    loop {
        // A head that has had its time is the guard's business; the ones after it have their own.
        if let Some(desk) = desk.filter(|_| !std::mem::take(&mut is_late))
            && let Next::Over = direct::serve(desk, io.inner_mut().get_mut(), drain).await
        {
            return Ok(());
        }
        // Boxed, so that an idle connection has no room for it.
        match Box::pin(turn.serve(io, service)).await? {
            Some(left) => (io, service) = left,
            None => return Ok(()),
        }
        if (desk.is_none() || drain.is_draining()) && !turn.spoken_to(&mut io).await {
            return Ok(());
        }
    }
}

/// One turn of a connection: from a byte of the client's until it is idle.
struct Turn<'a> {
    verdicts: Arc<Verdicts>,
    drain: &'a Drain,
}

/// What a turn leaves: the stream and the service of a connection at rest, of which nothing of a request or an answer is left
/// anywhere; none where it is over.
type Left<S> = Option<(ClientIo, S)>;

impl Turn<'_> {
    async fn serve<S>(&self, io: ClientIo, service: S) -> hyper::Result<Left<S>>
    where
        S: Service<Request<FromHyper>, Response = Response<ResponseBody>, Error = Infallible> + Unpin + 'static,
    {
        let mut connection = Builder::new()
            // It would bound how long a connection may be idle as well; `guard` bounds the head alone.
            .header_read_timeout(None)
            // With room for what is read behind a head of the longest kind.
            .max_buf_size(MAX_HEAD + READ_AHEAD)
            .half_close(true)
            .preserve_header_case(true)
            // The application's answer decides whether there is a Date.
            .auto_date_header(false)
            .serve_connection(io, service)
            .with_upgrades();
        tokio::select! {
            rest = self.until_idle(&mut connection) => return match rest {
                Some(result) => result.map(|()| None),
                None => Ok(left(connection)),
            },
            () = self.idle_in_drain() => Pin::new(&mut connection).graceful_shutdown(),
        }
        tokio::select! {
            result = &mut connection => result.map(|()| None),
            () = self.drain.aborted() => Ok(None),
        }
    }

    /// Drives the connection to its end, or (none) until it is at rest.
    async fn until_idle<S>(&self, connection: &mut UpgradeableConnection<ClientIo, S>) -> Option<hyper::Result<()>>
    where
        S: Service<Request<FromHyper>, Response = Response<ResponseBody>, Error = Infallible> + Unpin + 'static,
    {
        poll_fn(|cx| match Pin::new(&mut *connection).poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if self.verdicts.is_at_rest() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Waits for the client; false: it is over.
    async fn spoken_to(&self, io: &mut ClientIo) -> bool {
        let stream = io.inner_mut();
        tokio::select! {
            spoken = poll_fn(|cx| stream.get_mut().poll_readable(cx)) => spoken.is_ok(),
            () = self.idle_in_drain() => {
                // It is over, whether or not the client hears of it.
                let _ = stream.shutdown().await;
                false
            }
        }
    }

    async fn idle_in_drain(&self) {
        self.drain.started().await;
        tokio::time::sleep(DRAIN_IDLE).await;
    }
}

/// Of a connection at rest.
fn left<S>(connection: UpgradeableConnection<ClientIo, S>) -> Left<S>
where
    S: Service<Request<FromHyper>, Response = Response<ResponseBody>, Error = Infallible> + 'static,
{
    // None: it has left HTTP, which one at rest has not.
    connection.into_parts().map(|parts| {
        debug_assert!(parts.read_buf.is_empty(), "hyper asks for more only when it has nothing");
        (parts.io, parts.service)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;
    use http_body::Body as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        time::Instant,
    };

    use super::*;
    use crate::{
        http::{direct::ToApp, ending::Ending, head::Refusal},
        stream::{Io, Prefixed},
    };

    const LIMIT: Duration = Duration::from_secs(10);
    /// In which one that can rest does.
    const A_WHILE: Duration = Duration::from_millis(100);

    /// A client that has said `begun` within the limit of detection, and no more.
    fn late(begun: &'static str) -> (DuplexStream, Stream) {
        let (client, server) = tokio::io::duplex(1024);
        (client, Prefixed::new(Bytes::from_static(begun.as_bytes()), Io::Local(server)).late())
    }

    /// What the client reads until the answer to its first head has come, and when.
    async fn answered(mut client: DuplexStream, stream: Stream) -> (String, Duration) {
        let begun = Instant::now();
        let handle = |request: Request<Incoming>| async move {
            let is_refused = request.extensions().get::<Refusal>().is_some();
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = if is_refused { StatusCode::REQUEST_TIMEOUT } else { StatusCode::OK };
            response
        };
        let drain = Drain::default();
        let served = serve(LIMIT, Ending::default().of(stream), handle, &drain, None::<&ToApp>);
        let read = async {
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                assert!(client.read_buf(&mut answer).await.unwrap() > 0);
            }
            (String::from_utf8(answer).unwrap(), begun.elapsed())
        };
        tokio::select! {
            answer = read => answer,
            result = served => panic!("it ended unanswered: {result:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_had_its_time_in_detection_does_not_get_it_twice() {
        let (client, stream) = late("GET / HT");
        let (answer, after) = answered(client, stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && after < LIMIT / 4, "{answer} after {after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_rest_has_just_come_is_served() {
        let (mut client, stream) = late("GET / HT");
        client.write_all(b"TP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let (answer, _) = answered(client, stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    /// Whether a connection on which the client has said `said` is given up by hyper; of answers, `room` bytes find their way.
    async fn rests(said: &str, answer: &'static str, room: usize) -> bool {
        let (mut client, server) = tokio::io::duplex(room.max(said.len()));
        client.write_all(said.as_bytes()).await.unwrap();
        let verdicts = Arc::new(Verdicts::default());
        let stream = Ending::default().of(Stream::from(Io::Local(server)));
        let io = TokioIo::new(Guard::new(stream, Arc::clone(&verdicts), LIMIT, false));
        let of_service = Arc::clone(&verdicts);
        let requests = Cell::new(0);
        let service = service_fn(move |request: Request<FromHyper>| {
            requests.set(requests.get() + 1);
            of_service.answered(requests.get(), false);
            async move {
                let never = request.uri().path() == "/never";
                let mut body = request.into_body();
                while poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_some() {}
                if never {
                    std::future::pending::<()>().await;
                }
                Ok(Response::new(ResponseBody::text(answer)))
            }
        });
        let drain = Drain::default();
        let turn = Turn { verdicts, drain: &drain };
        let ended = tokio::time::timeout(A_WHILE, turn.serve(io, service)).await;
        matches!(ended, Ok(Ok(Some(_))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_rests_when_nothing_of_a_request_or_an_answer_is_left() {
        const ROOM: usize = 4096;
        for (rests_, said, answer, room) in [
            (true, "", "", ROOM),
            (true, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "", ROOM),
            (true, "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", "answer", ROOM),
            (true, "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab", "answer", ROOM),
            (
                true,
                "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
                "answer",
                ROOM,
            ),
            // Half a head, half a body, no answer, half an answer.
            (false, "GET / HT", "", ROOM),
            (false, "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET", "answer", ROOM),
            (false, "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na", "answer", ROOM),
            (false, "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", "answer", ROOM),
            (false, "GET /never HTTP/1.1\r\nhost: a\r\n\r\n", "", ROOM),
            (false, "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "a long answer", 16),
        ] {
            assert_eq!(rests(said, answer, room).await, rests_, "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_rested_is_served_as_before() {
        let (mut client, server) = tokio::io::duplex(1024);
        let handle = |request: Request<Incoming>| {
            let path = request.uri().path().to_owned();
            async move { Response::new(ResponseBody::text(path)) }
        };
        let drain = Drain::default();
        let served =
            serve(LIMIT, Ending::default().of(Stream::from(Io::Local(server))), handle, &drain, None::<&ToApp>);
        let ask = async {
            for turn in 0..3 {
                // In parts, with a rest before each that may have one.
                let request = format!("GET /{turn} HTTP/1.1\r\nhost: a\r\n\r\n");
                for part in request.as_bytes().chunks(9) {
                    tokio::time::sleep(A_WHILE).await;
                    client.write_all(part).await.unwrap();
                }
                let mut answer = Vec::new();
                while !answer.ends_with(format!("\r\n\r\n/{turn}").as_bytes()) {
                    assert!(client.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
                }
            }
            tokio::time::sleep(A_WHILE).await;
            drop(client);
        };
        let (ended, ()) = tokio::join!(served, ask);
        ended.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rests_is_closed_by_a_drain() {
        let (mut client, server) = tokio::io::duplex(1024);
        let handle = |_| async { Response::new(ResponseBody::empty()) };
        let drain = Drain::default();
        let ending = Ending::default();
        let served = serve(LIMIT, ending.of(Stream::from(Io::Local(server))), handle, &drain, None::<&ToApp>);
        let drained = async {
            tokio::time::sleep(A_WHILE).await;
            drain.start();
            let begun = Instant::now();
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            assert!(begun.elapsed() >= DRAIN_IDLE, "{:?}", begun.elapsed());
        };
        let (ended, ()) = tokio::join!(served, drained);
        ended.unwrap();
        assert_eq!(ending.by_client(), None);
    }
}
