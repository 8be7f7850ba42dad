//! A connection whose output may be more than the socket takes at once.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    os::fd::{AsFd, BorrowedFd},
};

/// Of every read. One buffer per thread, so it may be large.
pub(super) const READ: usize = 256 << 10;

/// The socket, and what it has not taken yet.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// From `sent` on it is to be sent.
    output: Vec<u8>,
    sent: usize,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, output: Vec::new(), sent: 0 })
    }

    /// What is to be sent next; [`Socket::flush`] sends it.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Sends what the socket takes. True where something is left for later.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(false)
    }

    /// What has come: none yet, or so many bytes at the beginning of `buffer`; zero of them is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.stream.read(buffer) {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
