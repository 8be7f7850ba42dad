//! Sends back every datagram, or sends one and prints what comes back: UDP, which no mesh takes over.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Longest datagram; the rest of a longer one is lost.
const MOST: usize = 1_500;
/// A datagram may get lost: how often one is sent, and how long the answer may take.
const ATTEMPTS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(1);

/// `shop echo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:7007")]
    pub listen: SocketAddr,
    /// host:port of such a server: says "hello" to it and prints what comes back
    #[arg(long)]
    pub ask: Option<String>,
}

/// Serves until `stop`, or asks once.
#[expect(clippy::print_stdout, reason = "the answer is this role's output")]
pub async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    if let Some(server) = args.ask {
        println!("{}", ask(&server).await?);
        return Ok(());
    }
    let socket = UdpSocket::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
    tokio::select! {
        () = serve(&socket) => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

async fn serve(socket: &UdpSocket) {
    let mut datagram = [0; MOST];
    loop {
        // An error is about one datagram that was sent before, such as a client that has gone.
        if let Ok((length, client)) = socket.recv_from(&mut datagram).await {
            let _ = socket.send_to(&datagram[..length], client).await;
        }
    }
}

async fn ask(server: &str) -> anyhow::Result<String> {
    let address = tokio::net::lookup_host(server).await.with_context(|| format!("look up {server}"))?.next();
    let address = address.with_context(|| format!("{server} has no address"))?;
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    let mut datagram = [0; MOST];
    for _ in 0..ATTEMPTS {
        // Refused, where nobody listens: the next attempt says so again.
        let _ = socket.send(b"hello").await;
        if let Ok(Ok(length)) = tokio::time::timeout(PATIENCE, socket.recv(&mut datagram)).await {
            return Ok(String::from_utf8_lossy(&datagram[..length]).into_owned());
        }
    }
    bail!("no answer from {server} ({address}) to {ATTEMPTS} datagrams")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_comes_back() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        tokio::select! {
            () = serve(&socket) => {}
            answer = ask(&address) => assert_eq!(answer.unwrap(), "hello"),
        }
    }
}
