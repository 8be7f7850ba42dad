//! A client's connection: asks a numbered request and says what came of it.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use mesh_proto::names;
use mesh_runtime::tasks::Tasks;
use tokio::net::TcpStream;

use super::{NUMBER, Oracle, SEEN, SIZE, body, hash};

/// Whoever waits for longer has lost.
const PATIENCE: Duration = Duration::from_secs(15);

/// How requests are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
    /// HTTP/2 with what gRPC adds.
    Grpc,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    /// The client knows that it failed.
    Failed(String),
    /// The client was told that all is well, and it is not.
    Wrong(String),
}

/// A connection, open or not.
pub(crate) struct Client {
    address: SocketAddr,
    version: Version,
    tasks: Tasks,
    sender: Option<Sender>,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub(crate) fn new(address: SocketAddr, version: Version, tasks: &Tasks) -> Self {
        Self { address, version, tasks: tasks.clone(), sender: None }
    }

    /// The next request goes by a new connection.
    pub(crate) fn let_go(&mut self) {
        self.sender = None;
    }

    /// Asks, by a new connection where there is none.
    pub(crate) async fn ask(&mut self, oracle: &Oracle, sent: usize, wanted: usize) -> Verdict {
        let number = oracle.number();
        let verdict = tokio::time::timeout(PATIENCE, self.ask_numbered(number, sent, wanted)).await;
        let verdict = match verdict {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => Verdict::Failed(format!("{error:#}")),
            Err(_) => Verdict::Failed(format!("no answer within {PATIENCE:?}")),
        };
        if verdict != Verdict::Good {
            self.let_go();
        } else if oracle.times(number) == 0 {
            return Verdict::Wrong(format!("request {number} was answered and never seen"));
        }
        verdict
    }

    async fn ask_numbered(&mut self, number: u64, sent: usize, wanted: usize) -> anyhow::Result<Verdict> {
        let request = self.request(number, sent, wanted)?;
        let response = match self.connected().await? {
            Sender::One(sender) => sender.send_request(request).await?,
            Sender::Two(sender) => sender.send_request(request).await?,
        };
        let (head, incoming) = response.into_parts();
        if head.status != 200 {
            let code = head.headers.get(names::HEADER_ERROR).and_then(|code| code.to_str().ok());
            return Ok(Verdict::Failed(format!("{} {}", head.status, code.unwrap_or("of the application"))));
        }
        let told = incoming.collect().await?;
        let grpc_status = told.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        if self.version == Version::Grpc && grpc_status.is_none_or(|status| status != "0") {
            return Ok(Verdict::Failed("no grpc-status 0".into()));
        }
        let field = |name: &str| number_in(&head.headers, name);
        let told = told.to_bytes();
        Ok(if field(NUMBER) != Some(number) {
            Verdict::Wrong(format!("request {number} got the answer to {:?}", field(NUMBER)))
        } else if field(SEEN) != Some(hash(&body(number, sent))) {
            Verdict::Wrong(format!("the application saw another body of request {number}"))
        } else if hash(&told) != hash(&body(number, wanted)) {
            Verdict::Wrong(format!("another body came back to request {number}, of {} bytes", told.len()))
        } else {
            Verdict::Good
        })
    }

    fn request(&self, number: u64, sent: usize, wanted: usize) -> anyhow::Result<Request<Full<Bytes>>> {
        let target = match self.version {
            Version::Http1 => format!("/numbered/{number}"),
            Version::Http2 | Version::Grpc => format!("http://web/numbered/{number}"),
        };
        let method = if sent == 0 && self.version != Version::Grpc { "GET" } else { "POST" };
        let mut request = Request::builder().method(method).uri(target).header(NUMBER, number).header(SIZE, wanted);
        if self.version == Version::Http1 {
            request = request.header(header::HOST, "web");
        }
        if self.version == Version::Grpc {
            request = request.header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
        }
        Ok(request.body(Full::new(body(number, sent)))?)
    }

    /// A connection that takes a request now: one that the other side has closed is replaced.
    async fn connected(&mut self) -> anyhow::Result<&mut Sender> {
        let ready = match &mut self.sender {
            Some(Sender::One(sender)) => sender.ready().await.is_ok(),
            Some(Sender::Two(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            self.sender = None;
        }
        if self.sender.is_none() {
            let socket = TcpStream::connect(self.address).await?;
            socket.set_nodelay(true)?;
            self.sender = Some(self.handshake(socket).await?);
        }
        self.sender.as_mut().ok_or_else(|| anyhow::anyhow!("no connection"))
    }

    async fn handshake(&self, socket: TcpStream) -> hyper::Result<Sender> {
        let io = TokioIo::new(socket);
        Ok(if self.version == Version::Http1 {
            let (sender, connection) = http1::handshake(io).await?;
            self.tasks.spawn_until_cancelled("client", async move { drop(connection.await) });
            Sender::One(sender)
        } else {
            let (sender, connection) = http2::handshake(self.tasks.executor("client stream"), io).await?;
            self.tasks.spawn_until_cancelled("client", async move { drop(connection.await) });
            Sender::Two(sender)
        })
    }
}

fn number_in(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
