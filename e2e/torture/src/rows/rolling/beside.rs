//! What goes on beside the requests: gRPC calls of a stream of messages, and exchanges of bytes.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::TokioIo;
use mesh_runtime::tasks::Tasks;
use mesh_testbed::{Member, talk};
use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::mpsc};

use crate::{load::Place as _, oracle::NUMBER, outcome::Findings, raw, rig::Rig};

/// Messages of a call, each way.
const MESSAGES: u64 = 10;
/// Between two messages, and between two exchanges.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two requests from outside the mesh.
const PAUSE_OUTSIDE: Duration = Duration::from_millis(20);
/// Whoever waits for longer has lost.
const PATIENCE: Duration = Duration::from_secs(15);

/// Shared by all who talk; what came of it.
#[derive(Debug, Default)]
pub(super) struct Beside {
    over: AtomicBool,
    calls: AtomicUsize,
    broken: AtomicUsize,
    why: Mutex<String>,
    exchanges: AtomicUsize,
    lost: AtomicUsize,
    outside: AtomicUsize,
    lost_outside: AtomicUsize,
}

impl Beside {
    /// Nobody begins anything any more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Calls, one after the other.
    pub(super) fn streams(&self, client: &Member, to: SocketAddr) {
        let talked = client.block_on(|| async {
            let tasks = Tasks::new();
            while !self.over.load(Ordering::Relaxed) {
                self.calls.fetch_add(1, Ordering::Relaxed);
                let call = tokio::time::timeout(PATIENCE, call(to, &tasks)).await;
                if let Err(error) = call.context("no message in time").and_then(|called| called) {
                    self.broke(&error);
                }
            }
            tasks.token().cancel();
            Ok(())
        });
        if let Err(error) = talked {
            self.broke(&error);
        }
    }

    /// Connections on which a few bytes go there and back.
    pub(super) fn exchanges(&self, client: &Member, to: SocketAddr) {
        let talked = client.run(|| {
            while !self.over.load(Ordering::Relaxed) {
                self.exchanges.fetch_add(1, Ordering::Relaxed);
                self.lost.fetch_add(usize::from(!raw::carries(to)), Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
        });
        self.lost.fetch_add(usize::from(talked.is_err()), Ordering::Relaxed);
    }

    /// Requests from outside the mesh, each to where `pick` says, by a connection of its own.
    pub(super) fn outside(&self, rig: &Rig, pick: impl Fn(u64) -> Option<SocketAddr> + Sync) {
        let asked = rig.outsider.run(|| {
            while !self.over.load(Ordering::Relaxed) {
                let number = rig.oracle.number();
                if let Some(to) = pick(number) {
                    self.outside.fetch_add(1, Ordering::Relaxed);
                    let answer = talk::get(to, "/", &[(NUMBER, &number.to_string())]);
                    let good = answer.is_ok_and(|answer| answer.status == 200);
                    self.lost_outside.fetch_add(usize::from(!good), Ordering::Relaxed);
                }
                thread::sleep(PAUSE_OUTSIDE);
            }
        });
        self.lost_outside.fetch_add(usize::from(asked.is_err()), Ordering::Relaxed);
    }

    /// Nothing may be lost.
    pub(super) fn judge(&self, findings: &mut Findings) {
        let (calls, exchanges) = (self.calls.load(Ordering::Relaxed), self.exchanges.load(Ordering::Relaxed));
        let why = self.why.lock();
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        findings.none(format!("broken of {calls} streams{why}"), self.broken.load(Ordering::Relaxed));
        findings.none(format!("lost of {exchanges} TCP exchanges"), self.lost.load(Ordering::Relaxed));
        let outside = self.outside.load(Ordering::Relaxed);
        findings.none(format!("lost of {outside} from outside the mesh"), self.lost_outside.load(Ordering::Relaxed));
    }

    fn broke(&self, error: &anyhow::Error) {
        self.broken.fetch_add(1, Ordering::Relaxed);
        let mut why = self.why.lock();
        if why.is_empty() {
            *why = format!("{error:#}");
        }
    }
}

/// A call in which each message comes back before the next one goes.
async fn call(to: SocketAddr, tasks: &Tasks) -> anyhow::Result<()> {
    let socket = TcpStream::connect(to).await?;
    let (mut sender, connection) = http2::handshake(tasks.executor("stream"), TokioIo::new(socket)).await?;
    tasks.spawn_until_cancelled("stream", async move { drop(connection.await) });
    let (messages, outgoing) = mpsc::channel::<Bytes>(1);
    let frames = stream::unfold(outgoing, async |mut outgoing| {
        let message = outgoing.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(message)), outgoing))
    });
    let request = Request::post("http://shop/stream")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(StreamBody::new(frames).boxed_unsync())?;
    let response = sender.send_request(request).await?;
    anyhow::ensure!(response.status() == 200, "status {}", response.status());
    let mut incoming = response.into_body();
    for nth in 0..MESSAGES {
        let message = message(nth);
        messages.send(message.clone()).await.context("the call takes no more")?;
        let mut back = Vec::new();
        while back.len() < message.len() {
            let frame = incoming.frame().await.with_context(|| format!("the end before message {nth}"))??;
            back.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        anyhow::ensure!(*message == *back, "another message {nth} came back");
        tokio::time::sleep(PAUSE).await;
    }
    drop(messages);
    while let Some(frame) = incoming.frame().await {
        frame?;
    }
    Ok(())
}

/// As gRPC frames it: not compressed, its length, and eight bytes.
fn message(nth: u64) -> Bytes {
    let mut message = vec![0, 0, 0, 0, 8];
    message.extend(nth.to_be_bytes());
    message.into()
}
