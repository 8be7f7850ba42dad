//! Asks once over HTTP/1.1 and prints the answer: a `curl` for machines that have none.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest answer that is read.
const BODY_LIMIT: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(10);

/// `shop get`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// http://HOST[:PORT]/PATH
    pub url: Uri,
    /// Method
    #[arg(short = 'X', long, default_value = "GET")]
    pub method: Method,
    /// NAME:VALUE, as often as needed
    #[arg(short = 'H', long = "header")]
    pub headers: Vec<String>,
    /// Print the status and the headers before the body
    #[arg(short = 'i', long)]
    pub include: bool,
}

/// Prints the answer; an error where none came. A status is no error.
#[expect(clippy::print_stdout, reason = "the answer is this role's output")]
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut headers = HeaderMap::new();
    for header in &args.headers {
        let (name, value) = header.split_once(':').with_context(|| format!("header {header:?} is not NAME:VALUE"))?;
        headers.append(http::HeaderName::try_from(name.trim())?, http::HeaderValue::try_from(value.trim())?);
    }
    let ask = async {
        let mut connection = Connection::open(&args.url).await?;
        connection.ask(&args.method, &args.url, headers).await
    };
    let response =
        tokio::time::timeout(DEADLINE, ask).await.with_context(|| format!("no answer in {DEADLINE:?}"))??;
    if args.include {
        println!("{}", response.status());
        for (name, value) in response.headers() {
            println!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
        println!();
    }
    print!("{}", String::from_utf8_lossy(response.body()));
    Ok(())
}

/// An HTTP/1.1 connection that is kept alive.
pub(crate) struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    // Dropped with the connection.
    _driver: tokio::task::JoinSet<()>,
}

impl Connection {
    pub(crate) async fn open(url: &Uri) -> anyhow::Result<Self> {
        // An IPv6 address stands in brackets.
        let host = url.host().with_context(|| format!("{url} has no host"))?.trim_matches(['[', ']']);
        let port = url.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((host, port)).await.with_context(|| format!("connect to {host}:{port}"))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(async move {
            // What went wrong is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Self { sender, _driver: driver })
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(crate) async fn ask(
        &mut self,
        method: &Method,
        url: &Uri,
        headers: HeaderMap,
    ) -> anyhow::Result<Response<Bytes>> {
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let authority = url.authority().with_context(|| format!("{url} has no host"))?.as_str();
        let mut request = Request::builder().method(method).uri(path).body(Empty::new())?;
        request.headers_mut().insert(http::header::HOST, authority.parse()?);
        request.headers_mut().extend(headers);
        self.sender.ready().await.context("wait for the connection")?;
        let response = self.sender.send_request(request).await.with_context(|| format!("{method} {url}"))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// Whether an answer counts as a success for a shop's customer.
pub(crate) fn is_success(status: StatusCode) -> bool {
    !status.is_server_error()
}
