//! The one form of a request's path that rules are compared with, and what has no such form.
//!
//! Programs differ over what some paths mean: one takes `/a/../b` for `/b`, another for itself; one decodes `%2F` before it
//! splits at slashes, another after. A rule decided by one reading and served by another is how rules are got past, so that a
//! path with more than one reading is no path that a rule can decide: [`plain`] says why. The rest is brought into one form for
//! the comparison only; what goes on to the application are the client's own bytes, over which, with one reading, nobody can
//! differ, and of which signatures (AWS, OAuth) stay right.
//!
//! Used by [`outbound`](crate::outbound) for requests, and by the controller for the paths that people write into routes.

use std::borrow::Cow;

/// Why a path has more than one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguous {
    /// `a`, `http://…`: HTTP/2 can carry such a path.
    #[error("does not begin with /")]
    NotAbsolute,
    /// `/a//b`, which some take for `/a/b`.
    #[error("has an empty segment (//)")]
    EmptySegment,
    /// `/a/./b`, `/a/%2e%2e/b`, and `/a/..;x/b`, which some take for the segment before.
    #[error("has a segment that is . or ..")]
    DotSegment,
    /// `\`, `%5C`, `%2F`: a slash to some.
    #[error("has a backslash, or an escaped slash or backslash (\\, %5C, %2F)")]
    HiddenSlash,
    /// NUL, a line end and the like, escaped or not: the end of the path to some.
    #[error("has a control character")]
    Control,
    /// `%`, `%4`, `%zz`: some leave it, some drop it.
    #[error("has a % that is not followed by two hexadecimal digits")]
    Escape,
}

/// The one form of `path` (no query): an escape of a character that may stand there as it is, is that character; the digits of
/// the others are upper case. `*`, of OPTIONS, is itself.
pub fn plain(path: &str) -> Result<Cow<'_, str>, Ambiguous> {
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(Ambiguous::NotAbsolute);
    }
    let path = if path.contains('%') { Cow::Owned(unescaped(path)?) } else { Cow::Borrowed(path) };
    for byte in path.bytes() {
        match byte {
            b'\\' => return Err(Ambiguous::HiddenSlash),
            _ if byte.is_ascii_control() => return Err(Ambiguous::Control),
            _ => {}
        }
    }
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        // What follows a semicolon are parameters to some (Java servlets), which they take out first.
        let name = segment.split(';').next().unwrap_or_default();
        match name {
            "." | ".." => return Err(Ambiguous::DotSegment),
            // The last may be empty: the path ends in a slash.
            "" if segments.peek().is_some() => return Err(Ambiguous::EmptySegment),
            _ => {}
        }
    }
    Ok(path)
}

fn unescaped(path: &str) -> Result<String, Ambiguous> {
    let mut parts = path.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escaped = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let digits = escaped.ok_or(Ambiguous::Escape)?;
        let byte = u8::from_str_radix(digits, 16).map_err(|_| Ambiguous::Escape)?;
        match byte {
            b'/' | b'\\' => return Err(Ambiguous::HiddenSlash),
            _ if byte.is_ascii_control() => return Err(Ambiguous::Control),
            _ if may_stand(byte) => plain.push(char::from(byte)),
            _ => {
                plain.push('%');
                plain.push_str(&digits.to_ascii_uppercase());
            }
        }
        plain.push_str(&part[2..]);
    }
    Ok(plain)
}

/// In a segment of a path (`pchar` of RFC 3986 §3.3).
fn may_stand(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_with_one_reading_has_one_form() {
        for (path, form) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/%61dmin", "/admin"),
            ("/%7euser", "/~user"),
            ("/a%2eb", "/a.b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/..a/b..", "/..a/b.."),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/a%3fb%23c", "/a%3Fb%23c"),
            ("/a%252fb", "/a%252fb"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a%3Bv", "/a;v"),
            ("/shop.Stock/Get", "/shop.Stock/Get"),
            ("/é", "/é"),
        ] {
            assert_eq!(plain(path).as_deref(), Ok(form), "{path}");
        }
    }

    #[test]
    fn a_path_with_more_than_one_reading_has_none() {
        for (path, why) in [
            ("", Ambiguous::NotAbsolute),
            ("a", Ambiguous::NotAbsolute),
            ("http://web/a", Ambiguous::NotAbsolute),
            ("//", Ambiguous::EmptySegment),
            ("//a", Ambiguous::EmptySegment),
            ("/a//b", Ambiguous::EmptySegment),
            ("/a/;x/b", Ambiguous::EmptySegment),
            ("/.", Ambiguous::DotSegment),
            ("/a/..", Ambiguous::DotSegment),
            ("/a/./b", Ambiguous::DotSegment),
            ("/a/../b", Ambiguous::DotSegment),
            ("/a/%2e%2E/b", Ambiguous::DotSegment),
            ("/a/.%2e", Ambiguous::DotSegment),
            ("/a/..;x=1/b", Ambiguous::DotSegment),
            ("/a/..%3bx/b", Ambiguous::DotSegment),
            ("/a%2fb", Ambiguous::HiddenSlash),
            ("/a%2Fb", Ambiguous::HiddenSlash),
            ("/a\\b", Ambiguous::HiddenSlash),
            ("/a%5cb", Ambiguous::HiddenSlash),
            ("/a%00", Ambiguous::Control),
            ("/a%0d%0ab", Ambiguous::Control),
            ("/a%7f", Ambiguous::Control),
            ("/a\0", Ambiguous::Control),
            ("/a%", Ambiguous::Escape),
            ("/a%2", Ambiguous::Escape),
            ("/a%zz", Ambiguous::Escape),
            ("/a%+1", Ambiguous::Escape),
            ("/a%é", Ambiguous::Escape),
        ] {
            assert_eq!(plain(path), Err(why), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_form_of_a_form_is_itself(path in "/[ -~é\0]{0,24}") {
            if let Ok(form) = plain(&path) {
                prop_assert_eq!(plain(&form), Ok(Cow::Borrowed(&*form)));
            }
        }
    }
}
