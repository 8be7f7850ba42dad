//! An answer as the direct way sees it: the head that is passed on, and where its body ends (RFC 9112 §6.3).
//!
//! Pure. The server's head is read by httparse, as in hyper's way, and written anew: what is lenient in it does not reach the
//! client. What is changed in it, and what is refused, is the same as in [`headers`].

use std::mem::MaybeUninit;

use http::{HeaderMap, Method, StatusCode};
use mesh_proto::outcome::Outcome;

use super::{
    super::{MAX_HEAD, MAX_HEADERS, head, headers},
    ask,
    body::Body,
    put, put_header,
};

/// What of a request its answer depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    /// The client wants no further answer on its connection.
    pub(super) closes: bool,
    /// The answer comes from a proxy of the mesh, or by way of one.
    pub(super) from_mesh: bool,
}

/// What the beginning of a server's bytes is.
#[derive(Debug)]
pub(super) enum Read {
    /// Not all there yet.
    Partial,
    /// An answer that another one follows (1xx), of so many bytes.
    Interim(usize),
    /// The answer's head.
    Whole(Answer),
}

/// An answer's head.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its bytes.
    pub(super) len: usize,
    pub(super) status: StatusCode,
    pub(super) body: Body,
    /// After it the connection can carry the next request.
    pub(super) reusable: bool,
    /// The code that the peer's proxy put on it.
    pub(super) said: Option<Outcome>,
    /// It has a gRPC status.
    pub(super) grpc: bool,
}

/// Why an answer is none.
pub(super) type Bad = &'static str;

/// Whether it is worth to read `bytes`, of which `looked` bytes were read before and had no end: a server that says its head byte by
/// byte is not read from the beginning each time.
pub(super) fn may_be_whole(bytes: &[u8], looked: usize) -> bool {
    let new = &bytes[looked.saturating_sub(EMPTY_LINE.len())..];
    looked == 0
        || bytes.len() >= MAX_HEAD
        || memchr::memmem::find(new, b"\n\n").is_some()
        || memchr::memmem::find(new, EMPTY_LINE).is_some()
}

const EMPTY_LINE: &[u8] = b"\n\r\n";

/// Reads the head at the beginning of `bytes`, and writes the one for the client into `out`.
pub(super) fn read(bytes: &[u8], asked: Asked<'_>, out: &mut Vec<u8>) -> Result<Read, Bad> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let Some((len, parsed)) = parse(bytes, &mut fields)? else {
        return if bytes.len() >= MAX_HEAD { Err(TOO_LARGE) } else { Ok(Read::Partial) };
    };
    if len > MAX_HEAD {
        return Err(TOO_LARGE);
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("a status that is none")?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("a change of protocol that nobody asked for");
    }
    if status.is_informational() {
        return Ok(Read::Interim(len));
    }
    let facts = Facts::of(parsed.headers)?;
    let has_no_body = asked.method == Method::HEAD || matches!(status.as_u16(), 204 | 304);
    let body = match facts.length {
        _ if has_no_body => Body::none(),
        Some(length) => Body::length(length),
        // Who answers so may have been a proxy that did not know of chunks (RFC 9112 §6.1).
        None if facts.chunked && parsed.version != Some(1) => return Err("an answer of HTTP/1.0 in chunks"),
        None if facts.chunked => Body::chunked(),
        None => Body::until_the_end(),
    };
    put(out, &[b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason(&parsed, status).as_bytes(), b"\r\n"]);
    for field in &*parsed.headers {
        if facts.keeps(field, asked, status, body.is_chunked()) {
            put_header(out, field.name.as_bytes(), field.value);
        }
    }
    if body.gets_chunks() {
        put_header(out, b"transfer-encoding", b"chunked");
    }
    if asked.closes {
        put_header(out, b"connection", b"close");
    }
    put(out, &[b"\r\n"]);
    let reusable = parsed.version == Some(1) && !facts.closes;
    let said = facts.said.filter(|_| asked.from_mesh);
    Ok(Read::Whole(Answer { len, status, reusable, said, grpc: facts.grpc, body }))
}

/// All headers of the answer that begins `bytes`, for whoever has to look at them.
pub(super) fn headers(bytes: &[u8]) -> HeaderMap {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut headers = HeaderMap::new();
    if let Ok(Some((_, parsed))) = parse(bytes, &mut fields) {
        for field in &*parsed.headers {
            ask::append(&mut headers, field.name.as_bytes(), field.value);
        }
    }
    headers
}

const NO_LENGTH: Bad = "an answer with a Content-Length that is no number of bytes";
const TOO_LARGE: Bad = "an answer with more than 100 headers, or 64 KiB of them";

type Parsed<'h, 'b> = httparse::Response<'h, 'b>;

fn parse<'h, 'b>(
    bytes: &'b [u8],
    fields: &'h mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<Option<(usize, Parsed<'h, 'b>)>, Bad> {
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, fields);
    match parsed {
        Ok(httparse::Status::Complete(len)) => Ok(Some((len, response))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(TOO_LARGE),
        Err(_) => Err("an answer that is not HTTP/1"),
    }
}

/// The server's own words, where it has any.
fn reason<'b>(parsed: &Parsed<'_, 'b>, status: StatusCode) -> &'b str {
    parsed.reason.filter(|reason| !reason.is_empty()).or(status.canonical_reason()).unwrap_or_default()
}

/// What its headers say of an answer.
#[derive(Default)]
struct Facts<'b> {
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    grpc: bool,
    said: Option<Outcome>,
    /// Headers that are of this connection alone.
    named: Vec<&'b [u8]>,
}

impl<'b> Facts<'b> {
    fn of(fields: &[httparse::Header<'b>]) -> Result<Self, Bad> {
        let mut facts = Self::default();
        let mut has_length = false;
        for field in fields {
            match field.name.len() {
                14 if field.name.eq_ignore_ascii_case("content-length") => {
                    if std::mem::replace(&mut has_length, true) {
                        return Err("an answer with more than one Content-Length");
                    }
                    facts.length = Some(head::content_length(field.value).ok_or(NO_LENGTH)?);
                }
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    if facts.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                        return Err("a Transfer-Encoding other than chunked");
                    }
                    facts.chunked = true;
                }
                10 if field.name.eq_ignore_ascii_case("connection") => facts.connection(field.value),
                10 if headers::is_like(field.name.as_bytes(), &headers::ERROR) => {
                    let code = std::str::from_utf8(field.value).ok();
                    facts.said = facts.said.or(code.and_then(Outcome::from_code));
                }
                11 if field.name.eq_ignore_ascii_case("grpc-status") => facts.grpc = true,
                _ => {}
            }
        }
        if has_length && facts.chunked {
            return Err("an answer with both Content-Length and Transfer-Encoding");
        }
        Ok(facts)
    }

    fn connection(&mut self, value: &'b [u8]) {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if !token.is_empty() && !is_of_framing(token) {
                self.named.push(token);
            }
        }
    }

    /// Whether a header is for the client, too.
    fn keeps(&self, field: &httparse::Header<'_>, asked: Asked<'_>, status: StatusCode, in_chunks: bool) -> bool {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let is_of_one_hop = match field.name.len() {
            10 if is("connection") || is("keep-alive") => true,
            10 => !(asked.from_mesh && self.said.is_some()) && headers::is_like(field.name.as_bytes(), &headers::ERROR),
            14 => status == StatusCode::NO_CONTENT && is("content-length"),
            16 => is("proxy-connection"),
            // The chunks are passed on as they come.
            17 => !in_chunks && is("transfer-encoding"),
            7 => is("upgrade"),
            2 => is("te"),
            _ => false,
        };
        !is_of_one_hop && !self.named.iter().any(|name| name.eq_ignore_ascii_case(field.name.as_bytes()))
    }
}

/// What says where the body ends, which it goes on doing for the client: naming it must not take it away.
fn is_of_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &Method, closes: bool, from_mesh: bool) -> Asked<'_> {
        Asked { method, closes, from_mesh }
    }

    fn whole(text: &str, asked: Asked<'_>) -> Result<(Answer, String), Bad> {
        let mut out = Vec::new();
        match read(text.as_bytes(), asked, &mut out)? {
            Read::Whole(answer) => Ok((answer, String::from_utf8(out).unwrap())),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn what_is_passed_on_is_what_came_without_what_is_of_one_hop() {
        for (came, passed_on) in [
            (
                "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-A:  b \r\n\r\n",
                "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-A: b\r\n\r\n",
            ),
            // A bare LF, no reason: written as it should be.
            ("HTTP/1.1 404\ncontent-length: 0\n\n", "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
            (
                "HTTP/1.0 200 OK\r\nConnection: x-b, close\r\nX-B: c\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n\r\n",
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
            ),
            // To name it must not leave chunks behind that nobody knows to be chunks.
            (
                "HTTP/1.1 200 OK\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nMesh_Error: no-route\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            ),
        ] {
            assert_eq!(whole(came, asked(&Method::GET, false, false)).unwrap().1, passed_on, "{came:?}");
        }
    }

    #[test]
    fn where_the_body_ends_and_whether_another_answer_can_follow() {
        let length = |length: u64| format!("Length({length})");
        for (method, head, body, reusable) in [
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", length(5), true),
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: Close\r\n\r\n", length(5), false),
            (Method::GET, "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n", length(5), false),
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "Over".to_owned(), true),
            (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "Over".to_owned(), true),
            (Method::HEAD, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "Over".to_owned(), true),
            // Nothing of it is in chunks.
            (Method::GET, "HTTP/1.0 304 x\r\ntransfer-encoding: chunked\r\n\r\n", "Over".to_owned(), false),
            (Method::GET, "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", "Over".to_owned(), true),
            (Method::GET, "HTTP/1.1 200 OK\r\n\r\n", "UntilTheEnd".to_owned(), true),
        ] {
            let (answer, _) = whole(head, asked(&method, false, false)).unwrap();
            let (seen, len) = (format!("{:?}", answer.body), answer.len);
            assert!(seen.contains(&body) && len == head.len(), "{head:?}: {seen} after {len}");
            assert_eq!(answer.reusable, reusable, "{head:?}");
        }
    }

    #[test]
    fn answers_that_two_programs_may_read_differently_are_none() {
        for bad in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
            &format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1)),
            &"HTTP/1.1 200 OK\r\na: ".chars().chain(std::iter::repeat_n('b', MAX_HEAD)).collect::<String>(),
        ] {
            let mut out = Vec::new();
            let read = read(bad.as_bytes(), asked(&Method::GET, false, false), &mut out);
            assert!(read.is_err(), "{bad:?}: {read:?}");
        }
    }

    #[test]
    fn an_unfinished_head_is_read_again_when_its_end_may_be_there() {
        for end in ["\r\n\r\n", "\n\n", "\n\r\n"] {
            let text = format!("HTTP/1.1 200 OK\r\na: b{end}");
            for looked in 1..text.len() {
                assert!(may_be_whole(text.as_bytes(), looked), "{text:?} after {looked}");
                let unfinished = &text.as_bytes()[..text.len() - 1];
                assert!(!may_be_whole(unfinished, looked.min(unfinished.len())), "{unfinished:?} after {looked}");
            }
        }
        assert!(may_be_whole(b"HTTP", 0) && may_be_whole(&vec![b'a'; MAX_HEAD], MAX_HEAD - 1));
    }

    #[test]
    fn an_interim_answer_and_a_part_of_one_say_so() {
        let read = |text: &str| read(text.as_bytes(), asked(&Method::GET, false, false), &mut Vec::new()).unwrap();
        assert!(matches!(read("HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200"), Read::Interim(37)));
        assert!(matches!(read("HTTP/1.1 200 OK\r\ncontent-le"), Read::Partial));
        assert!(matches!(read(""), Read::Partial));
    }

    #[test]
    fn the_code_of_a_peers_proxy_is_heard_and_passed_on_and_nobody_elses() {
        let head = "HTTP/1.1 503 Service Unavailable\r\nmesh-error: app-refused\r\ncontent-length: 0\r\n\r\n";
        let (answer, out) = whole(head, asked(&Method::GET, false, true)).unwrap();
        assert_eq!((answer.said, out.as_str()), (Some(Outcome::AppRefused), head));
        let (answer, out) = whole(head, asked(&Method::GET, true, false)).unwrap();
        assert_eq!(answer.said, None);
        let unknown = "HTTP/1.1 503 No\r\nmesh-error: x\r\ncontent-length: 0\r\n\r\n";
        let (_, without) = whole(unknown, asked(&Method::GET, false, true)).unwrap();
        assert_eq!(without, "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(out, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }

    #[test]
    fn whoever_looks_at_the_headers_sees_all_of_them() {
        let text = "HTTP/1.1 200 OK\r\nGrpc-Status: 0\r\na: 1\r\na: 2\r\ncontent-length: 0\r\n\r\n";
        assert!(whole(text, asked(&Method::GET, false, false)).unwrap().0.grpc);
        let headers = headers(text.as_bytes());
        assert!(headers["grpc-status"] == "0" && headers.get_all("a").iter().eq(["1", "2"]));
    }
}
