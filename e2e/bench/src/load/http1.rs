//! HTTP/1.1 as the load speaks it: a request without a body, an answer with a length.

use anyhow::Context as _;
use memchr::memmem;

/// Longest head that is read.
const MAX_HEAD: usize = 16 << 10;

/// A request for `length` bytes.
pub(crate) fn request(length: usize) -> Vec<u8> {
    format!("GET /{length} HTTP/1.1\r\nhost: web.shop\r\nuser-agent: mesh-bench\r\naccept: */*\r\n\r\n").into_bytes()
}

/// The answer to it.
pub(super) fn answer(payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

/// What requests of one connection have come, with how many bytes each asks for.
#[derive(Debug, Default)]
pub(super) struct Requests(Vec<u8>);

impl Requests {
    /// Reads on; calls `ask` for each request.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut ask: impl FnMut(usize)) -> anyhow::Result<()> {
        if !self.0.is_empty() {
            self.0.extend_from_slice(bytes);
            let all = std::mem::take(&mut self.0);
            return self.read(&all, ask);
        }
        while let Some(end) = memmem::find(bytes, b"\r\n\r\n") {
            let length = bytes[..end].strip_prefix(b"GET /").and_then(number);
            ask(length.context("a request that the client did not send")?);
            bytes = &bytes[end + 4..];
        }
        anyhow::ensure!(bytes.len() <= MAX_HEAD, "a head without an end");
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// The answers of one connection, one after the other, each compared with what was asked for.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    payload: &'a [u8],
    head: Vec<u8>,
    /// Bytes of the payload that have come, once the head has.
    body: Option<usize>,
}

impl<'a> Answers<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { payload, head: Vec::new(), body: None }
    }

    /// Reads on: how many answers have come to their end.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> anyhow::Result<usize> {
        let mut answers = 0;
        while !bytes.is_empty() {
            let Some(have) = self.body else {
                bytes = self.read_head(bytes)?;
                continue;
            };
            let part = bytes.len().min(self.payload.len() - have);
            anyhow::ensure!(bytes[..part] == self.payload[have..have + part], "another body than the server sent");
            bytes = &bytes[part..];
            self.body = Some(have + part);
            if have + part == self.payload.len() {
                self.body = None;
                answers += 1;
            }
        }
        Ok(answers)
    }

    /// Reads on in a head, and says what is behind it.
    fn read_head<'b>(&mut self, bytes: &'b [u8]) -> anyhow::Result<&'b [u8]> {
        let rest = if self.head.is_empty()
            && let Some(end) = memmem::find(bytes, b"\r\n\r\n")
        {
            self.begin(&bytes[..end])?;
            &bytes[end + 4..]
        } else {
            // In pieces, which happens rarely.
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            anyhow::ensure!(before <= MAX_HEAD, "a head without an end");
            let Some(end) = memmem::find(&self.head, b"\r\n\r\n") else { return Ok(&[]) };
            let head = std::mem::take(&mut self.head);
            self.begin(&head[..end])?;
            &bytes[end + 4 - before..]
        };
        Ok(rest)
    }

    fn begin(&mut self, head: &[u8]) -> anyhow::Result<()> {
        let text = || String::from_utf8_lossy(head).into_owned();
        anyhow::ensure!(head.starts_with(b"HTTP/1.1 200 "), "an answer of someone else: {}", text());
        let length = head.split(|byte| *byte == b'\n').find_map(|line| {
            let (name, value) = line.split_at_checked(b"content-length:".len())?;
            name.eq_ignore_ascii_case(b"content-length:").then(|| number(value.trim_ascii_start()))?
        });
        anyhow::ensure!(length == Some(self.payload.len()), "an answer of another length: {}", text());
        self.body = Some(0);
        Ok(())
    }
}

/// The number at the beginning.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::payload;

    #[test]
    fn answers_are_read_in_whatever_pieces_they_come() {
        let payload = payload(300);
        let stream = [answer(&payload), answer(&payload), answer(&payload)].concat();
        for size in [1, 2, 3, 7, 90, 91, 299, 400, stream.len()] {
            let mut answers = Answers::new(&payload);
            let read: usize = stream.chunks(size).map(|piece| answers.read(piece).unwrap()).sum();
            assert_eq!(read, 3, "pieces of {size}");
        }
    }

    #[test]
    fn an_answer_that_is_not_the_servers_is_an_error() {
        let good = payload(300);
        let mut changed = answer(&good);
        *changed.last_mut().unwrap() = b'!';
        let refused = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 300\r\n\r\n".to_vec();
        for wrong in [changed, refused, answer(&payload(299))] {
            assert!(Answers::new(&good).read(&wrong).is_err());
        }
    }

    #[test]
    fn requests_are_read_in_whatever_pieces_they_come() {
        let stream = [request(1024), request(7), request(65536)].concat();
        for size in [1, 2, 3, 50, 99, stream.len()] {
            let (mut requests, mut asked) = (Requests::default(), Vec::new());
            for piece in stream.chunks(size) {
                requests.read(piece, |length| asked.push(length)).unwrap();
            }
            assert_eq!(asked, [1024, 7, 65536], "pieces of {size}");
        }
    }
}
