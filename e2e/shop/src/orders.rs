//! Takes orders over HTTP/1.1 and HTTP/2, and keeps their number.
//!
//! | request | answer |
//! |---|---|
//! | `POST /orders?item=ID` | 201 and the order's number |
//! | `GET /orders` | how many there are |
//! | `GET /healthz` | ok |

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    get::Connection,
    http::{Answer, number, reply, serve},
};

/// `shop orders`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

/// The role, bound.
#[derive(Debug)]
pub struct Orders {
    listener: TcpListener,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Orders {
    /// Binds.
    pub async fn bind(args: Args) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
        Ok(Self { addr: listener.local_addr()?, listener })
    }

    /// Serves until `stop`, then finishes what is open.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let taken = Arc::new(AtomicU64::new(0));
        let serving = serve(self.listener, stop, move |request| {
            let answer = answer(&taken, &request);
            async move { answer }
        });
        serving.await;
        Ok(())
    }
}

fn answer(taken: &AtomicU64, request: &Request<Incoming>) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => reply(StatusCode::OK, &json!("ok")),
        (&Method::GET, "/orders") => reply(StatusCode::OK, &json!({"orders": taken.load(Ordering::Relaxed)})),
        (&Method::POST, "/orders") => match number(request, "item") {
            Some(item) => {
                let order = taken.fetch_add(1, Ordering::Relaxed) + 1;
                reply(StatusCode::CREATED, &json!({"order": order, "item": item}))
            }
            None => reply(StatusCode::BAD_REQUEST, &json!({"error": "orders?item=NUMBER"})),
        },
        _ => reply(StatusCode::NOT_FOUND, &json!({"error": "not found"})),
    }
}

/// Places an order with the service at `authority` (host:port).
pub(crate) async fn place(authority: &str, item: u64) -> anyhow::Result<()> {
    let url: Uri = format!("http://{authority}/orders?item={item}").parse().context("the address of orders")?;
    let answer = Connection::open(&url).await?.ask(&Method::POST, &url, HeaderMap::new()).await?;
    anyhow::ensure!(answer.status() == StatusCode::CREATED, "orders answers {}", answer.status());
    Ok(())
}
