//! Buffers of a worker: read into, written from, and given back. A connection that waits holds none. Used by `copy` and by the direct
//! way of HTTP/1.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use crate::http::MAX_HEAD;

/// Room for the longest head of HTTP.
const SIZE: usize = MAX_HEAD;
/// Most that is read at once of what goes through in pieces: measured, 16 KiB costs a third more processor time, and 256 KiB buys
/// nothing (design §10). Less than a packet's 64 KiB of Linux by what TLS, and whole segments of any usual MTU, take of it: of 64 KiB
/// each write became a packet and a crumb, 28,500 a GB in place of 15,000, and a tenth more processor time.
pub(crate) const PIECE: usize = 60 * 1024;
/// Kept of those that are not in use: a worker has one in use, and one more for each peer that takes its time.
const KEPT: usize = 4;

thread_local! {
    static UNUSED: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of this worker, with what was read into it.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Buffer {
    /// With nothing in it.
    pub(crate) fn take() -> Self {
        let unused = UNUSED.with_borrow_mut(Vec::pop);
        Self { bytes: unused.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()), filled: 0 }
    }

    /// What was read.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Forgets what was read up to here.
    pub(crate) fn drop_front(&mut self, used: usize) {
        self.bytes.copy_within(used..self.filled, 0);
        self.filled -= used;
    }

    /// Reads more, up to `most` bytes in all; so many came, none at the end.
    pub(crate) fn poll_read<T>(&mut self, from: &mut T, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>>
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

/// Reads what comes next into `begun`, up to `most` bytes in all, or into a buffer of its own, and says how much came: none at the end. None
/// of it where `until` is ready first.
pub(crate) async fn read<T: AsyncRead + Unpin>(
    from: &mut T,
    mut begun: Option<Buffer>,
    most: usize,
    mut until: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Option<io::Result<(usize, Buffer)>> {
    poll_fn(|cx| {
        let mut buffer = begun.take().unwrap_or_else(Buffer::take);
        match buffer.poll_read(from, cx, most) {
            Poll::Ready(result) => Poll::Ready(Some(result.map(|n| (n, buffer)))),
            Poll::Pending => {
                // An empty one is given back while nothing comes.
                begun = Some(buffer).filter(|buffer| !buffer.filled().is_empty());
                until(cx).map(|()| None)
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
