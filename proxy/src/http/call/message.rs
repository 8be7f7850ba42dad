//! What is on the wire of a call: a head, data, trailers or an end, each way.
//!
//! Pure. A message is: kind (1 byte), length (3 bytes), so many bytes. Fields are names and values with their lengths (2 bytes each);
//! the highest bit of a name's length says that the value is no secret to be kept (RFC 7541 §7.1.3: never indexed).

use bytes::{Buf as _, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::super::MAX_HEAD;

/// Bytes of a message's head.
pub(super) const HEAD: usize = 4;
/// Longest head of a request or an answer, and trailers: what HTTP/2 lets in, with the lengths of names and values.
pub(super) const MOST: usize = 3 * MAX_HEAD;
/// Most data of one message.
pub(super) const MOST_DATA: usize = (1 << 24) - 1;

pub(super) const REQUEST: u8 = 1;
pub(super) const RESPONSE: u8 = 2;
pub(super) const DATA: u8 = 3;
pub(super) const TRAILERS: u8 = 4;
pub(super) const END: u8 = 5;

const NEVER_INDEXED: u16 = 1 << 15;

/// Why bytes are no message, or a head cannot be one.
pub(super) type Bad = &'static str;

const SHORT: Bad = "a head that ends within a field";
const LONG: Bad = "a field that is too long";

/// Kind and length of the message that begins `bytes`; none: it is not there yet.
pub(super) fn head(bytes: &[u8]) -> Option<(u8, usize)> {
    let [kind, a, b, c] = *bytes.first_chunk()?;
    Some((kind, u32::from_be_bytes([0, a, b, c]) as usize))
}

/// Writes the head of so many bytes of data, at most [`MOST_DATA`].
pub(super) fn put_data(out: &mut Vec<u8>, len: usize) {
    put_head(out, DATA, len);
}

/// Writes the end of a message without trailers.
pub(super) fn put_end(out: &mut Vec<u8>) {
    put_head(out, END, 0);
}

/// Writes a request's head.
pub(super) fn put_request<B>(out: &mut Vec<u8>, request: &Request<B>) -> Result<(), Bad> {
    put(out, REQUEST, |out| {
        let uri = request.uri();
        put_text(out, request.method().as_str().as_bytes())?;
        put_text(out, uri.scheme_str().unwrap_or_default().as_bytes())?;
        put_text(out, uri.authority().map(Authority::as_str).unwrap_or_default().as_bytes())?;
        put_text(out, uri.path_and_query().map(PathAndQuery::as_str).unwrap_or_default().as_bytes())?;
        put_fields(out, request.headers())
    })
}

/// Writes an answer's head.
pub(super) fn put_response<B>(out: &mut Vec<u8>, response: &Response<B>) -> Result<(), Bad> {
    put(out, RESPONSE, |out| {
        out.extend_from_slice(&response.status().as_u16().to_be_bytes());
        put_fields(out, response.headers())
    })
}

/// Writes trailers, which are an end.
pub(super) fn put_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) -> Result<(), Bad> {
    put(out, TRAILERS, |out| put_fields(out, trailers))
}

/// Reads a request's head.
pub(super) fn request(mut bytes: Bytes) -> Result<Request<()>, Bad> {
    let mut request = Request::new(());
    let method = text(&mut bytes)?;
    *request.method_mut() = Method::from_bytes(&method).map_err(|_| "a method that is none")?;
    let (scheme, authority, path) = (text(&mut bytes)?, text(&mut bytes)?, text(&mut bytes)?);
    let mut parts = http::uri::Parts::default();
    let bad = "a target that is none";
    if !scheme.is_empty() {
        parts.scheme = Some(Scheme::try_from(&scheme[..]).map_err(|_| bad)?);
    }
    if !authority.is_empty() {
        parts.authority = Some(Authority::from_maybe_shared(authority).map_err(|_| bad)?);
    }
    // What is behind a `#` would be cut off: no proxy of ours says so.
    if path.is_empty() || path.contains(&b'#') {
        return Err(bad);
    }
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path).map_err(|_| bad)?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = trailers(bytes)?;
    Ok(request)
}

/// Reads an answer's head.
pub(super) fn response(mut bytes: Bytes) -> Result<Response<()>, Bad> {
    let mut response = Response::new(());
    let status = bytes.try_get_u16().map_err(|_| SHORT)?;
    let status = StatusCode::from_u16(status).ok().filter(|status| !status.is_informational());
    *response.status_mut() = status.ok_or("a status that is none")?;
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = trailers(bytes)?;
    Ok(response)
}

/// Reads fields.
pub(super) fn trailers(mut bytes: Bytes) -> Result<HeaderMap, Bad> {
    // Of fields as short as they usually are.
    let mut fields = HeaderMap::with_capacity(bytes.len() / 32);
    while bytes.has_remaining() {
        let len = bytes.try_get_u16().map_err(|_| SHORT)?;
        let name = take(&mut bytes, len & !NEVER_INDEXED)?;
        let name = HeaderName::from_bytes(&name).map_err(|_| "a name that is none")?;
        let value = text(&mut bytes)?;
        let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| "a value that is none")?;
        value.set_sensitive(len & NEVER_INDEXED != 0);
        fields.try_append(name, value).map_err(|_| "too many fields")?;
    }
    Ok(fields)
}

fn put(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>) -> Result<(), Bad>) -> Result<(), Bad> {
    let begin = out.len();
    put_head(out, kind, 0);
    payload(out)?;
    let len = out.len() - begin - HEAD;
    if len > MOST {
        return Err("a head that is too long");
    }
    let [.., a, b, c] = len.to_be_bytes();
    out[begin + 1..begin + HEAD].copy_from_slice(&[a, b, c]);
    Ok(())
}

fn put_head(out: &mut Vec<u8>, kind: u8, len: usize) {
    let [.., a, b, c] = len.to_be_bytes();
    out.extend_from_slice(&[kind, a, b, c]);
}

fn put_fields(out: &mut Vec<u8>, fields: &HeaderMap) -> Result<(), Bad> {
    for (name, value) in fields {
        let len = u16::try_from(name.as_str().len()).ok().filter(|len| len & NEVER_INDEXED == 0).ok_or(LONG)?;
        let flag = if value.is_sensitive() { NEVER_INDEXED } else { 0 };
        out.extend_from_slice(&(len | flag).to_be_bytes());
        out.extend_from_slice(name.as_str().as_bytes());
        put_text(out, value.as_bytes())?;
    }
    Ok(())
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Bad> {
    let len = u16::try_from(text.len()).map_err(|_| LONG)?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text);
    Ok(())
}

fn text(bytes: &mut Bytes) -> Result<Bytes, Bad> {
    let len = bytes.try_get_u16().map_err(|_| SHORT)?;
    take(bytes, len)
}

fn take(bytes: &mut Bytes, len: u16) -> Result<Bytes, Bad> {
    let len = usize::from(len);
    if bytes.len() < len { Err(SHORT) } else { Ok(bytes.split_to(len)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(out: Vec<u8>) -> Bytes {
        let (_, len) = head(&out).unwrap();
        assert_eq!(len, out.len() - HEAD);
        Bytes::from(out).slice(HEAD..)
    }

    #[test]
    fn heads_are_read_as_they_were_written() {
        let mut secret = HeaderValue::from_static("Bearer x");
        secret.set_sensitive(true);
        let asked = Request::post("http://web.shop:80/a/B?c=%20").header("te", "trailers").header("x-a", "1");
        let asked = asked.header("authorization", secret).header("x-a", "").body(()).unwrap();
        let mut out = Vec::new();
        put_request(&mut out, &asked).unwrap();
        let came = request(payload(out)).unwrap();
        assert_eq!((came.method(), came.uri(), came.headers()), (asked.method(), asked.uri(), asked.headers()));
        assert!(came.headers()["authorization"].is_sensitive() && !came.headers()["te"].is_sensitive());
        assert!(came.headers().get_all("x-a").iter().eq(["1", ""]) && came.version() == Version::HTTP_2);

        let answer = Response::builder().status(418).header("grpc-status", "12").body(()).unwrap();
        let mut out = Vec::new();
        put_response(&mut out, &answer).unwrap();
        let came = response(payload(out)).unwrap();
        assert_eq!((came.status(), came.headers()), (answer.status(), answer.headers()));

        let mut out = Vec::new();
        put_trailers(&mut out, answer.headers()).unwrap();
        assert_eq!(&trailers(payload(out)).unwrap(), answer.headers());
    }

    #[test]
    fn every_cut_of_a_head_and_what_is_none_is_an_error_and_no_panic() {
        let asked = Request::get("http://web/").header("x-a", "1").body(()).unwrap();
        let mut out = Vec::new();
        put_request(&mut out, &asked).unwrap();
        let whole = payload(out);
        // Cut between two fields it is a shorter head.
        let between = whole.len() - 2 - 3 - 2 - 1;
        for len in (0..whole.len()).filter(|len| *len != between) {
            assert!(request(whole.slice(..len)).is_err(), "{len}");
        }
        for bad in [
            "\x00\x01 \x00\x00\x00\x00\x00\x00",
            "\x00\x03GET\x00\x01:\x00\x00\x00\x00",
            "\x00\x03GET\x00\x00\x00\x00\x00\x02/#",
        ] {
            assert!(request(Bytes::from(bad)).is_err(), "{bad:?}");
        }
        for bad in [&[][..], &[0], &[0, 7], &[0, 100], &[0, 103]] {
            assert!(response(Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
        assert!(trailers(Bytes::from_static(b"\x00\x01:\x00\x00")).is_err());
        assert!(trailers(Bytes::from_static(b"\x00\x01a\x00\x01\n")).is_err());
    }

    #[test]
    fn what_is_too_long_is_not_written() {
        let long = |len: usize| HeaderValue::from_bytes(&vec![b'x'; len]).unwrap();
        for (count, len) in [(1, 1 << 16), (4, MAX_HEAD - 1)] {
            let mut fields = HeaderMap::new();
            for _ in 0..count {
                fields.append("x-a", long(len));
            }
            assert!(put_trailers(&mut Vec::new(), &fields).is_err(), "{count} of {len}");
        }
    }
}
