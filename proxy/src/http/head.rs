//! One HTTP/1 request head, read strictly: whether it may be forwarded, and how its body is framed (RFC 9112).
//!
//! Pure; `framing` and `direct` call it. Two programs that read the same bytes differently are how requests are smuggled, so that what
//! RFC 9112 lets a server mend (a bare LF, a length given twice, a length beside chunks) is refused here, like what it forbids.
//! What passes is what hyper reads the same way; see the test that compares the two.

use mesh_proto::outcome::Outcome;

use super::{MAX_HEAD, MAX_HEADERS};

/// What the beginning of some bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Not all there yet. Nothing before `searched` need be looked at again to find its end.
    Unfinished {
        /// Where its last, unfinished line begins.
        searched: usize,
    },
    /// A head of so many bytes.
    Whole {
        /// With the empty line at its end.
        len: usize,
        /// What follows.
        body: Body,
    },
    /// Not one.
    Refused(Refusal),
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks and trailers.
    Chunked,
    /// Nothing, and then another protocol if the server agrees to it.
    Upgrade,
}

/// Why a head is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Refusal {
    RequestLine,
    Method,
    Target,
    Version,
    BareLf,
    Fold,
    FieldName,
    FieldValue,
    TwoLengths,
    LengthAndChunks,
    Length,
    Coding,
    CodingInHttp10,
    Chunk,
    TooLong,
    TooMany,
    TooSlow,
}

impl Refusal {
    const ALL: [Self; 17] = [
        Self::RequestLine,
        Self::Method,
        Self::Target,
        Self::Version,
        Self::BareLf,
        Self::Fold,
        Self::FieldName,
        Self::FieldValue,
        Self::TwoLengths,
        Self::LengthAndChunks,
        Self::Length,
        Self::Coding,
        Self::CodingInHttp10,
        Self::Chunk,
        Self::TooLong,
        Self::TooMany,
        Self::TooSlow,
    ];

    /// The refusal with this number (its place in the enum).
    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// What the client is told.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::TooLong | Self::TooMany => Outcome::HeadTooLarge,
            Self::TooSlow => Outcome::HeadTimeout,
            _ => Outcome::BadRequest,
        }
    }

    /// What exactly is wrong, for the log.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::RequestLine => "the request line is not METHOD SP TARGET SP VERSION",
            Self::Method => "the method is no token",
            Self::Target => "the request's target is no URI",
            Self::Version => "the version is neither HTTP/1.1 nor HTTP/1.0",
            Self::BareLf => "a line of the head ends in LF alone",
            Self::Fold => "a header is folded over two lines",
            Self::FieldName => "a header's name is no token followed by a colon",
            Self::FieldValue => "a header's value contains a control character",
            Self::TwoLengths => "more than one Content-Length",
            Self::LengthAndChunks => "both Content-Length and Transfer-Encoding",
            Self::Length => "Content-Length is no number of bytes",
            Self::Coding => "a Transfer-Encoding other than chunked",
            Self::CodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::Chunk => "a chunk or trailer is malformed",
            Self::TooLong => "the head is longer than 64 KiB",
            Self::TooMany => "more than 100 headers",
            Self::TooSlow => "the head began, and did not come to its end in time",
        }
    }
}

/// Reads the head at the beginning of `bytes`. `searched` is where an earlier look at fewer of the same bytes got to.
pub(super) fn read(bytes: &[u8], searched: usize) -> Head {
    match find_end(bytes, searched) {
        Ok(Ok(len)) if len > MAX_HEAD => Head::Refused(Refusal::TooLong),
        Ok(Ok(len)) => match walk(&bytes[..len], &mut ()) {
            Ok(body) => Head::Whole { len, body },
            Err(refusal) => Head::Refused(refusal),
        },
        Ok(Err(_)) if bytes.len() >= MAX_HEAD => Head::Refused(Refusal::TooLong),
        Ok(Err(searched)) => Head::Unfinished { searched },
        Err(refusal) => Head::Refused(refusal),
    }
}

/// The end of the head, or where the unfinished line begins. Empty lines before the request line are skipped (RFC 9112 §2.2).
pub(super) fn find_end(bytes: &[u8], searched: usize) -> Result<Result<usize, usize>, Refusal> {
    let mut line = searched;
    let mut is_first = searched == 0;
    while let Some(length) = memchr::memchr(b'\n', &bytes[line..]) {
        if length == 0 || bytes[line + length - 1] != b'\r' {
            return Err(Refusal::BareLf);
        }
        let is_empty = length == 1;
        let next = line + length + 1;
        if is_empty && !is_first {
            return Ok(Ok(next));
        }
        is_first = is_first && is_empty;
        // An earlier look may have ended between empty lines; those are found again.
        line = next;
    }
    Ok(Err(if is_first { 0 } else { line }))
}

/// The first line of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) is_http11: bool,
    /// The target is a path, perhaps with a query, of which no URI parser may have an opinion of its own.
    pub(super) is_plain_path: bool,
}

/// Looks at the parts of a head on the way.
pub(super) trait Visit<'a> {
    /// Comes first.
    fn line(&mut self, line: Line<'a>);
    /// Value without the space around it.
    fn header(&mut self, name: &'a [u8], value: &'a [u8]);
}

impl<'a> Visit<'a> for () {
    fn line(&mut self, _: Line<'a>) {}
    fn header(&mut self, _: &'a [u8], _: &'a [u8]) {}
}

/// A whole head; `visitor` sees its parts, as long as nothing is wrong.
pub(super) fn walk<'a>(head: &'a [u8], visitor: &mut impl Visit<'a>) -> Result<Body, Refusal> {
    let mut lines = Lines(head);
    let mut first = lines.next().unwrap_or_default();
    while first.is_empty() {
        first = lines.next().ok_or(Refusal::RequestLine)?;
    }
    let first = request_line(first)?;
    let is_http11 = first.is_http11;
    visitor.line(first);
    let (mut count, mut length, mut two_lengths, mut chunked, mut upgrade) = (0, None, false, false, false);
    while let Some(line) = lines.next().filter(|line| !line.is_empty()) {
        count += 1;
        if count > MAX_HEADERS {
            return Err(Refusal::TooMany);
        }
        let (name, value) = field(line)?;
        visitor.header(name, value);
        // By length first: two comparisons for most headers.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let one_more = length.replace(content_length(value).ok_or(Refusal::Length)?).is_some();
                two_lengths |= one_more;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if !is_http11 {
                    return Err(Refusal::CodingInHttp10);
                }
                // Another coding, or the same twice, we would have to undo: hop by hop, it does not go on.
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::Coding);
                }
                chunked = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => upgrade = true,
            _ => {}
        }
    }
    match (length, chunked) {
        _ if two_lengths => Err(Refusal::TwoLengths),
        (Some(_), true) => Err(Refusal::LengthAndChunks),
        (None, true) => Ok(Body::Chunked),
        (None | Some(0), false) if upgrade => Ok(Body::Upgrade),
        (length, false) => Ok(Body::Length(length.unwrap_or(0))),
    }
}

fn request_line(line: &[u8]) -> Result<Line<'_>, Refusal> {
    let (method, rest) = split(line, b' ').ok_or(Refusal::RequestLine)?;
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(Refusal::Method);
    }
    let (target, version) = split(rest, b' ').ok_or(Refusal::RequestLine)?;
    let is_plain_path = target.first() == Some(&b'/') && target.iter().all(|byte| is_plain(*byte));
    if !is_plain_path && http::Uri::try_from(target).is_err() {
        return Err(Refusal::Target);
    }
    let is_http11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ if version.contains(&b' ') => return Err(Refusal::RequestLine),
        _ => return Err(Refusal::Version),
    };
    Ok(Line { method, target, is_http11, is_plain_path })
}

/// Name and value of a header.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::Fold);
    }
    let (name, value) = split(line, b':').ok_or(Refusal::FieldName)?;
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(Refusal::FieldName);
    }
    if !value.iter().all(|byte| is_value(*byte)) {
        return Err(Refusal::FieldValue);
    }
    Ok((name, value.trim_ascii()))
}

/// Digits alone: no sign, no list. Eighteen of them fit into 64 bits with room, and are more than anybody has.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    let is_length = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    is_length.then(|| value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// Request line of a head that was refused, where at least that is one, for whoever looks at what came.
pub(super) fn readable_line(bytes: &[u8]) -> Option<&[u8]> {
    const LONGEST: usize = 2 * 1024;
    let line = Lines(&bytes[..bytes.len().min(LONGEST)]).find(|line| !line.is_empty())?;
    request_line(line).is_ok().then_some(line)
}

/// Lines without their CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(b'\n', self.0)?;
        let (line, rest) = (&self.0[..end], &self.0[end + 1..]);
        self.0 = rest;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(at, bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// What a byte may be part of.
const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const PLAIN: u8 = 4;

const BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut b: u8 = 0;
    loop {
        let is_token = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        let is_value = b == b'\t' || (b >= b' ' && b != 0x7f);
        // Of a path or query, without what a URI parser may have an opinion about.
        let is_plain = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'/' | b'-'
                    | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'?'
                    | b'='
                    | b'&'
                    | b'+'
                    | b','
                    | b':'
                    | b';'
                    | b'@'
                    | b'!'
                    | b'$'
                    | b'('
                    | b')'
                    | b'*'
            );
        table[b as usize] = (if is_token { TOKEN } else { 0 })
            | (if is_value { VALUE } else { 0 })
            | (if is_plain { PLAIN } else { 0 });
        if b == u8::MAX {
            break table;
        }
        b += 1;
    }
};

/// Of a name.
pub(super) fn is_token(byte: u8) -> bool {
    BYTES[usize::from(byte)] & TOKEN != 0
}

/// Of a value.
pub(super) fn is_value(byte: u8) -> bool {
    BYTES[usize::from(byte)] & VALUE != 0
}

fn is_plain(byte: u8) -> bool {
    BYTES[usize::from(byte)] & PLAIN != 0
}

#[cfg(test)]
mod tests;
