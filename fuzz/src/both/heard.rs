//! What a client heard, such that two ways of passing on the same can be compared.

use crate::inbound::oracle::{Headers, sorted};

const MOST_HEADERS: usize = 256;

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heard {
    status: u16,
    reason: String,
    headers: Headers,
    body: Vec<u8>,
    /// It came to its end.
    is_whole: bool,
}

/// What one request comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// An answer of the server's.
    Answer(Heard),
    /// One of the proxy's: status and code.
    Error(u16, String),
    /// No answer that came to its end.
    Broken,
}

/// Whether two come to the same. Words of the status that cannot be read are left out or replaced, and mean nothing.
pub(super) fn same(one: &Ending, other: &Ending) -> bool {
    match (one, other) {
        (Ending::Answer(one), Ending::Answer(other)) => {
            let reasons = one.reason == other.reason || one.reason.is_empty() || other.reason.is_empty();
            let rest = |heard: &Heard| (heard.status, heard.headers.clone(), heard.body.clone(), heard.is_whole);
            reasons && rest(one) == rest(other)
        }
        _ => one == other,
    }
}

impl Ending {
    pub(super) fn of(bytes: &[u8], is_head: bool) -> Self {
        let Some((heard, len)) = Heard::first(bytes, is_head).filter(|(heard, _)| heard.is_whole) else {
            return Self::Broken;
        };
        assert!(len == bytes.len(), "more than one answer to one request: {:?}", String::from_utf8_lossy(bytes));
        match heard.value("mesh-error") {
            Some(code) => Self::Error(heard.status, String::from_utf8_lossy(code).into_owned()),
            None => Self::Answer(heard),
        }
    }
}

impl Heard {
    /// All answers on a connection.
    pub(super) fn all(mut bytes: &[u8]) -> Vec<Self> {
        let mut all = Vec::new();
        while let Some((heard, len)) = Self::first(bytes, false) {
            all.push(heard);
            bytes = &bytes[len..];
        }
        assert!(bytes.is_empty(), "the client was sent what is no answer: {:?}", String::from_utf8_lossy(bytes));
        all
    }

    /// The first answer, and how long it is.
    fn first(bytes: &[u8], is_head: bool) -> Option<(Self, usize)> {
        let mut room = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Response::new(&mut room);
        let len = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return None,
            Err(error) => {
                panic!("the client was sent what is no answer: {error}: {:?}", String::from_utf8_lossy(bytes))
            }
        };
        let rest = &bytes[len..];
        let mut heard = Self {
            status: parsed.code.unwrap_or_default(),
            reason: parsed.reason.unwrap_or_default().to_owned(),
            headers: sorted(parsed.headers),
            body: Vec::new(),
            is_whole: true,
        };
        // Whether the client was asked to send its body first is a matter of moments.
        if heard.status == 100 {
            return Self::first(rest, is_head).map(|(heard, more)| (heard, len + more));
        }
        let used = heard.read_body(rest, is_head);
        let is_304 = heard.status == 304;
        heard.headers.retain(|(name, _)| {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            // About the connection: hyper's way says its end in some places more, and keeps a TE, which means nothing here. The length
            // that the content of a 304 would have is true both with and without it (RFC 9110 §15.4.5).
            !(is("connection") || is("te") || (is_304 && is("content-length")))
        });
        // hyper writes the number anew, and so without the zeros that it began with.
        for (_, value) in heard.headers.iter_mut().filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            let zeros = value.iter().take_while(|digit| **digit == b'0').count();
            value.drain(..zeros.min(value.len().saturating_sub(1)));
        }
        Some((heard, len + used))
    }

    /// Of an answer that says that there is no request.
    pub(super) fn forget_what_is_wrong(&mut self) {
        if self.value("mesh-error").is_some() && matches!(self.status, 400 | 431) {
            self.status = 400;
            self.reason.clear();
            self.headers.clear();
            self.body.clear();
        }
    }

    fn value(&self, wanted: &str) -> Option<&[u8]> {
        let mut values = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let value = values.next().map(|(_, value)| &value[..]);
        assert!(values.next().is_none(), "{wanted} twice: {self:?}");
        value
    }

    /// Bytes of it.
    fn read_body(&mut self, rest: &[u8], is_head: bool) -> usize {
        let is_ours = self.value("mesh-error").is_some();
        // Which of several answers is one to a HEAD is told by the server; and of ours it follows from what comes next.
        let is_head = is_head
            || self.value("is-head").is_some()
            || (is_ours && (rest.is_empty() || rest.starts_with(b"HTTP/1.")));
        let length = self.value("content-length").map(|value| std::str::from_utf8(value).map(str::parse::<usize>));
        if is_head || matches!(self.status, 101 | 204 | 304) {
            return 0;
        }
        match (length, self.value("transfer-encoding")) {
            (Some(Ok(Ok(length))), None) => {
                let here = length.min(rest.len());
                (self.body, self.is_whole) = (rest[..here].to_vec(), here == length);
                here
            }
            (None, Some(b"chunked")) => self.read_chunks(rest),
            // Both ways give an answer to a client of HTTP/1.0 that ends with the connection; to one of HTTP/1.1, none does.
            (None, None) => {
                self.body = rest.to_vec();
                rest.len()
            }
            framing => panic!("an answer with more than one reading: {framing:?}: {self:?}"),
        }
    }

    /// Chunks, which may be cut in any way and have extensions.
    fn read_chunks(&mut self, rest: &[u8]) -> usize {
        let mut at = 0;
        self.is_whole = false;
        while let Some(end) = rest[at..].windows(2).position(|two| two == b"\r\n") {
            let line = String::from_utf8_lossy(&rest[at..at + end]).into_owned();
            at += end + 2;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("a chunk that is none: {line:?}"));
            if size == 0 {
                // No trailers: the client did not ask for them.
                self.is_whole = rest[at..].starts_with(b"\r\n");
                assert!(self.is_whole || rest.len() < at + 2, "trailers: {:?}", String::from_utf8_lossy(&rest[at..]));
                return (at + 2).min(rest.len());
            }
            let here = size.min(rest.len() - at);
            self.body.extend_from_slice(&rest[at..at + here]);
            at += here;
            match rest.get(at..at + 2) {
                Some(b"\r\n") => at += 2,
                Some(other) => panic!("after a chunk: {other:?}"),
                None => return rest.len(),
            }
        }
        rest.len()
    }
}
