//! Channels to one upstream: idle ones, connections that have room for more, and whether a request is better off on a connection
//! of its own. For requests of the direct way, and for [calls](crate::http::call).
//!
//! Calls share connections, whatever their length, as they do with HTTP/2. Of HTTP/1, where there are many at once, short requests and answers share a connection ([`mux`]). Long ones do not: a channel holds little that nobody has read
//! yet ([`mux::WINDOW`]), and what goes through it is copied twice more. How long an answer is nobody knows before; where more than
//! one in sixteen was long lately, the upstream's requests get connections of their own.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use futures_util::{
    FutureExt as _,
    future::{LocalBoxFuture, Shared},
};
use tokio::time::Instant;

use super::{Reach, Upstream, open};
use crate::{
    error::Result,
    mux::{self, Carries, Channel, Mux},
    stream::Stream,
    tls::Alpn,
    worker::Worker,
};

/// Idle channels kept per upstream and worker.
const MAX_IDLE: usize = 128;
/// Connections that requests share, per upstream and worker.
const MAX_SHARED: usize = 8;
/// A long answer weighs as much as so many short ones; from twice as many on, requests get connections of their own.
const LONG: u8 = 16;
const TOO_LONG: u8 = 2 * LONG;

/// That there were many requests at once is remembered for so many.
const REMEMBERED: u8 = 64;

/// Those of one upstream.
#[derive(Default)]
pub(super) struct SharedConnections {
    open: RefCell<Vec<Mux>>,
    /// By what they carry, those used last at the end.
    idle: [RefCell<Vec<(Channel, Instant)>>; 2],
    dialling: RefCell<Option<Dialling>>,
    /// The peer is of a release that does not know them.
    unknown: Cell<bool>,
    long: Cell<u8>,
    many: Cell<u8>,
}

/// An attempt to open one, for everybody who waits for it.
type Dialling = Shared<LocalBoxFuture<'static, Result<Dialled>>>;

#[derive(Clone)]
enum Dialled {
    Mux(Mux),
    /// The peer knows only connections for one request at a time. This one is for whoever comes first.
    Single(Rc<Cell<Option<Stream>>>),
}

impl Upstream {
    /// Whether a request with a body of so many bytes, of which none are waited for, is to share a connection with others: where there
    /// are so many at once. Asked once for each.
    pub(crate) fn shares(&self, from: u32, body: usize) -> bool {
        let many = &self.shared.many;
        many.set(if self.load.pending() >= from { REMEMBERED } else { many.get().saturating_sub(1) });
        let is_short = body <= mux::WINDOW as usize && self.shared.long.get() < TOO_LONG;
        many.get() > 0 && is_short && self.shares_calls()
    }

    /// Whether calls go by channels.
    pub(crate) fn shares_calls(&self) -> bool {
        matches!(self.reach, Reach::Mesh(_)) && !self.shared.unknown.get()
    }

    /// An answer had so many bytes.
    pub(crate) fn answered_with(&self, bytes: u64) {
        let long = &self.shared.long;
        if bytes > u64::from(mux::WINDOW) {
            // Not forgotten sooner than after as many short ones.
            long.set(long.get().saturating_add(LONG).min(TOO_LONG + LONG));
        } else if long.get() > 0 {
            long.set(long.get() - 1);
        }
    }

    /// A channel that is there, or for which there is room.
    pub(crate) fn take_channel(&self, carries: Carries) -> Option<Channel> {
        let mut idle = self.shared.idle[carries as usize].borrow_mut();
        while let Some((channel, _)) = idle.pop() {
            if channel.resume() {
                return Some(channel);
            }
            channel.say_end();
        }
        self.shared.open_channel(carries)
    }

    /// Keeps a channel for what comes next.
    pub(crate) fn put_channel(&self, channel: Channel) {
        let mut idle = self.shared.idle[channel.carries() as usize].borrow_mut();
        if idle.len() < MAX_IDLE && channel.rest() {
            idle.push((channel, Instant::now()));
        } else {
            channel.say_end();
        }
    }
}

impl SharedConnections {
    fn open_channel(&self, carries: Carries) -> Option<Channel> {
        let mut open = self.open.borrow_mut();
        open.retain(Mux::is_open);
        open.iter().find_map(|mux| mux.open(carries))
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Lets go of all of them.
    pub(super) fn close(&self) {
        for idle in &self.idle {
            idle.borrow_mut().drain(..).for_each(|(channel, _)| channel.say_end());
        }
        self.open.borrow_mut().drain(..).for_each(|mux| mux.retire());
    }

    /// Ends channels that were idle for too long, and connections without any. Whether anything is left.
    pub(super) fn sweep(&self, fresh: impl Fn(Instant) -> bool) -> bool {
        for idle in &self.idle {
            idle.borrow_mut().retain(|(channel, since)| {
                let stays = fresh(*since) && channel.rest();
                if !stays {
                    channel.say_end();
                }
                stays
            });
        }
        self.open.borrow_mut().retain(|mux| {
            let used = !mux.is_unused();
            if !used {
                mux.retire();
            }
            used && mux.is_open()
        });
        let mut dialling = self.dialling.borrow_mut();
        if dialling.as_ref().is_some_and(|attempt| attempt.strong_count() == Some(1)) {
            dialling.take();
        }
        !self.open.borrow().is_empty()
    }
}

/// Opens a channel where [`Upstream::take_channel`] has none. Those who need one at the same time wait for the same connection. None:
/// the peer knows no channels, or there are as many as there may be.
pub(crate) async fn open_channel(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    carries: Carries,
) -> Result<Option<Channel>> {
    let shared = &upstream.shared;
    // A peer that ends them as soon as they are there is not dialled without end.
    for _ in 0..MAX_SHARED {
        if shared.unknown.get() || shared.len() >= MAX_SHARED {
            break;
        }
        let attempt = shared.dialling.borrow().clone();
        let attempt = attempt.unwrap_or_else(|| {
            let attempt = dial(Rc::clone(worker), Rc::clone(upstream)).boxed_local().shared();
            *shared.dialling.borrow_mut() = Some(attempt.clone());
            attempt
        });
        match attempt.await? {
            // For the next request of HTTP/1.
            Dialled::Single(stream) => stream.take().into_iter().for_each(|stream| upstream.put_idle(stream)),
            // Others may have been quicker to take the room of what was opened: each turn opens one more.
            Dialled::Mux(mux) => {
                if let Some(channel) = mux.open(carries).or_else(|| shared.open_channel(carries)) {
                    return Ok(Some(channel));
                }
            }
        }
    }
    Ok(None)
}

async fn dial(worker: Rc<Worker>, upstream: Rc<Upstream>) -> Result<Dialled> {
    let opened = open(&worker, &upstream, Alpn::Mux).await;
    upstream.shared.dialling.borrow_mut().take();
    let stream = opened?;
    if stream.alpn() != Some(Alpn::Mux) {
        upstream.shared.unknown.set(true);
        return Ok(Dialled::Single(Rc::new(Cell::new(Some(stream)))));
    }
    let (mux, run) = Mux::dialled(stream);
    worker.tasks.spawn_local("mux upstream", run);
    upstream.shared.open.borrow_mut().push(mux.clone());
    Ok(Dialled::Mux(mux))
}
