//! Counts things. A line protocol in which the server speaks first, as SMTP and MySQL do: no proxy can tell it from the
//! client's bytes, because there are none.
//!
//! ```text
//! S: 220 stock ready
//! C: QTY 7
//! S: 200 42
//! C: QUIT
//! S: 221 bye
//! ```

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Longest line that is read.
const LINE_LIMIT: u64 = 256;
/// Connections served at a time; further ones wait in the listen queue.
const CONNECTIONS: usize = 1_024;

/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// `shop stock`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:7000")]
    pub listen: SocketAddr,
}

/// The role, bound.
#[derive(Debug)]
pub struct Stock {
    listener: TcpListener,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Stock {
    /// Binds.
    pub async fn bind(args: Args) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
        Ok(Self { addr: listener.local_addr()?, listener })
    }

    /// Serves until `stop`, which ends open connections, too: clients ask again elsewhere.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS => {
                    if accepted.is_err() {
                        // Out of descriptors: at once would be in vain.
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    if let Ok((stream, _)) = accepted {
                        let stop = stop.clone();
                        connections.spawn(async move {
                            tokio::select! {
                                // A client that leaves in the middle is its own affair.
                                _ = serve(stream) => {}
                                () = stop.cancelled() => {}
                            }
                        });
                    }
                }
                Some(_) = connections.join_next() => {}
                () = stop.cancelled() => break,
            }
        }
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

/// Items of one kind on the shelf: fixed, so that tests and users can foresee it.
pub fn quantity(item: u64) -> u64 {
    item * 7 % 50
}

async fn serve(stream: TcpStream) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    write.write_all(b"220 stock ready\r\n").await?;
    let mut lines = BufReader::new(read).take(0);
    let mut line = String::new();
    loop {
        line.clear();
        lines.set_limit(LINE_LIMIT);
        if lines.read_line(&mut line).await? == 0 {
            // The client has ended its half: so do we.
            return write.shutdown().await;
        }
        let answer = match line.trim_end().split_once(' ') {
            Some(("QTY", item)) => match item.parse::<u64>() {
                Ok(item) => format!("200 {}\r\n", quantity(item % 1_000)),
                Err(_) => "501 QTY wants a number\r\n".to_owned(),
            },
            _ if line.trim_end() == "QUIT" => {
                write.write_all(b"221 bye\r\n").await?;
                return write.shutdown().await;
            }
            _ => "500 commands are QTY and QUIT\r\n".to_owned(),
        };
        write.write_all(answer.as_bytes()).await?;
    }
}

/// Asks a stock service for one quantity.
pub async fn ask(address: &str, item: u64) -> anyhow::Result<u64> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connect to stock at {address}"))?;
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(4 * LINE_LIMIT)).lines();
    let mut next = async |what: &str| {
        let line = lines.next_line().await.with_context(|| format!("read {what} of stock"))?;
        line.with_context(|| format!("stock closed before its {what}"))
    };
    let greeting = next("greeting").await?;
    anyhow::ensure!(greeting.starts_with("220 "), "stock greets with {greeting:?}");
    write.write_all(format!("QTY {item}\r\nQUIT\r\n").as_bytes()).await.context("write to stock")?;
    let answer = next("answer").await?;
    let quantity = answer.strip_prefix("200 ").with_context(|| format!("stock answers {answer:?}"))?;
    quantity.parse().with_context(|| format!("stock answers {answer:?}"))
}
