//! Buffers of a worker: read into, written from, and given back. A connection that waits holds none.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::MAX_HEAD;

/// Room for the longest head. Large bodies go through in pieces of it; see `copy` for why not smaller.
const SIZE: usize = MAX_HEAD;
/// Kept of those that are not in use: a worker has one in use, and one more for each peer that takes its time.
const KEPT: usize = 4;

thread_local! {
    static UNUSED: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of this worker, with what was read into it.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Buffer {
    /// With nothing in it.
    pub(super) fn take() -> Self {
        let unused = UNUSED.with_borrow_mut(Vec::pop);
        Self { bytes: unused.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()), filled: 0 }
    }

    /// What was read.
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Forgets what was read up to here.
    pub(super) fn drop_front(&mut self, used: usize) {
        self.bytes.copy_within(used..self.filled, 0);
        self.filled -= used;
    }

    /// Reads more, up to `most` bytes in all; so many came, none at the end.
    pub(super) fn poll_read<T>(&mut self, from: &mut T, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>>
    where
        T: AsyncRead + Unpin,
    {
        let mut room = ReadBuf::new(&mut self.bytes[self.filled..most.clamp(self.filled, SIZE)]);
        ready!(Pin::new(from).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        self.filled += read;
        Poll::Ready(Ok(read))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // At the end of the thread there is nobody to keep it.
        let _ = UNUSED.try_with(|unused| {
            let mut unused = unused.borrow_mut();
            if unused.len() < KEPT {
                unused.push(bytes);
            }
        });
    }
}

/// How much is read at once of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace(usize);

/// What one who takes nothing makes us hold.
const SLOWEST: usize = 8 * 1024;

impl Pace {
    /// Of a client of which nothing is known.
    pub(super) fn new() -> Self {
        Self(2 * SLOWEST)
    }

    /// Bytes.
    pub(super) fn bytes(self) -> usize {
        self.0
    }

    /// The last piece went out at once, or had to wait.
    pub(super) fn went(&mut self, at_once: bool) {
        self.0 = if at_once { self.0 * 2 } else { self.0 / 2 }.clamp(SLOWEST, SIZE);
    }
}

/// Writes all of `parts`, one after the other, and flushes. Says whether it never had to wait.
pub(super) async fn write_all<T>(to: &mut T, mut parts: [&[u8]; 4]) -> io::Result<bool>
where
    T: AsyncWrite + Unpin,
{
    let mut at_once = true;
    std::future::poll_fn(|cx| {
        let written = poll_write_all(to, cx, &mut parts);
        at_once &= written.is_ready();
        written
    })
    .await?;
    Ok(at_once)
}

/// Goes on writing `parts`, of which what is left stays in them.
pub(super) fn poll_write_all<T>(to: &mut T, cx: &mut Context<'_>, parts: &mut [&[u8]; 4]) -> Poll<io::Result<()>>
where
    T: AsyncWrite + Unpin,
{
    loop {
        let mut left = parts.iter().filter(|part| !part.is_empty());
        let written = match (left.next(), left.next()) {
            (None, _) => return Pin::new(&mut *to).poll_flush(cx),
            (Some(last), None) => ready!(Pin::new(&mut *to).poll_write(cx, last))?,
            _ => ready!(Pin::new(&mut *to).poll_write_vectored(cx, &parts.map(IoSlice::new)))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        advance(parts, written);
    }
}

fn advance(parts: &mut [&[u8]; 4], mut written: usize) {
    for part in parts {
        let here = written.min(part.len());
        *part = &part[here..];
        written -= here;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn all_parts_are_written_in_order_to_one_who_takes_little_at_a_time() {
        let (mut near, mut far) = tokio::io::duplex(3);
        let write = async {
            let at_once = write_all(&mut near, [b"ab", b"", b"cdefgh", b"i"]).await.unwrap();
            drop(near);
            at_once
        };
        let mut read = String::new();
        let (at_once, _) = tokio::join!(write, far.read_to_string(&mut read));
        assert_eq!((read.as_str(), at_once), ("abcdefghi", false));
    }

    #[test]
    fn a_buffer_is_used_again_and_comes_back_empty() {
        let first = Buffer::take();
        let place = first.bytes.as_ptr();
        drop(first);
        let again = Buffer::take();
        assert_eq!((again.bytes.as_ptr(), again.filled()), (place, &b""[..]));
        let many: Vec<Buffer> = (0..2 * KEPT).map(|_| Buffer::take()).collect();
        drop(many);
        assert_eq!(UNUSED.with_borrow(Vec::len), KEPT);
    }

    #[test]
    fn who_takes_nothing_makes_us_hold_little() {
        let mut pace = Pace::new();
        for (at_once, times, expected) in [(true, 9, SIZE), (false, 9, SLOWEST), (true, 1, 2 * SLOWEST)] {
            (0..times).for_each(|_| pace.went(at_once));
            assert_eq!(pace.bytes(), expected);
        }
    }
}
