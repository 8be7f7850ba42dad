//! One stream of bytes of no protocol, as fast as it goes. The receiver compares every byte and says at the end how many came.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::Instant;

use super::client::{PATIENCE, WARM_UP};

/// After so many bytes they begin again.
const PERIOD: usize = 64 << 10;
/// Of every write.
const WRITE: usize = 2 * PERIOD;

/// Long enough that any place in the stream and the longest read from it are a part of this.
pub(super) fn pattern() -> Vec<u8> {
    // No byte of it begins HTTP, TLS or another protocol that a proxy would look for.
    let period: Vec<u8> =
        (0..PERIOD).map(|place| 0x80 | u8::try_from((place * 7 + place / 128) % 128).unwrap_or_default()).collect();
    period.repeat(super::socket::READ / PERIOD + 1)
}

/// The receiver's side.
#[derive(Debug, Default)]
pub(super) struct Counted(u64);

impl Counted {
    pub(super) fn read(&mut self, bytes: &[u8], pattern: &[u8]) -> anyhow::Result<()> {
        let place = usize::try_from(self.0 % PERIOD as u64)?;
        anyhow::ensure!(pattern.get(place..place + bytes.len()) == Some(bytes), "other bytes than were sent");
        self.0 += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn total(&self) -> u64 {
        self.0
    }
}

/// What went through.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
    pub(crate) cpu: Duration,
}

/// Sends from the network of the calling thread. `cpu` is asked at the beginning and at the end of the measured time.
pub(crate) fn run(to: SocketAddr, time: Duration, cpu: impl Fn() -> anyhow::Result<Duration>) -> anyhow::Result<Sent> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connect to {to}"))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let pattern = pattern();
    let mut send = |until: Instant| {
        let mut sent = 0;
        while Instant::now() < until {
            stream.write_all(&pattern[..WRITE]).context("send")?;
            sent += WRITE as u64;
        }
        anyhow::Ok(sent)
    };
    let before = send(Instant::now() + WARM_UP)?;
    let (begun, used) = (Instant::now(), cpu()?);
    let bytes = send(begun + time)?;
    let (time, cpu) = (begun.elapsed(), cpu()?.saturating_sub(used));
    stream.shutdown(Shutdown::Write)?;
    let mut received = [0; 8];
    stream.read_exact(&mut received).context("read how much came")?;
    let received = u64::from_be_bytes(received);
    anyhow::ensure!(received == before + bytes, "{received} bytes came of {} that were sent", before + bytes);
    Ok(Sent { bytes, time, cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_in_whatever_pieces_they_come_and_a_wrong_one_is_an_error() {
        let pattern = pattern();
        let stream = pattern[..PERIOD].repeat(5);
        for size in [1000, PERIOD - 1, PERIOD, PERIOD + 1, 3 * PERIOD] {
            let mut counted = Counted::default();
            stream.chunks(size).for_each(|piece| counted.read(piece, &pattern).unwrap());
            assert_eq!(counted.total(), stream.len() as u64);
            assert!(counted.read(b"x", &pattern).is_err());
        }
    }
}
