//! Whether bytes are the beginning of an HTTP/1 request. Stricter than HTTP's grammar allows (upper-case methods, single
//! spaces), because Redis, SMTP and memcached begin with words, too.

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// A whole request line.
    Yes,
    /// So far it could be one.
    Unfinished,
    /// No request line.
    No,
}

/// Longest method that is believed; the longest registered one has 17 letters.
const MAX_METHOD: usize = 24;

/// Looks at `METHOD SP target SP HTTP/1.x CRLF`.
pub(super) fn request_line(bytes: &[u8]) -> Line {
    let Some(space) = bytes.iter().position(|byte| *byte == b' ') else {
        return unfinished_if(bytes.len() <= MAX_METHOD && bytes.iter().all(|byte| is_method(*byte)));
    };
    let (method, rest) = (&bytes[..space], &bytes[space + 1..]);
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(|byte| is_method(*byte)) {
        return Line::No;
    }
    let Some(space) = rest.iter().position(|byte| *byte == b' ') else {
        return unfinished_if(rest.iter().all(|byte| is_target(*byte)));
    };
    let (target, version) = (&rest[..space], &rest[space + 1..]);
    if target.is_empty() || !target.iter().all(|byte| is_target(*byte)) {
        return Line::No;
    }
    // A bare LF ends a line, too: hyper accepts it as RFC 9112 §2.2 allows.
    for ending in [&b"HTTP/1.1\r\n"[..], b"HTTP/1.0\r\n", b"HTTP/1.1\n", b"HTTP/1.0\n"] {
        if version.starts_with(ending) {
            return Line::Yes;
        }
        if ending.starts_with(version) {
            return Line::Unfinished;
        }
    }
    Line::No
}

fn unfinished_if(plausible: bool) -> Line {
    if plausible { Line::Unfinished } else { Line::No }
}

fn is_method(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-' || byte == b'_'
}

/// No control characters; bytes above ASCII are left to hyper to refuse.
fn is_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}
