//! Whose doing the end of a connection was, and the last ones of a worker.
//!
//! The paths say which end it came from and how ([`Cause`]); here that becomes a name for people ([`By`]). Knows no sockets.

use std::{collections::VecDeque, io};

use mesh_proto::{admin, outcome::Outcome, tap::Direction};
use tokio::time::Instant;

use crate::{
    copy::{CopyError, First},
    detect::sniff::Heard,
    error::ProxyError,
};

/// Kept per worker. An entry is some 300 bytes.
const KEPT: usize = 500;

/// Which end it came from, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// From whoever opened it.
    Client(How),
    /// From whoever it went to.
    Server(How),
    /// From this proxy.
    Us(Why),
}

/// How somebody else ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Said that it was done.
    End,
    /// By a reset.
    Reset,
    /// TLS without its end.
    Cut,
    /// Not there any more: the kernel gave up.
    Timeout,
    /// By what nobody can make sense of.
    Broken,
}

/// Why this proxy ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It failed, or was refused.
    Failed(Outcome),
    /// HTTP was over: one side had asked for no more requests on it, or its version has no more.
    Done,
    /// The pod ends, and it had nothing to carry.
    Drain,
    /// The pod ended, and it still had something to carry.
    DrainOver,
    /// The client of HTTP/2 did not answer pings.
    NoPing,
}

/// Who ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    App,
    PeerProxy,
    PeerApp,
    Us,
}

/// What the name of whoever ended it depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) direction: Direction,
    /// Mutual TLS with the peer's proxy.
    pub(crate) tls: bool,
    /// HTTP is ended hop by hop; the end of bytes is passed on.
    pub(crate) http: bool,
}

impl Cause {
    /// Of a client that has said nothing, on a port where it has to.
    pub(crate) fn of_silence(heard: Heard) -> Self {
        match heard {
            Heard::Unfinished => Self::Us(Why::Failed(Outcome::HeadTimeout)),
            Heard::End | Heard::Protocol(_) => Self::Client(How::End),
        }
    }

    /// Of how bytes came to their end.
    pub(crate) fn of_copy(result: &Result<First, CopyError>) -> Self {
        match result {
            Ok(First::Client) => Self::Client(How::End),
            Ok(First::Server) => Self::Server(How::End),
            Err(CopyError::Server(error)) => Self::Server(How::of(error)),
            Err(CopyError::Client(error)) => {
                // A stream of ours may refuse to read on.
                let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<ProxyError>());
                refused.map_or_else(|| Self::Client(How::of(error)), |error| Self::Us(Why::Failed(error.outcome)))
            }
        }
    }

    /// Who it was: seen from the pod, of which the application is one end and the peer the other.
    pub(crate) fn by(self, seen: Seen) -> By {
        let (how, is_app) = match self {
            Self::Us(_) => return By::Us,
            Self::Client(how) => (how, seen.direction == Direction::Outbound),
            Self::Server(how) => (how, seen.direction == Direction::Inbound),
        };
        match how {
            _ if is_app => By::App,
            _ if !seen.tls => By::PeerApp,
            // Its proxy passed on what its application said.
            How::End if !seen.http => By::PeerApp,
            _ => By::PeerProxy,
        }
    }

    /// Label value.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Client(how) | Self::Server(how) => match how {
                How::End => "end",
                How::Reset => "reset",
                How::Cut => "cut",
                How::Timeout => "timeout",
                How::Broken => "broken",
            },
            Self::Us(why) => match why {
                Why::Failed(outcome) => outcome.code(),
                Why::Done => "done",
                Why::Drain => "drain",
                Why::DrainOver => "drain-over",
                Why::NoPing => "no-ping",
            },
        }
    }
}

impl How {
    /// From what reading or writing came back with.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                Self::Reset
            }
            io::ErrorKind::UnexpectedEof => Self::Cut,
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Self::Timeout
            }
            _ => Self::Broken,
        }
    }
}

impl By {
    /// Label value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::PeerProxy => "peer-proxy",
            Self::PeerApp => "peer-app",
            Self::Us => "us",
        }
    }
}

/// The connections that ended last.
#[derive(Default)]
pub(super) struct Ring {
    kept: VecDeque<Ended>,
    forgotten: u64,
}

/// One of them, as little of it as there is.
pub(super) struct Ended {
    pub(super) at: Instant,
    pub(super) connection: super::Facts,
    pub(super) by: By,
    pub(super) cause: Cause,
}

impl Ring {
    pub(super) fn push(&mut self, ended: Ended) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
            self.forgotten += 1;
        }
        self.kept.push_back(ended);
    }

    /// Latest first, and how many there were before.
    pub(super) fn show(&self, now: Instant) -> (Vec<admin::Closed>, u64) {
        let closed = self.kept.iter().rev().map(|ended| admin::Closed {
            connection: ended.connection.show(ended.at),
            by: ended.by.as_str().to_owned(),
            reason: ended.cause.reason().to_owned(),
            closed_seconds: now.saturating_duration_since(ended.at).as_secs_f64(),
        });
        (closed.collect(), self.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_a_name_seen_from_the_pod() {
        let (inbound, outbound) = (Direction::Inbound, Direction::Outbound);
        let (client, server) = (Cause::Client as fn(How) -> Cause, Cause::Server as fn(How) -> Cause);
        for (direction, tls, http, cause, by) in [
            (outbound, true, false, client(How::End), "app"),
            (outbound, true, true, client(How::Reset), "app"),
            // What its proxy passed on, and what it did itself.
            (outbound, true, false, server(How::End), "peer-app"),
            (outbound, true, false, server(How::Cut), "peer-proxy"),
            (outbound, false, false, server(How::Reset), "peer-app"),
            (inbound, true, false, server(How::Reset), "app"),
            (inbound, true, false, client(How::End), "peer-app"),
            (inbound, true, false, client(How::Reset), "peer-proxy"),
            // Requests come on connections that are the proxy's own.
            (inbound, true, true, client(How::End), "peer-proxy"),
            (inbound, false, true, client(How::End), "peer-app"),
            (inbound, true, true, Cause::Us(Why::Drain), "us"),
        ] {
            let seen = Seen { direction, tls, http };
            assert_eq!(cause.by(seen).as_str(), by, "{cause:?} {seen:?}");
        }
    }

    #[test]
    fn reasons_of_our_own_are_no_codes() {
        for why in [Why::Done, Why::Drain, Why::DrainOver, Why::NoPing] {
            assert_eq!(Outcome::from_code(Cause::Us(why).reason()), None, "{why:?}");
        }
    }
}
