//! Bytes as an attacker sends them, and an application that takes requests apart as strictly as the standard and remembers
//! each: what a proxy passed on that has two readings shows there.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use mesh_runtime::tasks::Tasks;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};

use crate::party::Party;

/// Longest head that the witness waits for.
const MOST: usize = 1 << 20;

/// Sends all of it, then reads until the other side ends, or says nothing for as long as the patience lasts.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect_timeout(&address, patience)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    // May have been answered, and closed, in the middle.
    let _ = socket.write_all(bytes);
    let (mut heard, mut part) = (Vec::new(), [0; 16 * 1024]);
    let late = Instant::now() + 4 * patience;
    while Instant::now() < late && heard.len() < MOST {
        match socket.read(&mut part) {
            Ok(n @ 1..) => heard.extend_from_slice(&part[..n]),
            _ => break,
        }
    }
    let _ = socket.shutdown(Shutdown::Both);
    Ok(heard)
}

/// Whether a word comes back from an application that sends back what it is sent.
pub(crate) fn carries(address: SocketAddr) -> bool {
    let exchange = || -> io::Result<bool> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.write_all(b"torture\n")?;
        let mut back = [0; 8];
        socket.read_exact(&mut back)?;
        Ok(&back == b"torture\n")
    };
    exchange().unwrap_or(false)
}

/// The same, as far as so many answers.
pub(crate) fn exchange_count(address: SocketAddr, bytes: &[u8], answers: usize) -> io::Result<()> {
    let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let _ = socket.write_all(bytes);
    let (mut heard, mut part) = (Vec::new(), [0; 16 * 1024]);
    while statuses(&heard).len() < answers && heard.len() < MOST {
        match socket.read(&mut part) {
            Ok(n @ 1..) => heard.extend_from_slice(&part[..n]),
            _ => break,
        }
    }
    Ok(())
}

/// The statuses of the answers in it.
pub(crate) fn statuses(heard: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(heard);
    let status = |part: &str| part.get(..3)?.parse().ok();
    text.split("HTTP/1.1 ").skip(1).filter_map(status).collect()
}

/// A request as the witness read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Names and values after the last chunk.
    pub(crate) trailers: Vec<(String, String)>,
}

/// What the witness says to a request.
pub(crate) type Answer = fn(&Seen) -> Vec<u8>;

/// An application on one port of a pod; it ends with this value.
#[derive(Debug)]
pub(crate) struct Witness {
    log: Arc<Mutex<Log>>,
    tasks: Tasks,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Log {
    seen: Vec<Seen>,
    /// What has more than one reading, or none.
    odd: Vec<String>,
    bytes: usize,
}

impl Witness {
    pub(crate) fn start(member: &impl Party, address: SocketAddr, answer: Answer) -> anyhow::Result<Self> {
        let listener = member.enter(|| {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            io::Result::Ok(listener)
        })??;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (tasks, log) = (Tasks::new(), Arc::<Mutex<Log>>::default());
        let (owner, log_) = (tasks.clone(), Arc::clone(&log));
        let thread = std::thread::Builder::new().name("witness".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = serve(listener, &log_, answer, &owner) => {}
                    () = owner.cancelled() => {}
                }
            });
        })?;
        Ok(Self { log, tasks, thread: Some(thread) })
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.lock().seen.clone()
    }

    pub(crate) fn odd(&self) -> Vec<String> {
        self.log.lock().odd.clone()
    }

    /// All bytes that reached it.
    pub(crate) fn bytes(&self) -> usize {
        self.log.lock().bytes
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.tasks.token().cancel();
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    log: &Arc<Mutex<Log>>,
    answer: Answer,
    tasks: &Tasks,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (mut socket, _) = listener.accept().await?;
        let log = Arc::clone(log);
        tasks.spawn_until_cancelled("witnessed", async move {
            let (mut read, mut part) = (Vec::new(), vec![0; 16 * 1024]);
            while let Ok(n @ 1..) = socket.read(&mut part).await {
                read.extend_from_slice(&part[..n]);
                log.lock().bytes += n;
                loop {
                    match take(&mut read) {
                        Ok(None) if read.len() < MOST => break,
                        Ok(Some(request)) => {
                            let said = answer(&request);
                            log.lock().seen.push(request);
                            if socket.write_all(&said).await.is_err() {
                                return;
                            }
                        }
                        Ok(None) => return,
                        Err(why) => {
                            let text = String::from_utf8_lossy(&read[..read.len().min(300)]).into_owned();
                            log.lock().odd.push(format!("{why}: {text:?}"));
                            return;
                        }
                    }
                }
            }
        });
    }
}

/// Takes the first request off, if it is whole; an error where it has not exactly one reading.
fn take(read: &mut Vec<u8>) -> Result<Option<Seen>, String> {
    let Some(end) = find(read, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&read[..end]).map_err(|_| "a head that is no text".to_owned())?;
    let mut lines = head.split("\r\n");
    let first: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    let [_, target, "HTTP/1.1"] = first[..] else { return Err("a first line that is none".into()) };
    let target = target.to_owned();
    let headers = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    let all =
        |name: &str| headers.iter().filter(|(known, _)| known == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    if all("host").len() != 1 {
        return Err("not one host".into());
    }
    let body = end + 4;
    let (body, trailers, end) = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => (Vec::new(), Vec::new(), body),
        ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| "a length beyond all".to_owned())?;
            let Some(bytes) = body.checked_add(length).and_then(|end| read.get(body..end)) else { return Ok(None) };
            (bytes.to_vec(), Vec::new(), body + length)
        }
        ([], ["chunked"]) => match chunks(&read[body..])? {
            None => return Ok(None),
            Some((bytes, trailers, length)) => (bytes, trailers, body + length),
        },
        (lengths, codings) => return Err(format!("lengths {lengths:?}, codings {codings:?}")),
    };
    read.drain(..end);
    Ok(Some(Seen { target, headers, body, trailers }))
}

fn field(line: &str) -> Result<(String, String), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match line.split_once(':') {
        Some((name, value))
            if !name.is_empty()
                && name.bytes().all(token)
                && !value.bytes().any(|byte| byte == 127 || (byte < b' ' && byte != b'\t')) =>
        {
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        }
        _ => Err(format!("a header that is none, {line:?}")),
    }
}

type Chunks = (Vec<u8>, Vec<(String, String)>, usize);

/// The body, its trailers, and how long both were.
fn chunks(bytes: &[u8]) -> Result<Option<Chunks>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + end]).unwrap_or_default();
        if size.is_empty() || size.len() > 8 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("a chunk of size {size:?}"));
        }
        let size = usize::from_str_radix(size, 16).map_err(|error| error.to_string())?;
        at += end + 2;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk without its end".into());
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
    let mut trailers = Vec::new();
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = std::str::from_utf8(&bytes[at..at + end]).map_err(|_| "a trailer that is no text".to_owned())?;
        at += end + 2;
        if line.is_empty() {
            return Ok(Some((body, trailers, at)));
        }
        trailers.push(field(line)?);
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_witness_takes_what_has_one_reading_and_nothing_else() {
        let whole = [
            ("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", ""),
            ("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", "abc"),
            ("POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\na: b\r\n\r\n", "abc"),
        ];
        for (text, body) in whole {
            let mut read = [text, "GET"].concat().into_bytes();
            let seen = take(&mut read).expect("one reading").expect("whole");
            assert_eq!((seen.target.as_str(), seen.body.as_slice(), &read[..]), ("/a", body.as_bytes(), &b"GET"[..]));
            assert_eq!(take(&mut text.as_bytes()[..text.len() - 1].to_vec()), Ok(None), "{text:?}");
        }
        let odd = [
            "GET /a\r\n\r\n",
            "GET /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\nb : c\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\nb: c\nd: e\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\nb: c\r\n d\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;a\r\nb\r\n0\r\n\r\n",
        ];
        for text in odd {
            assert!(take(&mut text.as_bytes().to_vec()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn answers_are_counted_by_their_statuses() {
        assert_eq!(statuses(b"HTTP/1.1 200 OK\r\n\r\nokHTTP/1.1 400 Bad Request\r\n\r\n"), [200, 400]);
    }
}
