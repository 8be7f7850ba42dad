//! Bounds the time a client may take for a request's head, without bounding how long a connection may be idle between requests.
//!
//! hyper's own limit does both: a client that reuses a connection after that long would now and then lose a request. This one
//! looks at intervals (one coarse timer per connection, none per request). Used by `serve` for HTTP/1.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::stream::{Heard, Noted};

/// Looks per limit: a head that takes too long is cut between one and 4/3 of the limit.
const LOOKS: u32 = 3;

/// What is known of a connection. Shared with hyper's service, which it wants to be `Send` for upgrades.
#[derive(Debug, Default)]
pub(super) struct HeadWatch {
    /// Bytes came since the last request was answered.
    heard: Heard,
    /// Requests whose head is whole and whose answer has not begun.
    answering: AtomicU32,
}

/// A request between its head and its answer.
pub(super) struct Answering(Arc<HeadWatch>);

impl HeadWatch {
    /// `stream`, watched.
    pub(super) fn watched<T>(&self, stream: T) -> Noted<T> {
        Noted::new(stream, self.heard.clone())
    }

    /// A request's head is whole.
    pub(super) fn head(self: &Arc<Self>) -> Answering {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    /// Whether a head is unfinished, once the connection has looked at what there is.
    pub(super) async fn is_unfinished(&self) -> bool {
        tokio::task::yield_now().await;
        self.heard.anything() && self.answering.load(Ordering::Relaxed) == 0
    }

    /// Ends when a head has been unfinished for `limit`.
    pub(super) async fn too_slow(&self, limit: Duration) {
        let mut looks = 0;
        while looks <= LOOKS {
            tokio::time::sleep(limit / LOOKS).await;
            let waiting = self.heard.anything() && self.answering.load(Ordering::Relaxed) == 0;
            looks = if waiting { looks + 1 } else { 0 };
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
        self.0.heard.forget();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn only_an_unfinished_head_is_too_slow() {
        let (mut client, server) = tokio::io::duplex(64);
        let watch = Arc::new(HeadWatch::default());
        let mut server = watch.watched(server);
        let slow = watch.too_slow(LIMIT);
        tokio::pin!(slow);
        let idle = Duration::from_hours(1);
        assert!(tokio::time::timeout(idle, slow.as_mut()).await.is_err(), "nothing was said");

        client.write_all(b"GET").await.unwrap();
        server.read_u8().await.unwrap();
        let answering = watch.head();
        assert!(tokio::time::timeout(idle, slow.as_mut()).await.is_err(), "the server takes its time");
        drop(answering);
        assert!(tokio::time::timeout(idle, slow.as_mut()).await.is_err(), "idle between requests");

        server.read_u8().await.unwrap();
        let begun = tokio::time::Instant::now();
        tokio::time::timeout(idle, slow).await.unwrap();
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() <= LIMIT * 3 / 2, "{:?}", begun.elapsed());
    }
}
