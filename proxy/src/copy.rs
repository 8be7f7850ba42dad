//! Copies bytes both ways until both sides have ended; half-close and errors arrive as they were sent.
//!
//! Reads go through a [`Buffer`] of the worker, so an idle connection holds no buffer at all; what a slow receiver does
//! not take at once is kept per connection, at most one buffer's worth per direction.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::buffer::{Buffer, PIECE};

/// Told of bytes as they are carried, so that counters of long connections move.
pub(crate) trait Meter {
    /// From the client to the server.
    fn client_sent(&self, bytes: u64);
    /// From the server to the client.
    fn server_sent(&self, bytes: u64);
}

/// Which side said first that it was done, of a connection that both have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    Client,
    Server,
}

/// Which side a connection broke on.
#[derive(Debug)]
pub(crate) enum CopyError {
    /// Reading from or writing to the client failed.
    Client(io::Error),
    /// Reading from or writing to the server failed.
    Server(io::Error),
}

/// Copies until both directions ended; says which ended first. On an error the caller aborts both streams, so that nobody takes it for an end.
pub(crate) async fn bidirectional<C, S>(client: &mut C, server: &mut S, meter: &impl Meter) -> Result<First, CopyError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Half::default(), Half::default());
    let mut first = None;
    std::future::poll_fn(|cx| {
        let there = up.poll(cx, client, server, |n| meter.client_sent(n)).map_err(|error| match error {
            HalfError::Read(error) => CopyError::Client(error),
            HalfError::Write(error) => CopyError::Server(error),
        })?;
        let back = down.poll(cx, server, client, |n| meter.server_sent(n)).map_err(|error| match error {
            HalfError::Read(error) => CopyError::Server(error),
            HalfError::Write(error) => CopyError::Client(error),
        })?;
        if first.is_none() && (up.is_over() || down.is_over()) {
            first = Some(if up.is_over() { First::Client } else { First::Server });
        }
        if there.is_ready() && back.is_ready() {
            Poll::Ready(Ok(first.unwrap_or(First::Client)))
        } else {
            Poll::Pending
        }
    })
    .await
}

enum HalfError {
    Read(io::Error),
    Write(io::Error),
}

/// One direction.
#[derive(Default)]
struct Half {
    /// Read and not yet taken by the writer.
    rest: Bytes,
    unflushed: bool,
    state: State,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Copying,
    Ending,
    Ended,
}

/// Reads before a direction lets the other one, and other tasks, have their turn.
const TURNS: usize = 16;

impl Half {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        count: impl Fn(u64),
    ) -> Poll<Result<(), HalfError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..TURNS {
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(self.poll_rest(cx, writer))?;
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx)).or_else(already_gone).map_err(HalfError::Write)?;
                    self.state = State::Ended;
                }
                State::Copying => {
                    ready!(self.poll_rest(cx, writer))?;
                    match self.poll_once(cx, reader, writer) {
                        Poll::Ready(Ok(0)) => self.state = State::Ending,
                        Poll::Ready(Ok(n)) => count(n as u64),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            if self.unflushed {
                                ready!(Pin::new(&mut *writer).poll_flush(cx)).map_err(HalfError::Write)?;
                                self.unflushed = false;
                            }
                            return Poll::Pending;
                        }
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether its reader has said that it was done.
    fn is_over(&self) -> bool {
        self.state != State::Copying
    }

    /// Reads once and writes what the writer takes at once. Returns how much was read.
    fn poll_once<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<usize, HalfError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = Buffer::take();
        let total = ready!(buffer.poll_read(reader, cx, PIECE)).map_err(HalfError::Read)?;
        let mut bytes = buffer.filled();
        while !bytes.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(HalfError::Write(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(n)) => {
                    bytes = &bytes[n..];
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(HalfError::Write(error))),
                Poll::Pending => {
                    self.rest = Bytes::copy_from_slice(bytes);
                    break;
                }
            }
        }
        Poll::Ready(Ok(total))
    }

    fn poll_rest<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<Result<(), HalfError>> {
        while !self.rest.is_empty() {
            match ready!(Pin::new(&mut *writer).poll_write(cx, &self.rest)).map_err(HalfError::Write)? {
                0 => return Poll::Ready(Err(HalfError::Write(io::ErrorKind::WriteZero.into()))),
                n => {
                    self.rest.advance(n);
                    self.unflushed = true;
                }
            }
        }
        self.rest = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

/// Ending a direction whose receiver has already closed both is not worth an error: it asked for no more.
fn already_gone(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[derive(Default)]
    struct Counts(Cell<u64>, Cell<u64>);

    impl Meter for Counts {
        fn client_sent(&self, bytes: u64) {
            self.0.set(self.0.get() + bytes);
        }
        fn server_sent(&self, bytes: u64) {
            self.1.set(self.1.get() + bytes);
        }
    }

    #[tokio::test]
    async fn each_direction_ends_on_its_own_and_every_byte_is_counted() {
        let (mut client, mut near) = tokio::io::duplex(7);
        let (mut far, mut server) = tokio::io::duplex(5);
        let counts = Counts::default();
        let sent: Vec<u8> = (0..200_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let talk_client = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let talk_server = async {
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            // Only after the client's end: the way back must still be open.
            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
            received
        };
        let (result, answer, received) =
            tokio::join!(bidirectional(&mut near, &mut far, &counts), talk_client, talk_server);
        assert_eq!(result.unwrap(), First::Client);
        assert_eq!((answer.as_slice(), received == sent), (&b"answer"[..], true));
        assert_eq!((counts.0.get(), counts.1.get()), (200_000, 6));
    }
}
