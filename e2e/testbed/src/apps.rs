//! The applications of a pod: HTTP that says which pod answers, and a line protocol in which the server speaks first.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, thread::JoinHandle};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh_netlab::Pod;
use mesh_runtime::tasks::Tasks;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// HTTP/1.1; the body of every answer is the pod's name.
pub const HTTP_PORT: u16 = 8080;
/// Greets with `220 NAME`, then answers each line with itself.
pub const LINES_PORT: u16 = 7000;

/// Running applications; they end with this value.
#[derive(Debug)]
pub struct Apps {
    tasks: Tasks,
    thread: Option<JoinHandle<()>>,
}

impl Apps {
    /// In the network of `pod`, listening on its own addresses.
    pub fn start(pod: &Pod) -> anyhow::Result<Self> {
        let tasks = Tasks::new();
        let listen = |port| {
            let listener = std::net::TcpListener::bind(SocketAddr::new(pod.addresses().v4.into(), port))?;
            listener.set_nonblocking(true)?;
            io::Result::Ok(listener)
        };
        let (http, lines) = pod.run(|| io::Result::Ok((listen(HTTP_PORT)?, listen(LINES_PORT)?)))??;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (name, owner): (Arc<str>, _) = (pod.name().into(), tasks.clone());
        let thread = std::thread::Builder::new().name("apps".into()).spawn(move || {
            runtime.block_on(async {
                let serve = async { tokio::join!(serve_http(http, &name, &owner), serve_lines(lines, &name, &owner)) };
                tokio::select! {
                    _ = serve => {}
                    () = owner.cancelled() => {}
                }
            });
        })?;
        Ok(Self { tasks, thread: Some(thread) })
    }
}

impl Drop for Apps {
    fn drop(&mut self) {
        self.tasks.token().cancel();
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread.
            let _ = thread.join();
        }
    }
}

async fn serve_http(listener: std::net::TcpListener, name: &Arc<str>, tasks: &Tasks) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let name = Bytes::copy_from_slice(name.as_bytes());
        let answer = service_fn(move |_: Request<Incoming>| {
            let response = Response::new(Full::new(name.clone()));
            async move { Ok::<_, Infallible>(response) }
        });
        tasks.spawn("http connection", async move {
            // A client that leaves in the middle is its own affair.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

async fn serve_lines(listener: std::net::TcpListener, name: &Arc<str>, tasks: &Tasks) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        let name = Arc::clone(name);
        tasks.spawn("line connection", async move {
            let _ = talk(socket, &name).await;
        });
    }
}

async fn talk(socket: TcpStream, name: &str) -> io::Result<()> {
    let (read, mut write) = socket.into_split();
    write.write_all(format!("220 {name}\r\n").as_bytes()).await?;
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        write.write_all(format!("{line}\r\n").as_bytes()).await?;
    }
    Ok(())
}
