//! What a client is written, in several parts at once, and how much of a body is read for one that takes it slowly.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use crate::buffer;

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
        self.0 = if at_once { self.0 * 2 } else { self.0 / 2 }.clamp(SLOWEST, buffer::PIECE);
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
    fn who_takes_nothing_makes_us_hold_little() {
        let mut pace = Pace::new();
        for (at_once, times, expected) in [(true, 9, buffer::PIECE), (false, 9, SLOWEST), (true, 1, 2 * SLOWEST)] {
            (0..times).for_each(|_| pace.went(at_once));
            assert_eq!(pace.bytes(), expected);
        }
    }
}
