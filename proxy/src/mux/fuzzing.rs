//! One end of a connection with channels, without the connection: for the fuzz target, which is the peer, and the users of channels.

use std::{
    io::IoSlice,
    sync::Arc,
    task::{Context, Waker},
};

use parking_lot::Mutex;
use tokio::io::ReadBuf;

use super::{
    Carries, MAX_CHANNELS, WINDOW,
    channel::Channel,
    frame::{Frame, MOST},
    session::{FLOOD, MOST_SLOTS, Role, SPARE, Session},
};

/// What users of channels may do; which channel is meant: any of them.
#[derive(Debug, Clone, Copy)]
pub enum Does {
    /// Opens one, where this end may.
    Open,
    /// Reads up to so many bytes.
    Read(usize),
    /// Writes so many bytes.
    Write(usize),
    /// Says the end.
    End,
    /// Drops it.
    GiveUp,
    /// Refuses it.
    Refuse,
    /// Keeps it, and takes it up again.
    Keep,
    /// Asks for the end of the connection.
    Leave,
}

/// One end.
pub struct Trial {
    session: Arc<Mutex<Session>>,
    channels: Vec<(u32, Channel)>,
}

impl Trial {
    /// The end that opens channels, or the one that serves them.
    pub fn new(opens: bool) -> Self {
        let role = if opens { Role::Opens } else { Role::Serves };
        Self { session: Arc::new(Mutex::new(Session::new(role))), channels: Vec::new() }
    }

    /// A channel that the peer has opened, and the peer.
    pub(crate) fn with_channel(carries: Carries) -> (Self, Channel) {
        let (mut trial, mut said) = (Self::new(false), Vec::new());
        Frame::Hello { window: WINDOW, channels: MAX_CHANNELS }.put(&mut said);
        Frame::Open(1, carries as u8).put(&mut said);
        assert!(trial.hear(&said));
        let (_, channel) = trial.channels.pop().expect("it was opened");
        (trial, channel)
    }

    /// The peer says this on that channel, of which all was read.
    pub(crate) fn hear_data(&mut self, bytes: &[u8]) {
        let mut said = Vec::new();
        Frame::Data(1, bytes).put(&mut said);
        assert!(self.hear(&said));
        self.written();
    }

    /// The peer says this. False: it has broken the rules, and the connection is over.
    pub fn hear(&mut self, bytes: &[u8]) -> bool {
        if self.session.lock().is_flooded() {
            return true;
        }
        let heard = self.session.lock().receive(bytes).is_ok();
        let opened = self.session.lock().take_opened();
        self.channels
            .extend(opened.into_iter().map(|(id, carries)| (id, Channel::new(Arc::clone(&self.session), id, carries))));
        if !heard {
            self.session.lock().end(std::io::ErrorKind::InvalidData);
        }
        heard
    }

    /// A user of a channel does something.
    pub fn act(&mut self, which: usize, does: Does) {
        let mut session = self.session.lock();
        match does {
            Does::Open => {
                let opened = session.open(Carries::Http1);
                drop(session);
                self.channels
                    .extend(opened.map(|id| (id, Channel::new(Arc::clone(&self.session), id, Carries::Http1))));
                return;
            }
            Does::Leave => return session.leave(),
            _ => {}
        }
        if self.channels.is_empty() {
            return;
        }
        let place = which % self.channels.len();
        let (id, mut nobody) = (self.channels[place].0, Context::from_waker(Waker::noop()));
        match does {
            Does::Read(most) => {
                let _ = session.poll_read(id, &mut nobody, &mut ReadBuf::new(&mut vec![0; most]));
            }
            Does::Write(len) => {
                let _ = session.poll_write(id, &mut nobody, &[IoSlice::new(&vec![0; len])]);
            }
            Does::End => session.say_end(id),
            Does::Keep => {
                let _ = session.rest(id, true) && session.rest(id, false);
            }
            Does::GiveUp | Does::Refuse => {
                drop(session);
                let (_, channel) = self.channels.swap_remove(place);
                if matches!(does, Does::Refuse) {
                    channel.refuse();
                }
            }
            Does::Open | Does::Leave => {}
        }
    }

    /// What there is to be written, taken.
    pub fn written(&mut self) -> Vec<u8> {
        let mut written = Vec::new();
        self.session.lock().poll_out(&mut written, &Context::from_waker(Waker::noop()));
        written
    }

    /// Whether what is held is within what it may be, after at most `heard` bytes at once.
    pub fn is_bounded(&self, heard: usize) -> bool {
        let session = self.session.lock();
        let (inboxes, out) = session.held();
        let most_channels = MOST_SLOTS + MAX_CHANNELS as usize;
        // Of all that a user can be made to say at once, a reset is the longest to a byte heard.
        inboxes <= 2 * (most_channels * WINDOW as usize + SPARE as usize)
            && out <= FLOOD + MOST + 2 * heard + 64 * most_channels
    }

    /// Whether every channel is forgotten once its users are gone and the connection is over.
    pub fn ends(mut self) -> bool {
        self.session.lock().end(std::io::ErrorKind::ConnectionReset);
        self.channels.clear();
        let session = self.session.lock();
        session.is_unused() && !session.is_open()
    }
}
