//! The application of a pod: it checks each request, tells the oracle, and answers with what belongs to the request's number.
//!
//! | port | speaks |
//! |---|---|
//! | [`HTTP`] | HTTP/1.1 and HTTP/2: `/stream` sends back what it is sent, `/upgrade` after a 101, others answer |
//! | [`BYTES`] | sends back the bytes it is sent |

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, thread::JoinHandle};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use mesh_runtime::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};

use super::{NUMBER, Oracle, POD, SEEN, SIZE, body, hash};
use crate::party::Party;

/// Requests, declared HTTP.
pub(crate) const HTTP: u16 = 9000;
/// Requests, declared HTTP/2.
pub(crate) const HTTP2: u16 = 9002;
/// Bytes, declared nothing.
pub(crate) const BYTES: u16 = 9001;
/// Bytes of the answer to a request without a number.
const STRANGE: usize = 8;
/// Longest answer that may be asked for.
const LONGEST: usize = 64 << 20;

/// A running backend; it ends with this value.
#[derive(Debug)]
pub(crate) struct Backend {
    tasks: Tasks,
    thread: Option<JoinHandle<()>>,
}

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

impl Backend {
    /// In the network of `member`, on its own address.
    pub(crate) fn start(member: &impl Party, name: &str, oracle: &Oracle) -> anyhow::Result<Self> {
        let ip = member.addresses().v4;
        let listen = |port| {
            let listener = std::net::TcpListener::bind(SocketAddr::new(ip.into(), port))?;
            listener.set_nonblocking(true)?;
            io::Result::Ok(listener)
        };
        let (http, http2, bytes) =
            member.enter(|| io::Result::Ok((listen(HTTP)?, listen(HTTP2)?, listen(BYTES)?)))??;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = Tasks::new();
        let (owner, oracle, name): (_, _, Arc<str>) = (tasks.clone(), oracle.clone(), name.into());
        let thread = std::thread::Builder::new().name("backend".into()).spawn(move || {
            runtime.block_on(async {
                let serve = async {
                    tokio::join!(
                        serve_http(http, &name, &oracle, &owner),
                        serve_http(http2, &name, &oracle, &owner),
                        serve_bytes(bytes, &owner)
                    )
                };
                tokio::select! {
                    _ = serve => {}
                    () = owner.cancelled() => {}
                }
            });
        })?;
        Ok(Self { tasks, thread: Some(thread) })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.tasks.token().cancel();
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread.
            let _ = thread.join();
        }
    }
}

async fn serve_http(
    listener: std::net::TcpListener,
    name: &Arc<str>,
    oracle: &Oracle,
    tasks: &Tasks,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (name, oracle, owner) = (Arc::clone(name), oracle.clone(), tasks.clone());
        let service = service_fn(move |request| {
            let (name, oracle, owner) = (Arc::clone(&name), oracle.clone(), owner.clone());
            async move { Ok::<_, Infallible>(answer(request, &name, &oracle, &owner).await) }
        });
        let mut builder = auto::Builder::new(tasks.executor("stream"));
        builder.http1().timer(TokioTimer::new()).max_headers(256);
        builder.http2().max_concurrent_streams(1000);
        tasks.spawn_until_cancelled("connection", async move {
            // A client that leaves in the middle is its own affair.
            let _ = builder.serve_connection_with_upgrades(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(mut request: Request<Incoming>, name: &str, oracle: &Oracle, tasks: &Tasks) -> Response<Body> {
    if request.uri().path() == "/stream" {
        return Response::new(request.into_body().boxed_unsync());
    }
    if request.uri().path() == "/upgrade" {
        let upgrade = hyper::upgrade::on(&mut request);
        tasks.spawn_until_cancelled("upgraded", async move {
            if let Ok(upgraded) = upgrade.await {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
        let mut response = Response::new(text(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("torture"));
        return response;
    }
    let (head, incoming) = request.into_parts();
    // What broke on its way is not a request.
    let Ok(sent) = incoming.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Response::new(text(Bytes::new()));
    };
    let field = |name| head.headers.get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let number = field(NUMBER);
    oracle.saw(number, || format!("{} {} {:?}", head.method, head.uri, head.headers));
    let length = usize::try_from(field(SIZE).unwrap_or_default()).unwrap_or_default().min(LONGEST);
    let length = match number {
        _ if head.method == http::Method::HEAD => 0,
        Some(_) => length,
        // Public suites, which have no numbers, want a word.
        None => STRANGE,
    };
    let number = number.unwrap_or_default();
    let said = body(number, length);
    let is_grpc = head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/grpc");
    let mut response = Response::new(if is_grpc { with_status(said) } else { text(said) });
    let headers = response.headers_mut();
    headers.insert(NUMBER, number.into());
    headers.insert(SEEN, hash(&sent).into());
    if let Ok(name) = HeaderValue::from_str(name) {
        headers.insert(POD, name);
    }
    if is_grpc {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    }
    response
}

fn text(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// As gRPC ends an answer.
fn with_status(bytes: Bytes) -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(bytes), Frame::trailers(trailers)].map(Ok);
    http_body_util::StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

async fn serve_bytes(listener: std::net::TcpListener, tasks: &Tasks) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tasks.spawn_until_cancelled("bytes", async move {
            let _ = echo(socket).await;
        });
    }
}

async fn echo(mut socket: TcpStream) -> io::Result<()> {
    let (mut read, mut write) = socket.split();
    tokio::io::copy(&mut read, &mut write).await?;
    tokio::io::AsyncWriteExt::shutdown(&mut write).await
}
