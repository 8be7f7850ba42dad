//! Where connections go to and come from: a meshed client, a meshed server with applications, and with the same applications a
//! pod without a sidecar and a machine that the controller has never heard of.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    thread::JoinHandle,
};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh_netlab::Addresses;
use mesh_runtime::tasks::Tasks;
use mesh_testbed::{Member, Mesh, manifests, member::Pod, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::settings;

/// HTTP/1.1 that sends each body back.
pub(super) const HTTP1_PORT: u16 = 9080;
/// The same as HTTP/2.
pub(super) const HTTP2_PORT: u16 = 9081;
/// Reads to the end, then sends everything back, backwards.
pub(super) const BYTES_PORT: u16 = 9082;
/// Speaks first.
pub(super) const BANNER_PORT: u16 = 9083;
/// As [`HTTP1_PORT`], on 127.0.0.1 only.
pub(super) const LOOPBACK_ONLY_PORT: u16 = 9084;
/// What it says.
pub(super) const BANNER: &str = "220 ready\r\n";

const PORTS: [u16; 4] = [HTTP1_PORT, HTTP2_PORT, BYTES_PORT, BANNER_PORT];

/// The Service before the server, which says nothing of what its ports speak.
const SERVICE: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 96, 0, 9), v6: Some(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 9)) };

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Everything; ends with it.
pub(super) struct Place {
    pub(super) client: Member,
    pub(super) server: Member,
    /// Of the cluster, and not of the mesh.
    pub(super) plain: mesh_netlab::Pod,
    /// Of neither.
    pub(super) outside: mesh_netlab::Pod,
    apps: Vec<(Tasks, JoinHandle<()>)>,
    _mesh: Mesh,
}

impl Place {
    pub(super) fn new() -> anyhow::Result<Self> {
        let mesh = Mesh::start(settings())?;
        let ports = PORTS.into_iter().map(|port| (port, None));
        let service = manifests::service_of_ports("server", ("app", "server"), SERVICE, ports);
        mesh.control.apply("service.yaml", &service)?;
        let server = mesh.member(&Pod::new("server", "server", 1))?;
        let client = mesh.member(&Pod::new("client", "client", 2))?;
        let plain = Pod::new("plain", "plain", 3);
        mesh.control.apply(&plain.file(), &manifests::plain_pod("plain", plain.addresses()))?;
        let (plain, outside) = (mesh.outsider("plain", 3)?, mesh.outsider("outside", 4)?);
        let apps = vec![
            server.run(|| start_apps(server.addresses()))?,
            plain.run(|| start_apps(plain.addresses()))?,
            outside.run(|| start_apps(outside.addresses()))?,
        ];
        Ok(Self { client, server, plain, outside, apps, _mesh: mesh })
    }

    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        let has_v6 = self.server.addresses().v6.is_some();
        [Family::V4, Family::V6].into_iter().filter(move |family| *family == Family::V4 || has_v6)
    }

    /// Cluster IP of the Service whose one endpoint is the server.
    pub(super) fn service(&self, family: Family, port: u16) -> SocketAddr {
        at(SERVICE, family, port)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for (tasks, thread) in self.apps.drain(..) {
            tasks.token().cancel();
            let _ = thread.join();
        }
    }
}

/// A port of one of several addresses.
pub(super) fn at(addresses: Addresses, family: Family, port: u16) -> SocketAddr {
    let ip = addresses.iter().find(|ip| ip.is_ipv4() == (family == Family::V4)).expect("the family is there");
    SocketAddr::new(ip, port)
}

/// Waits until a counter's series with all these label texts is above zero; it may be written after the answer.
pub(super) fn counted(member: &Member, family: &str, labels: &[&str]) -> anyhow::Result<()> {
    let what = format!("{family} {labels:?} above zero");
    until(&what, || member.count(family, labels).is_ok_and(|count| count > 0).then_some(()))
}

/// Starts the applications in the network of the calling thread. They listen on its own addresses, not on all.
fn start_apps(addresses: Addresses) -> (Tasks, JoinHandle<()>) {
    let tasks = Tasks::new();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let owner = tasks.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for (ip, port) in addresses.iter().flat_map(|ip| PORTS.map(|port| (ip, port))) {
                listen(&owner, SocketAddr::new(ip, port)).await;
            }
            listen(&owner, SocketAddr::from(([127, 0, 0, 1], LOOPBACK_ONLY_PORT))).await;
            ready.send(()).unwrap();
            owner.cancelled().await;
        });
    });
    is_ready.recv().expect("the applications have their ports");
    (tasks, thread)
}

async fn listen(tasks: &Tasks, address: SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    let owner = tasks.clone();
    tasks.spawn("app", async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let executor = owner.executor("app stream");
            owner.spawn("app connection", async move {
                match address.port() {
                    HTTP2_PORT => {
                        let server = hyper::server::conn::http2::Builder::new(executor);
                        let _ = server.serve_connection(TokioIo::new(socket), service_fn(echo)).await;
                    }
                    BYTES_PORT => backwards(socket).await,
                    BANNER_PORT => {
                        let _ = tokio::io::AsyncWriteExt::write_all(&mut { socket }, BANNER.as_bytes()).await;
                    }
                    _ => {
                        let server = hyper::server::conn::http1::Builder::new();
                        let _ = server.serve_connection(TokioIo::new(socket), service_fn(echo)).await;
                    }
                }
            });
        }
    });
}

async fn echo(request: Request<Incoming>) -> Result<Response<Incoming>, Infallible> {
    Ok(Response::new(request.into_body()))
}

async fn backwards(mut socket: TcpStream) {
    let mut bytes = Vec::new();
    if socket.read_to_end(&mut bytes).await.is_ok() {
        bytes.reverse();
        let _ = socket.write_all(&bytes).await;
    }
}
