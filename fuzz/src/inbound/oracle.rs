//! The application: takes nothing but what RFC 9112 allows, read strictly, and panics at anything else. Whatever a client says,
//! the proxy must never forward what two readers could understand differently.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

/// How HTTP/2 begins: that target is about the proxy's own reading, and the application says nothing.
const H2: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// More than the proxy lets through.
const MOST_HEADERS: usize = 256;

/// Serves every connection, each on a thread: a proxy holds few.
pub(super) fn serve(listener: &TcpListener) {
    for socket in listener.incoming().flatten() {
        std::thread::spawn(move || while_there(socket));
    }
}

fn while_there(socket: TcpStream) {
    let Ok(mut writer) = socket.try_clone() else { return };
    let mut reader = BufReader::new(socket);
    while let Some(head) = head(&mut reader) {
        if head == H2 {
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
            return;
        }
        let request = Request::read(&head);
        if request.expects && writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_err() {
            return;
        }
        let whole = match request.body {
            Body::Length(length) => skip(&mut reader, length),
            Body::Chunked => chunks(&mut reader),
        };
        let answer =
            if request.is_head { "HTTP/1.1 200 OK\r\n\r\n" } else { "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" };
        if whole.is_none() || writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

struct Request {
    body: Body,
    expects: bool,
    is_head: bool,
}

enum Body {
    Length(u64),
    Chunked,
}

impl Request {
    fn read(head: &[u8]) -> Self {
        let shown = String::from_utf8_lossy(head);
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(head) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            parsed => panic!("the application was sent a head that is none ({parsed:?}): {shown:?}"),
        }
        let values = |wanted: &str| -> Vec<&[u8]> {
            request
                .headers
                .iter()
                .filter(|header| header.name.eq_ignore_ascii_case(wanted))
                .map(|header| header.value)
                .collect()
        };
        let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
            ([], []) => Body::Length(0),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Body::Chunked,
            ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
                let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
                Body::Length(length.unwrap_or_else(|| panic!("a length that is no number: {shown:?}")))
            }
            framing => panic!("a body with more than one reading ({framing:?}): {shown:?}"),
        };
        let hosts = values("host").len();
        assert!(hosts == 1 || (hosts == 0 && request.version == Some(0)), "{hosts} hosts: {shown:?}");
        assert!(values("mesh-client-id").is_empty(), "a claim of identity from outside: {shown:?}");
        Self { body, expects: !values("expect").is_empty(), is_head: request.method == Some("HEAD") }
    }
}

/// Bytes up to an empty line; none where the proxy ended the connection, which it may do anywhere.
fn head(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
        if head.ends_with(b"\r\n\r\n") || head == b"\r\n" {
            return Some(head);
        }
    }
}

fn skip(reader: &mut BufReader<TcpStream>, length: u64) -> Option<()> {
    (std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()? == length).then_some(())
}

/// Chunks as hyper writes them: a size in hexadecimal, no extension; then trailers.
fn chunks(reader: &mut BufReader<TcpStream>) -> Option<()> {
    loop {
        let line = line(reader)?;
        let digits = line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("a chunk's line without its end: {line:?}"));
        let is_plain = !digits.is_empty() && digits.len() <= 16 && digits.iter().all(u8::is_ascii_hexdigit);
        assert!(is_plain, "a chunk's size that is none: {:?}", String::from_utf8_lossy(digits));
        let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).expect("up to 16 digits fit");
        if size == 0 {
            break;
        }
        skip(reader, size)?;
        let end = self::line(reader)?;
        assert_eq!(end, b"\r\n", "after a chunk");
    }
    while self::line(reader)? != b"\r\n" {}
    Some(())
}

fn line(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    line.ends_with(b"\n").then_some(line)
}
