//! Endpoints that refuse: what no byte reached goes to another one, and nobody notices.

use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use mesh_netlab::Addresses;
use mesh_proto::outcome::Outcome;
use mesh_testbed::{
    Member, manifests,
    member::Pod,
    talk::{Http, Lines},
    until,
};
use nix::sys::signal::Signal;

use crate::{WEB, http, lines, mesh, settings};

/// A Service of both pods, one of which has an application on these ports.
const HALF: Addresses = Addresses { v4: Ipv4Addr::new(10, 96, 0, 7), v6: None };
const HTTP: u16 = 9001;
const TCP: u16 = 9002;

/// Requests of each kind.
const ENOUGH: usize = 60;

fn counted(member: &Member, direction: &str, outcome: Outcome) -> io::Result<u64> {
    member.count("mesh_error_total", &[&format!("direction={direction:?}"), &format!("code={:?}", outcome.code())])
}

/// Answers one request a connection, of which `posts` counts.
fn answer(listener: &TcpListener, posts: &AtomicUsize) {
    for socket in listener.incoming() {
        let mut socket = BufReader::new(socket.expect("a connection"));
        let mut line = String::new();
        while socket.read_line(&mut line).is_ok_and(|read| read > 2) {}
        if line.starts_with("POST") {
            posts.fetch_add(1, Ordering::Relaxed);
            // Whoever does not wait for the answer is its own affair.
            let _ = socket.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\na");
        }
    }
}

/// Sends back what comes.
fn echo(listener: &TcpListener) {
    for socket in listener.incoming() {
        let mut socket = socket.expect("a connection");
        let mut read = [0; 4];
        if socket.read_exact(&mut read).is_ok() {
            let _ = socket.write_all(&read);
        }
    }
}

fn exchange(client: &Member, address: SocketAddr, text: &str) -> io::Result<String> {
    client.run(|| {
        let mut socket = TcpStream::connect(address)?;
        socket.write_all(text.as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    })?
}

pub(crate) fn what_one_application_refuses_goes_to_the_other_and_is_seen_once() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let ports = [(HTTP, Some("http")), (TCP, Some("tcp"))];
    mesh.control.apply("half.yaml", &manifests::service_of_ports("half", ("app", "web"), HALF, ports.into_iter()))?;
    let (a, b) = (mesh.member(&Pod::new("a", "web", 1))?, mesh.member(&Pod::new("b", "web", 2))?);
    let client = mesh.member(&Pod::new("client", "client", 3))?;
    let bind = |port| a.run(|| TcpListener::bind((a.addresses().v4, port)));
    let (web, raw) = (bind(HTTP)??, bind(TCP)??);
    let posts = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&posts);
    // They end with the process; nothing waits for them.
    thread::spawn(move || answer(&web, &counting));
    thread::spawn(move || echo(&raw));

    for n in 0..ENOUGH {
        let request = "POST /pay HTTP/1.1\r\nhost: half\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let answer = exchange(&client, (HALF.v4, HTTP).into(), request)?;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with('a'), "{n}: {answer}");
        assert_eq!(exchange(&client, (HALF.v4, TCP).into(), "ping")?, "ping", "{n}");
    }
    assert_eq!(posts.load(Ordering::Relaxed), ENOUGH, "each was seen once");
    let refused = counted(&b, "inbound", Outcome::AppRefused)?;
    assert!(refused >= 2, "b was tried, by requests and by connections: {refused}");
    assert!(client.count("request_retry_total", &[r#"dst_service="half""#])? >= 1);
    assert_eq!(counted(&client, "outbound", Outcome::AppRefused)?, 0, "the client was told of none");
    Ok(())
}

pub(crate) fn a_pod_whose_proxy_is_gone_costs_no_request_and_no_connection() -> anyhow::Result<()> {
    let mesh = mesh(settings())?;
    let mut gone = mesh.member(&Pod::new("a", "web", 1))?;
    let _there = mesh.member(&Pod::new("b", "web", 2))?;
    let client = mesh.member(&Pod::new("client", "client", 3))?;
    let mut http = client.run(|| Http::connect(http(WEB)))??;
    let mut both = BTreeSet::new();
    until("both answer", || {
        both.insert(http.get("/", &[]).ok()?.body);
        (both.len() == 2).then_some(())
    })?;

    gone.signal(Signal::SIGKILL)?;
    gone.ended()?;
    // Its manifest says that it is ready, as that of a pod does whose node has just died. One client remembers how quick it
    // was; to the other it looks as good as the next, so that one of the first two requests goes there.
    let other = mesh.member(&Pod::new("other", "client", 4))?;
    let fresh = other.run(|| Http::connect(crate::http(WEB)))??;
    for (client, mut http) in [(&client, http), (&other, fresh)] {
        for n in 0..ENOUGH {
            let answer = http.get("/", &[])?;
            assert_eq!((answer.status, answer.body.as_str()), (200, "b"), "{n}: {answer:?}");
            let (_, greeting) = client.run(|| Lines::connect(lines(WEB)))??;
            assert_eq!(greeting, "220 b", "{n}");
        }
        assert_eq!(counted(client, "outbound", Outcome::ConnectFailed)?, 0, "the client was told of none");
    }
    assert!(other.count("request_retry_total", &[r#"dst_service="web""#])? >= 1, "it was tried");
    Ok(())
}
