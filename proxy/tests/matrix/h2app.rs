//! Both ends of HTTP/2 for the behaviours: what hyper's own types cannot say is said here frame by frame.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use mesh_runtime::tasks::Tasks;
use tokio::{net::TcpListener, sync::Notify};

use super::stage::{App, Way, soon};

/// Largest head that the client takes.
const BIG: u32 = 1024 * 1024;

/// An application; `serve` gets each request with the number of its connection.
pub(super) struct H2App {
    _app: App,
    requests: Arc<AtomicUsize>,
    /// Ends the first connection gracefully.
    pub(super) go_away: Arc<Notify>,
}

impl H2App {
    pub(super) fn on<F: Future<Output = ()> + Send + 'static>(
        listener: TcpListener,
        serve: impl Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + Copy + 'static,
    ) -> Self {
        let (connections, requests) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let go_away = Arc::new(Notify::new());
        let (leave, counted, tasks) = (Arc::clone(&go_away), Arc::clone(&requests), Tasks::new());
        let app = App::on(listener, move |socket| {
            let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
            let (leave, counted, tasks) = (Arc::clone(&leave), Arc::clone(&counted), tasks.clone());
            async move {
                let mut connection = h2::server::Builder::new().handshake(socket).await.unwrap();
                loop {
                    let accepted = tokio::select! {
                        accepted = connection.accept() => accepted,
                        () = leave.notified(), if number == 1 => {
                            connection.graceful_shutdown();
                            continue;
                        }
                    };
                    let Some(Ok((request, answer))) = accepted else { return };
                    counted.fetch_add(1, Ordering::SeqCst);
                    tasks.spawn("request", serve(number, request, answer));
                }
            }
        });
        Self { _app: app, requests, go_away }
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

pub(super) async fn connect(way: &Way, tasks: &Tasks) -> SendRequest<Bytes> {
    let client = h2::client::Builder::new().max_header_list_size(BIG).handshake(way.connect());
    let (sender, connection) = soon(client).await.unwrap();
    tasks.spawn("client", async move {
        let _ = connection.await;
    });
    sender.ready().await.unwrap()
}

pub(super) fn post(path: &str) -> Request<()> {
    Request::post(format!("http://web{path}")).header("content-type", "application/grpc").body(()).unwrap()
}

pub(super) fn ok() -> Response<()> {
    Response::new(())
}

pub(super) fn trailers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

/// The next bytes of a body; none at its end.
pub(super) async fn next(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = soon(body.data()).await;
    if let Some(Ok(data)) = &data {
        let _ = body.flow_control().release_capacity(data.len());
    }
    data
}

/// Sends as much as flow control allows until all is sent.
pub(super) async fn send_all(
    stream: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    sent: impl Fn(usize),
) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(capacity) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return Ok(()) };
        let part = bytes.split_to(capacity?.min(bytes.len()));
        sent(part.len());
        stream.send_data(part, false)?;
    }
    stream.send_data(Bytes::new(), true)
}
