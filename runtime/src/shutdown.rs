//! Signals: the first SIGTERM or SIGINT asks for a drain, the second for an end at once.
//!
//! The main function of each process waits on [`Signals::next`] and decides what draining means; the end is always
//! [`crate::tasks::Tasks::shutdown`] with a deadline. It does not know what is drained.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Finish what is under way, then end.
    Drain,
    /// End now: somebody asked twice.
    Abort,
}

/// SIGTERM and SIGINT, from the moment of [`Signals::install`].
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    asked: bool,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT for the whole process; call it within a runtime, before serving.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            asked: false,
        })
    }

    /// Waits for the next signal. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        if std::mem::replace(&mut self.asked, true) { Signal::Abort } else { Signal::Drain }
    }
}
