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
            Step::ClientSeesEnd => assert_eq!(read(&mut client, 1000).await, "", "{what}"),
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
        match tokio::time::timeout(SOON, socket.read(&mut bytes[have..])).await {
            Ok(Ok(n @ 1..)) => have += n,
            Ok(_) => break,
            Err(_elapsed) => return format!("{} and then nothing", String::from_utf8_lossy(&bytes[..have])),
        }
    }
    String::from_utf8_lossy(&bytes[..have]).into_owned()
}
