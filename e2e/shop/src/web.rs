//! Sells things over HTTP/1.1 and HTTP/2.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | who answers: version and host name |
//! | `GET /items/ID` | a price, which it asks `prices` for |
//! | `POST /checkout?item=ID` | asks `stock` first, then places an order with `orders` |
//! | `GET /healthz` | ok |
//!
//! **The planted fault**: version v2 answers 500 to the checkout of every third item ([`is_faulty`]). Find it with
//! `meshctl stat` and `meshctl tap --status 5xx`.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    http::{Answer, number, reply, serve},
    orders,
    prices::Quotes,
    stock,
};

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
    /// host:port of the prices service
    #[arg(long, default_value = "prices:50051")]
    pub prices: String,
    /// host:port of the orders service
    #[arg(long, default_value = "orders:80")]
    pub orders: String,
    /// Name to answer with; the host's name in Kubernetes
    #[arg(long, env = "HOSTNAME", default_value = "web")]
    pub name: String,
}

/// The role, bound.
#[derive(Debug)]
pub struct Web {
    listener: TcpListener,
    shop: Arc<Shop>,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// What all requests share.
#[derive(Debug)]
struct Shop {
    args: Args,
    quotes: Quotes,
}

impl Web {
    /// Binds.
    pub async fn bind(args: Args) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
        let quotes = Quotes::of(&args.prices)?;
        Ok(Self { addr: listener.local_addr()?, listener, shop: Arc::new(Shop { args, quotes }) })
    }

    /// Serves until `stop`, then finishes what is open.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let shop = self.shop;
        serve(self.listener, stop, move |request| {
            let shop = Arc::clone(&shop);
            async move { shop.answer(request).await }
        })
        .await;
        Ok(())
    }
}

/// The planted fault: which checkouts fail, of which version.
pub fn is_faulty(version: &str, item: u64) -> bool {
    version == "v2" && item.is_multiple_of(3)
}

impl Shop {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let args = &self.args;
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/") => {
                reply(StatusCode::OK, &json!({"service": "web", "version": args.version, "pod": args.name}))
            }
            (&Method::GET, "/healthz") => reply(StatusCode::OK, &json!("ok")),
            (&Method::GET, path) if path.starts_with("/items/") => match path["/items/".len()..].parse() {
                Ok(item) => self.item(item).await,
                Err(_) => reply(StatusCode::NOT_FOUND, &json!({"error": "items have numbers"})),
            },
            (&Method::POST, "/checkout") => match number(&request, "item") {
                Some(item) => self.checkout(item).await,
                None => reply(StatusCode::BAD_REQUEST, &json!({"error": "checkout?item=NUMBER"})),
            },
            _ => reply(StatusCode::NOT_FOUND, &json!({"error": "not found"})),
        }
    }

    async fn item(&self, item: u64) -> Answer {
        match self.quotes.quote(item).await {
            Ok(Some(price)) => {
                reply(StatusCode::OK, &json!({"item": item, "price": price, "version": self.args.version}))
            }
            Ok(None) => reply(StatusCode::NOT_FOUND, &json!({"error": "no such item"})),
            Err(error) => failed(&error),
        }
    }

    async fn checkout(&self, item: u64) -> Answer {
        let left = match stock::ask(&self.args.stock, item).await {
            Ok(left) => left,
            Err(error) => return failed(&error),
        };
        if is_faulty(&self.args.version, item) {
            let error = "discount table: index out of range";
            return reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": error}));
        }
        match orders::place(&self.args.orders, item).await {
            Ok(()) => reply(StatusCode::OK, &json!({"item": item, "left": left, "version": self.args.version})),
            Err(error) => failed(&error),
        }
    }
}

/// Somebody behind this service did not do their part.
fn failed(error: &anyhow::Error) -> Answer {
    reply(StatusCode::BAD_GATEWAY, &json!({"error": format!("{error:#}")}))
}
