//! A scripted API server: lists, refusals, and port-forwards to proxies that answer what they are told to.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use parking_lot::Mutex;
use tungstenite::{
    Message, WebSocket,
    handshake::server::{Request, Response},
    http::HeaderValue,
};

/// What is answered: status and body by path (without its query; with `POST ` before it to what is posted), and what each `pod:port` says to each path.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) lists: BTreeMap<&'static str, (u16, String)>,
    pub(crate) pods: BTreeMap<(&'static str, u16, &'static str), String>,
    /// What every PATCH is answered with.
    pub(crate) patch: Option<(u16, String)>,
    /// Whether a PATCH is answered with what it brings, as by a server that has nothing to add.
    pub(crate) echoes: bool,
    /// Method and path of what was asked to be changed, in order, but for dry runs.
    pub(crate) changed: Arc<Mutex<Vec<String>>>,
    /// The namespaces there are: into another nothing is patched. None: all.
    pub(crate) namespaces: Option<&'static [&'static str]>,
    /// A path whose question is never answered.
    pub(crate) hangs: Option<&'static str>,
}

/// Serves until the test ends; its threads end with the process.
pub(crate) fn serve(script: Script) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = Arc::clone(&script);
            thread::spawn(move || connection(stream, &script));
        }
    });
    address
}

fn connection(stream: TcpStream, script: &Script) {
    let mut head = [0; 4096];
    loop {
        let Ok(size) = stream.peek(&mut head) else { return };
        if size == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&head[..size]).into_owned();
        if !text.contains("\r\n\r\n") {
            continue;
        }
        let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
        if path.contains("/portforward") {
            return forward(stream, &path, script);
        }
        answer(&stream, &path, text.find("\r\n\r\n").unwrap() + 4, script);
    }
}

fn answer(mut stream: &TcpStream, path: &str, head: usize, script: &Script) {
    let mut read = vec![0; head];
    stream.read_exact(&mut read).unwrap();
    let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    let method = text.split(' ').next().unwrap_or_default().to_ascii_uppercase();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if matches!(&*method, "PATCH" | "DELETE") && !query.contains("dryRun") {
        script.changed.lock().push(format!("{method} {path}"));
    }
    if script.hangs == Some(path) {
        // Until the client leaves.
        let _ = stream.read(&mut [0]);
        return;
    }
    let absent = || {
        let namespace = path.split_once("/namespaces/")?.1.split_once('/')?.0;
        let is_there = script.namespaces.is_none_or(|all| all.contains(&namespace));
        (!is_there).then(|| (404, status(404, &format!("namespaces \"{namespace}\" not found"))))
    };
    let echo = || (200, String::from_utf8(body.clone()).unwrap());
    let patch = if script.echoes { Some(echo()) } else { script.patch.clone() };
    let patch = patch.filter(|_| text.starts_with("patch ")).map(|answer| absent().unwrap_or(answer));
    // A pod that is posted is no list of pods.
    let is_post = text.starts_with("post ");
    let posted = script.lists.get(format!("POST {path}").as_str()).cloned().filter(|_| is_post);
    let refused = (is_post && path.ends_with("/pods")).then(|| (403, status(403, "pods is forbidden")));
    let patch = patch.or(posted).or(refused);
    let missing = || (404, status(404, &format!("{path} is not scripted")));
    let (status, body) = patch.or_else(|| script.lists.get(path).cloned()).unwrap_or_else(missing);
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).unwrap();
}

/// A refusal, as an API server writes it.
pub(crate) fn status(code: u16, message: &str) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":{message:?},"reason":"Forbidden","code":{code}}}"#
    )
}

/// `/api/v1/namespaces/NS/pods/NAME/portforward?ports=N`
fn forward(stream: TcpStream, path: &str, script: &Script) {
    let pod = path.split('/').nth(6).unwrap().to_owned();
    let port: u16 = path.rsplit("ports=").next().and_then(|port| port.parse().ok()).unwrap();
    #[expect(clippy::result_large_err, reason = "tungstenite's own type")]
    let protocol = |_: &Request, mut response: Response| {
        let name = HeaderValue::from_static("v4.channel.k8s.io");
        response.headers_mut().insert("sec-websocket-protocol", name);
        Ok(response)
    };
    let Ok(mut socket) = tungstenite::accept_hdr(stream, protocol) else { return };
    // Channel 0 carries data, channel 1 errors; each begins with the port.
    for channel in [0, 1] {
        let first = [&[channel], &port.to_le_bytes()[..]].concat();
        socket.send(Message::Binary(first.into())).unwrap();
    }
    let mut asked = Vec::new();
    while let Ok(message) = socket.read() {
        let Message::Binary(data) = message else { continue };
        asked.extend_from_slice(&data[1..]);
        if asked.windows(4).any(|window| window == b"\r\n\r\n") {
            return reply(&mut socket, &pod, port, &String::from_utf8_lossy(&asked), script);
        }
    }
}

fn reply(socket: &mut WebSocket<TcpStream>, pod: &str, port: u16, request: &str, script: &Script) {
    let path = request.split(' ').nth(1).unwrap_or_default();
    let said = script.pods.iter().find(|((name, at, about), _)| *name == pod && *at == port && *about == path);
    let answer = match said {
        Some((_, body)) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
        None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
    };
    let _ = socket.send(Message::Binary([&[0], answer.as_bytes()].concat().into()));
    // The client leaves when it has read.
    while socket.read().is_ok() {}
}
