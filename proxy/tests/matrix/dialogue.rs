//! A client and an application that follow a script, byte for byte, with the mesh in between.

use std::{net::IpAddr, time::Duration};

use mesh_proto::workload::Protocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::stage::{SOON, Stage, soon};

/// One step; the next one begins when it is done. `{destination}` in a text is where the client connected to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// The client sends this.
    Client(&'static str),
    /// The client says nothing for a while, less than it has to show what it speaks.
    ClientPauses,
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

/// A pause is what is tested, so there is nothing to wait for.
const PAUSE: Duration = Duration::from_millis(200);

/// Plays `steps`.
pub(super) async fn play(stage: &impl Stage, what: &str, protocol: Protocol, ip: IpAddr, steps: &[Step]) {
    let (listener, way) = stage.open(protocol, ip);
    let text = |text: &str| text.replace("{destination}", &way.destination.to_string());
    let mut client = way.connect();
    let mut app = None;
    for (number, step) in steps.iter().enumerate() {
        let what = format!("{what}, step {number}, {protocol:?}, {ip}");
        match step {
            Step::Client(words) => client.write_all(words.as_bytes()).await.unwrap(),
            Step::ClientPauses => tokio::time::sleep(PAUSE).await,
            Step::ClientSees(words) => sees(&what, &mut client, &text(words)).await,
            Step::ClientEnds => client.shutdown().await.unwrap(),
            Step::ClientSeesEnd => sees_end(&what, &mut client).await,
            Step::NewConnection => app = Some(soon(listener.accept()).await.unwrap().0),
            step => {
                if app.is_none() {
                    app = Some(soon(listener.accept()).await.unwrap().0);
                }
                let app = app.as_mut().unwrap();
                match step {
                    Step::AppSees(words) => sees(&what, app, &text(words)).await,
                    Step::App(words) => app.write_all(words.as_bytes()).await.unwrap(),
                    Step::AppEnds => app.shutdown().await.unwrap(),
                    _ => sees_end(&what, app).await,
                }
            }
        }
    }
}

/// Exactly this is what comes next; if not, what came instead, and how it ended.
async fn sees(what: &str, socket: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    let mut have = 0;
    let mut end = String::new();
    while have < bytes.len() && end.is_empty() {
        match tokio::time::timeout(SOON, socket.read(&mut bytes[have..])).await {
            Ok(Ok(0)) => end = " and then the end".into(),
            Ok(Ok(n)) => have += n,
            Ok(Err(error)) => end = format!(" and then: {error}"),
            Err(_elapsed) => end = " and then nothing".into(),
        }
    }
    assert_eq!(String::from_utf8_lossy(&bytes[..have]) + &*end, text, "{what}");
}

/// Nothing more comes: the other side has ended, or it broke.
async fn sees_end(what: &str, socket: &mut TcpStream) {
    let mut byte = [0];
    let read = tokio::time::timeout(SOON, socket.read(&mut byte)).await.unwrap_or_else(|_| panic!("{what}: no end"));
    assert!(!matches!(read, Ok(1..)), "{what}: {byte:?} came instead");
}
