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

/// A request that came whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Method, target, version.
    pub(crate) line: String,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Headers,
}

impl Seen {
    /// With another host, where it is this one.
    pub(crate) fn with_host(mut self, host: &str, other: &str) -> Self {
        for (name, value) in &mut self.headers {
            if name.eq_ignore_ascii_case("host") && value == host.as_bytes() {
                *value = other.into();
            }
        }
        self
    }
}

/// In the order of their names; those of one name as they came.
pub(crate) type Headers = Vec<(String, Vec<u8>)>;

/// Serves every connection, each on a thread: a proxy holds few. Each request is told before it is answered.
pub(crate) fn serve(listener: &TcpListener, told: impl Fn(Seen) + Clone + Send + 'static) {
    for socket in listener.incoming().flatten() {
        let told = told.clone();
        std::thread::spawn(move || while_there(socket, told));
    }
}

fn while_there(socket: TcpStream, told: impl Fn(Seen)) {
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
        let mut seen = request.seen;
        let whole = match request.body {
            Body::Length(length) => take(&mut reader, length, &mut seen.body),
            Body::Chunked => chunks(&mut reader, &mut seen),
        };
        let answer = if request.is_head {
            "HTTP/1.1 200 OK\r\nis-head: 1\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        };
        if whole.is_none() {
            return;
        }
        told(seen);
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

struct Request {
    body: Body,
    expects: bool,
    is_head: bool,
    seen: Seen,
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
        let seen = Seen {
            line: shown.lines().next().unwrap_or_default().to_owned(),
            headers: sorted(request.headers),
            body: Vec::new(),
            trailers: Vec::new(),
        };
        Self { body, expects: !values("expect").is_empty(), is_head: request.method == Some("HEAD"), seen }
    }
}

/// As two ways of passing them on may be compared: hyper brings headers of the same name together.
pub(crate) fn sorted(headers: &[httparse::Header<'_>]) -> Headers {
    let mut headers: Headers = headers.iter().map(|header| (header.name.to_owned(), header.value.to_vec())).collect();
    headers.sort_by_key(|(name, _)| name.to_ascii_lowercase());
    headers
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

fn take(reader: &mut BufReader<TcpStream>, length: u64, into: &mut Vec<u8>) -> Option<()> {
    (std::io::copy(&mut reader.take(length), into).ok()? == length).then_some(())
}

/// Chunks as hyper writes them: a size in hexadecimal, no extension; then trailers.
fn chunks(reader: &mut BufReader<TcpStream>, seen: &mut Seen) -> Option<()> {
    loop {
        let line = line(reader)?;
        let digits = line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("a chunk's line without its end: {line:?}"));
        let is_plain = !digits.is_empty() && digits.len() <= 16 && digits.iter().all(u8::is_ascii_hexdigit);
        assert!(is_plain, "a chunk's size that is none: {:?}", String::from_utf8_lossy(digits));
        let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).expect("up to 16 digits fit");
        if size == 0 {
            break;
        }
        take(reader, size, &mut seen.body)?;
        let end = self::line(reader)?;
        assert_eq!(end, b"\r\n", "after a chunk");
    }
    loop {
        let line = line(reader)?;
        if line == b"\r\n" {
            return Some(());
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("a trailer that is none: {line:?}"));
        seen.trailers.push((name.to_owned(), value.trim().as_bytes().to_vec()));
    }
}

fn line(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    line.ends_with(b"\n").then_some(line)
}
