//! A request as the direct way sees it: whether it may go there, what of it matters, and the head that is sent on.
//!
//! Pure. What a head must be is decided in [`head`]; what is changed in it is the same as in [`headers`]. Whatever needs
//! more than that is left to hyper's way.

use http::{HeaderName, HeaderValue, Method, Request, header::HeaderMap};

use super::{
    super::{
        MAX_HEAD,
        head::{self, Body, Line, Visit},
        headers,
    },
    put, put_header,
};

/// A request that is there with all its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// What is to be done.
    pub(crate) method: Method,
    /// Bytes of its head.
    pub(super) head: usize,
    /// Bytes of its body.
    pub(super) body: usize,
    /// The client wants no further request on this connection.
    pub(super) closes: bool,
}

/// What is left out of a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeftOut {
    /// Claims of an identity: its next stop is an application.
    pub(super) claims: bool,
    /// The trace it belongs to, which is written anew.
    pub(super) trace: bool,
}

/// Reads the request that `bytes` is, and writes the head to be sent on into `out`, but for the empty line at its end. None: it is
/// not for the direct way, or not all there, or more than one.
pub(super) fn read(bytes: &[u8], left_out: LeftOut, out: &mut Vec<u8>) -> Option<Ask> {
    if !bytes.first().is_some_and(|byte| head::is_token(*byte)) {
        return None;
    }
    let len = head::find_end(bytes, 0).ok()?.ok()?;
    if len > MAX_HEAD {
        return None;
    }
    let mut reader = Reader { out, left_out, method: None, hosts: 0, is_fit: true, closes: false };
    let body = head::walk(&bytes[..len], &mut reader).ok()?;
    let Body::Length(body) = body else { return None };
    let body = usize::try_from(body).ok()?;
    let Reader { method, hosts, is_fit, closes, .. } = reader;
    let whole = bytes.len() - len == body;
    let method = method.filter(|_| is_fit && hosts == 1 && whole)?;
    Some(Ask { method, head: len, body, closes })
}

/// The request of the head `bytes`, as hyper would give it. For whoever has to look at all of it.
pub(super) fn request(bytes: &[u8]) -> Request<()> {
    let mut request = Builder(Request::new(()));
    // It was read before.
    let _ = head::walk(bytes, &mut request);
    request.0
}

struct Reader<'a> {
    out: &'a mut Vec<u8>,
    left_out: LeftOut,
    method: Option<Method>,
    hosts: u32,
    is_fit: bool,
    closes: bool,
}

impl<'a> Visit<'a> for Reader<'_> {
    fn line(&mut self, line: Line<'a>) {
        let method = Method::from_bytes(line.method).ok();
        self.method = method.filter(|method| *method != Method::CONNECT && line.is_http11 && line.is_plain_path);
        put(self.out, &[line.method, b" ", line.target, b" HTTP/1.1\r\n"]);
    }

    fn header(&mut self, name: &'a [u8], value: &'a [u8]) {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        // By length first: one comparison for most headers.
        match name.len() {
            4 if is("host") => {
                self.hosts += 1;
                self.is_fit &= headers::is_host(value);
            }
            10 if is("connection") => {
                let closes = value.eq_ignore_ascii_case(b"close");
                self.closes |= closes;
                self.is_fit &= closes || value.eq_ignore_ascii_case(b"keep-alive");
                return;
            }
            10 if is("keep-alive") => return,
            16 if is("proxy-connection") => return,
            2 if is("te") => self.is_fit = false,
            6 if is("expect") => self.is_fit = false,
            7 if is("upgrade") => self.is_fit = false,
            14 if is("http2-settings") => self.is_fit = false,
            14 if self.left_out.claims && headers::is_like(name, &headers::CLIENT_ID) => return,
            11 if self.left_out.trace && is("traceparent") => return,
            10 if self.left_out.trace && is("tracestate") => return,
            // Its status may come in trailers.
            12 if is("content-type") => self.is_fit &= !headers::says_grpc(value),
            _ => {}
        }
        put_header(self.out, name, value);
    }
}

struct Builder(Request<()>);

impl<'a> Visit<'a> for Builder {
    fn line(&mut self, line: Line<'a>) {
        *self.0.method_mut() = Method::from_bytes(line.method).unwrap_or_default();
        *self.0.uri_mut() = http::Uri::try_from(line.target).unwrap_or_default();
    }

    fn header(&mut self, name: &'a [u8], value: &'a [u8]) {
        append(self.0.headers_mut(), name, value);
    }
}

/// Adds what was read as a header to `headers`.
pub(super) fn append(headers: &mut HeaderMap, name: &[u8], value: &[u8]) {
    // Neither can fail for what was read as a header.
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str, to_an_application: bool) -> Option<(Ask, String)> {
        let mut out = Vec::new();
        let left_out = LeftOut { claims: to_an_application, trace: to_an_application };
        let ask = read(text.as_bytes(), left_out, &mut out)?;
        Some((ask, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn what_is_sent_on_is_what_came_without_what_is_of_one_hop() {
        let (ask, out) = sent(
            "POST /a?b HTTP/1.1\r\nHost:x\r\nX-Case:  1 \r\nConnection: keep-alive\r\nKeep-Alive: 3\r\n\
             Content-Length: 2\r\nMesh_Client-Id: me\r\nContent-Type: a/b\r\n\r\nab",
            false,
        )
        .unwrap();
        assert_eq!(
            out,
            "POST /a?b HTTP/1.1\r\nHost: x\r\nX-Case: 1\r\nContent-Length: 2\r\nMesh_Client-Id: me\r\n\
             Content-Type: a/b\r\n"
        );
        assert_eq!((ask.method, ask.body, ask.closes), (Method::POST, 2, false));
        let (ask, out) = sent(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\nMesh_Client-Id: me\r\nTraceparent: a\r\n\r\n",
            true,
        )
        .unwrap();
        assert_eq!((out.as_str(), ask.closes), ("GET / HTTP/1.1\r\nHost: x\r\n", true));
    }

    #[test]
    fn what_needs_more_than_that_is_not_for_the_direct_way() {
        for unfit in [
            "",
            "GET / HTTP/1.1\r\nHost: x\r\n",
            "GET / HTTP/1.0\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x/\r\n\r\n",
            "GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /\" HTTP/1.1\r\nHost: x\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
            "CONNECT /x HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\nG",
            "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na",
            "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\na",
            "GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: x-y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: close, te\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHTTP2-Settings: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc+x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
        ] {
            assert_eq!(sent(unfit, true), None, "{unfit:?}");
        }
    }

    #[test]
    fn whoever_looks_at_all_of_it_sees_all_of_it() {
        let request = request(b"PUT /a%20b?c HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\n\r\n");
        assert_eq!(
            (request.method(), request.uri().path(), request.uri().query()),
            (&Method::PUT, "/a%20b", Some("c"))
        );
        assert!(request.headers().get_all("x-a").iter().eq(["1", "2"]) && request.headers()["host"] == "x");
    }
}
