//! HTTP/2 through both proxies.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh_proto::workload::Protocol;
use mesh_runtime::tasks::Tasks;
use tokio::net::TcpStream;

use crate::support::{App, Pod, closed_port, pair, soon};

/// Sends each body back with trailers, whose `grpc-status` the request's path says.
struct Echo {
    body: Incoming,
    trailers: Option<HeaderMap>,
}

impl Body for Echo {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
        }
    }
}

async fn echo() -> (App, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let tasks = Tasks::new();
    let app = App::new(move |socket| {
        counted.fetch_add(1, Ordering::Relaxed);
        let executor = tasks.executor("echo");
        async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.version(), http::Version::HTTP_2);
                let status = HeaderValue::from_str(&request.uri().path()[1..]).unwrap();
                let authority = request.uri().authority().unwrap().as_str().parse().unwrap();
                let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), status)]);
                let mut response = Response::new(Echo { body: request.into_body(), trailers: Some(trailers) });
                response.headers_mut().insert("x-authority", authority);
                Ok::<_, Infallible>(response)
            });
            let _ = hyper::server::conn::http2::Builder::new(executor)
                .serve_connection(TokioIo::new(socket), service)
                .await;
        }
    })
    .await;
    (app, connections)
}

async fn connect<B>(pod: &Pod, tasks: &Tasks) -> SendRequest<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let socket = TcpStream::connect(pod.outbound).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(tasks.executor("client"), TokioIo::new(socket)).await.unwrap();
    tasks.spawn("client", async move {
        let _ = connection.await;
    });
    sender
}

#[tokio::test]
async fn streams_share_one_connection_and_a_grpc_failure_is_one() {
    let (app, connections) = echo().await;
    let (pair, tasks) = (pair(app.address, Protocol::Grpc), Tasks::new());
    let sender = connect::<Full<Bytes>>(&pair.client, &tasks).await;
    let requests = (0..100).map(|n| {
        let mut sender = sender.clone();
        let body = Bytes::from(format!("request {n}"));
        async move {
            let request = Request::post("http://web/13").body(Full::new(body.clone())).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        }
    });
    soon(futures_util::future::join_all(requests)).await;
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    let edge = r#"direction="outbound",dst_namespace="shop",dst_service="web",dst_port="80",dst_workload="",client_id="",tls="true",status_code="200",grpc_status="13",classification="failure""#;
    pair.client.counted(&format!("response_total{{{edge}}} 100")).await;
}

#[tokio::test]
async fn a_grpc_client_gets_the_meshs_errors_as_grpc() {
    let (pair, tasks) = (pair(closed_port().await, Protocol::Grpc), Tasks::new());
    let mut sender = connect::<Empty<Bytes>>(&pair.client, &tasks).await;
    let request =
        Request::post("http://web/a.B/C").header("content-type", "application/grpc+proto").body(Empty::new()).unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    let headers = response.headers();
    assert_eq!(response.status(), 200);
    assert_eq!(
        (&headers["grpc-status"], &headers["mesh-error"]),
        (&"14".parse().unwrap(), &"app-refused".parse().unwrap())
    );
}
