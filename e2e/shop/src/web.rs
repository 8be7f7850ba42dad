//! Sells things over HTTP/1.1 and HTTP/2.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | who answers: version and host name |
//! | `GET /items/ID` | a price |
//! | `POST /checkout?item=ID` | asks `stock` first |
//! | `GET /healthz` | ok |
//!
//! **The planted fault**: version v2 answers 500 to the checkout of every third item ([`is_faulty`]). Find it with
//! `meshctl stat` and `meshctl tap --status 5xx`.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::stock;

/// Connections served at a time.
const CONNECTIONS: usize = 4_096;
/// A head must be there within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Open requests have this long once the role is told to end.
const GRACE: Duration = Duration::from_secs(5);

/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// `shop web`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Which release to be
    #[arg(long, default_value = "v1")]
    pub version: String,
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// host:port of the stock service
    #[arg(long, default_value = "stock:7000")]
    pub stock: String,
    /// Name to answer with; the host's name in Kubernetes
    #[arg(long, env = "HOSTNAME", default_value = "web")]
    pub name: String,
}

/// The role, bound.
#[derive(Debug)]
pub struct Web {
    listener: TcpListener,
    args: Arc<Args>,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Web {
    /// Binds.
    pub async fn bind(args: Args) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
        Ok(Self { addr: listener.local_addr()?, listener, args: Arc::new(args) })
    }

    /// Serves until `stop`, then finishes what is open.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS => {
                    let Ok((stream, _)) = accepted else {
                        // Out of descriptors: at once would be in vain.
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    let args = self.args.clone();
                    let service = service_fn(move |request| answer(args.clone(), request));
                    let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
                    connections.spawn(graceful.watch(connection));
                }
                Some(_) = connections.join_next() => {}
                () = stop.cancelled() => break,
            }
        }
        drop(self.listener);
        tokio::select! {
            () = graceful.shutdown() => {}
            () = tokio::time::sleep(GRACE) => {}
        }
        Ok(())
    }
}

/// The planted fault: which checkouts fail, of which version.
pub fn is_faulty(version: &str, item: u64) -> bool {
    version == "v2" && item.is_multiple_of(3)
}

async fn answer(args: Arc<Args>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let response = match (request.method(), path) {
        (&Method::GET, "/") => {
            reply(StatusCode::OK, &json!({"service": "web", "version": args.version, "pod": args.name}))
        }
        (&Method::GET, "/healthz") => reply(StatusCode::OK, &json!("ok")),
        (&Method::GET, path) if path.starts_with("/items/") => match path["/items/".len()..].parse::<u64>() {
            Ok(item) => reply(StatusCode::OK, &json!({"item": item, "price": 5 + item % 20, "version": args.version})),
            Err(_) => reply(StatusCode::NOT_FOUND, &json!({"error": "items have numbers"})),
        },
        (&Method::POST, "/checkout") => {
            let item =
                request.uri().query().and_then(|query| query.strip_prefix("item=")).and_then(|id| id.parse().ok());
            match item {
                Some(item) => checkout(&args, item).await,
                None => reply(StatusCode::BAD_REQUEST, &json!({"error": "checkout?item=NUMBER"})),
            }
        }
        _ => reply(StatusCode::NOT_FOUND, &json!({"error": "not found"})),
    };
    Ok(response)
}

async fn checkout(args: &Args, item: u64) -> Response<Full<Bytes>> {
    let left = match stock::ask(&args.stock, item).await {
        Ok(left) => left,
        Err(error) => return reply(StatusCode::BAD_GATEWAY, &json!({"error": format!("{error:#}")})),
    };
    if is_faulty(&args.version, item) {
        return reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "discount table: index out of range"}));
    }
    reply(StatusCode::OK, &json!({"item": item, "left": left, "version": args.version}))
}

fn reply(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
