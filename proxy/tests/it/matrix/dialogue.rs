//! A client and an application that follow a script, byte for byte, with both proxies in between.

use std::net::IpAddr;

use mesh_proto::workload::Protocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{pair, soon};

/// One step; the next one begins when it is done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// The client sends this.
    Client(&'static str),
    /// Exactly this is the next thing that arrives at the application.
    AppSees(&'static str),
    /// The application sends this.
    App(&'static str),
    /// Exactly this is the next thing that arrives at the client.
    ClientSees(&'static str),
    /// The client ends its side.
    ClientEnds,
    /// The application ends its side.
    AppEnds,
    /// The application sees the end, or that the connection broke.
    AppSeesEnd,
    /// The client sees the end.
    ClientSeesEnd,
    /// A new connection to the application.
    NewConnection,
}

/// Plays `steps`.
pub(super) async fn play(what: &str, protocol: Protocol, ip: IpAddr, steps: &[Step]) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let pair = pair(listener.local_addr().unwrap(), protocol);
    let mut client = TcpStream::connect(pair.client.outbound).await.unwrap();
    let mut app = None;
    for (number, step) in steps.iter().enumerate() {
        let what = format!("{what}, step {number}, {protocol:?}, {ip}");
        match step {
            Step::Client(text) => client.write_all(text.as_bytes()).await.unwrap(),
            Step::ClientSees(text) => sees(&what, &mut client, text).await,
            Step::ClientEnds => client.shutdown().await.unwrap(),
            Step::ClientSeesEnd => assert_eq!(read(&mut client, 1000).await, "", "{what}"),
            Step::NewConnection => app = Some(soon(listener.accept()).await.unwrap().0),
            step => {
                if app.is_none() {
                    app = Some(soon(listener.accept()).await.unwrap().0);
                }
                let app = app.as_mut().unwrap();
                match step {
                    Step::AppSees(text) => sees(&what, app, text).await,
                    Step::App(text) => app.write_all(text.as_bytes()).await.unwrap(),
                    Step::AppEnds => app.shutdown().await.unwrap(),
                    _ => assert_eq!(read(app, 1000).await, "", "{what}"),
                }
            }
        }
    }
}

async fn sees(what: &str, socket: &mut TcpStream, text: &str) {
    assert_eq!(read(socket, text.len()).await, text, "{what}");
}

/// Up to `length` bytes; fewer at the end or when nothing more comes.
async fn read(socket: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    let mut have = 0;
    while have < length {
        match tokio::time::timeout(crate::support::SOON, socket.read(&mut bytes[have..])).await {
            Ok(Ok(n @ 1..)) => have += n,
            Ok(_) => break,
            Err(_elapsed) => return format!("{} and then nothing", String::from_utf8_lossy(&bytes[..have])),
        }
    }
    String::from_utf8_lossy(&bytes[..have]).into_owned()
}
