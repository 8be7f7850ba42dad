//! Clients, blocking; each connects from the network of the calling thread.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use crate::wait::DEADLINE;

/// Longest body that is read.
const MAX_BODY: usize = 16 << 20;

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub struct Http(BufReader<TcpStream>);

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, read as text.
    pub body: String,
}

impl Answer {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Http {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(BufReader::new(connect(address)?)))
    }

    /// Sends a request with these header lines and reads the answer. The connection can be used again.
    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
        let mut head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        self.0.get_mut().write_all(head.as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut answer = Answer { status: status.ok_or_else(|| bad("no status line"))?, ..Answer::default() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("a header without a colon"))?;
            answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length: usize = match answer.header("content-length") {
            Some(length) => length.parse().map_err(|_| bad("content-length is no number"))?,
            None => 0,
        };
        if length > MAX_BODY {
            return Err(bad("the body is too long"));
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// One request on a connection of its own.
pub fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
    Http::connect(address)?.get(path, headers)
}

/// A connection on which the server speaks first, by lines.
#[derive(Debug)]
pub struct Lines(BufReader<TcpStream>);

impl Lines {
    /// Connects and reads the greeting.
    pub fn connect(address: SocketAddr) -> io::Result<(Self, String)> {
        let mut lines = Self(BufReader::new(connect(address)?));
        let greeting = lines.read()?;
        Ok((lines, greeting))
    }

    /// Sends a line and reads one.
    pub fn ask(&mut self, line: &str) -> io::Result<String> {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.read()
    }

    fn read(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
