//! The HTTP server of the roles that speak it: HTTP/1.1 and HTTP/2 on one port, bounded, ended in order.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Connections served at a time.
const CONNECTIONS: usize = 4_096;
/// A head must be there within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Open requests have this long once the role is told to end.
const GRACE: Duration = Duration::from_secs(5);
/// After an accept that failed: out of descriptors, and at once would be in vain.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What an answer is.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Serves until `stop`, then finishes what is open.
pub(crate) async fn serve<F>(
    listener: TcpListener,
    stop: CancellationToken,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let answer = answer.clone();
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
                connections.spawn(graceful.watch(connection));
            }
            Some(_) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(GRACE) => {}
    }
}

/// An answer in JSON.
pub(crate) fn reply(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// The number after `name=` in the query.
pub(crate) fn number(request: &Request<Incoming>, name: &str) -> Option<u64> {
    let mut pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(known, _)| *known == name)?.1.parse().ok()
}
