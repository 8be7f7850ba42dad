//! Many exchanges on one connection between two proxies: the channels of `mesh/1/mux`.
//!
//! A channel is a byte stream of its own, with its own end and its own flow control; what HTTP says on it is what it would say on
//! a connection, heads as they are. What all channels have written in one turn of the event loop leaves in one write, and
//! what comes is read for all of them at once: a request costs neither proxy a system call towards the other. `pool` opens
//! channels for requests of the direct way, `inbound` serves those that come. It knows nothing of HTTP. [`frame`] is what is on the
//! wire, [`session`] decides (pure), [`channel`] is what its user has, [`drive`] reads and writes.
//!
//! Only the proxy that dialled opens channels. What is long is better off on a connection of its own: see `pool`.

mod channel;
mod drive;
mod frame;
mod fuzzing;
mod session;

use std::{io, sync::Arc};

use parking_lot::Mutex;

pub(crate) use self::channel::Channel;
pub use self::fuzzing::{Does, Trial};
use self::{
    drive::Driver,
    session::{Role, Session},
};
use crate::stream::Stream;

/// Bytes that a channel's peer may send before any of them was read: what one who reads nothing makes us hold.
pub(crate) const WINDOW: u32 = 16 * 1024;
/// Channels of one connection; a proxy that needs more opens another.
const MAX_CHANNELS: u32 = 100;

/// What a channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Carries {
    /// HTTP/1, as on a connection.
    Http1 = 0,
    /// Calls of HTTP/2, one after the other: see `http::call`.
    Calls = 1,
}

impl Carries {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Http1, Self::Calls].into_iter().find(|carries| *carries as u8 == byte)
    }
}

/// The end that opens channels; clones are the same connection.
#[derive(Clone)]
pub(crate) struct Mux(Arc<Mutex<Session>>);

impl Mux {
    /// On `stream`; the future is to be run until it ends.
    pub(crate) fn dialled(stream: Stream) -> (Self, impl Future<Output = ()>) {
        let session = Arc::new(Mutex::new(Session::new(Role::Opens)));
        let driver = Driver::new(stream, Arc::clone(&session));
        let run = async move {
            if let Err(error) = driver.run(std::future::pending(), |_| {}).await {
                tracing::debug!(%error, "a connection that requests share has ended");
            }
        };
        (Self(session), run)
    }

    /// A new channel. None: it is full, or over, or about to be.
    pub(crate) fn open(&self, carries: Carries) -> Option<Channel> {
        let id = self.0.lock().open(carries)?;
        Some(Channel::new(Arc::clone(&self.0), id, carries))
    }

    /// Whether channels can be opened, as soon as others have ended.
    pub(crate) fn is_open(&self) -> bool {
        self.0.lock().is_open()
    }

    /// Whether no channel is open.
    pub(crate) fn is_unused(&self) -> bool {
        self.0.lock().is_unused()
    }

    /// Opens no more channels; when the last one has ended, so does the connection.
    pub(crate) fn retire(&self) {
        self.0.lock().leave();
    }
}

/// Serves every channel that the peer opens on `stream`, each by `serve`, until the peer ends it. When `until` is ready, the peer is
/// asked to let go.
pub(crate) async fn serve(
    stream: Stream,
    until: impl Future<Output = ()>,
    serve: impl FnMut(Channel),
) -> io::Result<()> {
    let session = Arc::new(Mutex::new(Session::new(Role::Serves)));
    Driver::new(stream, session).run(until, serve).await
}

#[cfg(test)]
mod tests;
