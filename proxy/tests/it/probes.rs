//! The application's probes, performed against applications that are well, unwell, slow or absent.

use std::{convert::Infallible, future::pending, net::SocketAddr, sync::Arc};

use axum::{Router, http::StatusCode, routing::get};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh_proto::probe::{GrpcProbe, HttpProbe, Probe, ProbeAction, ProbeKind, Scheme, TcpProbe};
use mesh_proxy::probe::{Prober, Unwell};
use mesh_runtime::{admin::Bound, tasks::Tasks, tls};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::authority::{Authority, identity};

fn prober() -> Prober {
    Prober { ip: "127.0.0.1".parse().unwrap(), mark: None, tasks: Tasks::new() }
}

async fn perform(action: ProbeAction) -> Result<(), Unwell> {
    let probe = Probe {
        container: "web".into(),
        kind: ProbeKind::Liveness,
        action,
        timeout_seconds: 1,
        original: String::new(),
    };
    prober().perform(&probe).await
}

fn http(port: u16, path: &str, headers: &[(&str, &str)], scheme: Scheme) -> ProbeAction {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ProbeAction::Http(HttpProbe { port, path: path.to_owned(), scheme, headers })
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Nothing listens there: the port was free a moment ago and is not handed out again at once.
async fn closed_port() -> u16 {
    listener().await.1
}

#[tokio::test]
async fn an_http_probe_is_well_with_a_status_from_200_to_399() {
    let bound = Bound::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).await.unwrap();
    let port = bound.addr.port();
    let app = Router::new()
        .route("/well", get(|| async { "well" }))
        .route("/moved", get(|| async { (StatusCode::FOUND, [("location", "/well")]) }))
        .route("/unwell", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/slow", get(|| async { pending::<()>().await }))
        .route("/header", get(|headers: HeaderMap| async move { status(headers["x-probe"] == "yes") }));
    let tasks = Tasks::new();
    tasks.spawn("application", bound.run(app, tasks.cancelled()));
    let ask = |path: &'static str| perform(http(port, path, &[("X-Probe", "yes")], Scheme::Http));
    assert!(ask("/well?deep=1").await.is_ok());
    assert!(ask("/moved").await.is_ok());
    assert!(ask("/header").await.is_ok());
    assert!(matches!(ask("/unwell").await, Err(Unwell::Status(StatusCode::INTERNAL_SERVER_ERROR))));
    assert!(matches!(ask("/slow").await, Err(Unwell::Timeout(_))));
    assert!(tasks.shutdown(crate::support::SOON).await.is_clean());
}

fn status(well: bool) -> StatusCode {
    if well { StatusCode::OK } else { StatusCode::BAD_REQUEST }
}

#[tokio::test]
async fn an_https_probe_believes_any_certificate() {
    let (listener, port) = listener().await;
    let (chain, key) = Authority::new().leaf(&identity("web"));
    let config = rustls::ServerConfig::builder_with_provider(tls::application_provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let serve = async {
        let tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let answer = service_fn(|_| async { Ok::<_, Infallible>(Response::new(String::from("well"))) });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), answer).await;
    };
    let (probed, ()) = tokio::join!(perform(http(port, "/", &[], Scheme::Https)), serve);
    probed.unwrap();
}

#[tokio::test]
async fn a_tcp_probe_is_well_when_the_port_listens() {
    let (_listener, port) = listener().await;
    assert!(perform(ProbeAction::Tcp(TcpProbe { port })).await.is_ok());
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_unwell_for_every_kind() {
    let port = closed_port().await;
    for action in [
        http(port, "/", &[], Scheme::Http),
        ProbeAction::Tcp(TcpProbe { port }),
        ProbeAction::Grpc(GrpcProbe { port, service: String::new() }),
    ] {
        assert!(matches!(perform(action).await, Err(Unwell::Connect { .. })));
    }
}

/// Answers health checks by hand: `shop.Web` serves, `shop.Old` does not, others are not found.
async fn health(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let path = request.uri().path() == "/grpc.health.v1.Health/Check";
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let known = [(&b"\x0a\x08shop.Web"[..], 1), (b"\x0a\x08shop.Old", 2), (b"", 1)];
    let found = known.into_iter().find(|(message, _)| path && body.get(5..) == Some(*message));
    let message = found.map(|(_, serving)| Bytes::from(vec![0, 0, 0, 0, 2, 0x08, serving])).unwrap_or_default();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", if found.is_some() { "0" } else { "5" }.parse().unwrap());
    let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
    let answer = Response::builder().header("content-type", "application/grpc");
    Ok(answer.body(StreamBody::new(tokio_stream::iter(frames))).unwrap())
}

#[tokio::test]
async fn a_grpc_probe_is_well_when_the_service_serves() {
    let (listener, port) = listener().await;
    let tasks = Tasks::new();
    let (owner, cancelled) = (tasks.clone(), tasks.cancelled());
    tasks.spawn("application", async move {
        let serve = async {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let server = hyper::server::conn::http2::Builder::new(owner.executor("answer"));
                let _ = server.serve_connection(TokioIo::new(tcp), service_fn(health)).await;
            }
        };
        tokio::select! {
            () = serve => {}
            () = cancelled => {}
        }
    });
    let check = |service: &str| perform(ProbeAction::Grpc(GrpcProbe { port, service: service.to_owned() }));
    check("").await.unwrap();
    check("shop.Web").await.unwrap();
    assert_eq!(check("shop.Old").await.unwrap_err().to_string(), "its gRPC health check answered NOT_SERVING");
    assert_eq!(check("shop.New").await.unwrap_err().to_string(), "its gRPC health check answered gRPC status 5");
    assert!(tasks.shutdown(crate::support::SOON).await.is_clean());
}
