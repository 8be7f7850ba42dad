//! Three pods: a meshed client, a meshed server with applications, and one outside the mesh with the same applications.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use libtest_mimic::Failed;
use mesh_netlab::{Addresses, Lab};
use mesh_proto::{
    endpoint::Endpoint,
    inbound::InboundPolicy,
    names,
    outbound::{Backend, OutboundPolicy, PodTarget, ServiceTarget},
    workload::{Protocol, ServicePort},
};
use mesh_proxy::{
    config::DataConfig,
    drain::Drain,
    inspect::Inspect,
    limits::Limits,
    listen::Listeners,
    metrics::Metrics,
    nft,
    observers::Observers,
    policy::Policies,
    redirect::{Exempt, Settings, rules},
    worker::{self, Shared},
};
use mesh_runtime::tasks::Tasks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::authority::{Authority, identity};

/// HTTP/1.1 that sends each body back.
pub(crate) const HTTP1_PORT: u16 = 8080;
/// The same as HTTP/2.
pub(crate) const HTTP2_PORT: u16 = 8081;
/// Reads to the end, then sends everything back, backwards.
pub(crate) const BYTES_PORT: u16 = 8082;
/// Speaks first.
pub(crate) const BANNER_PORT: u16 = 8083;
/// As [`HTTP1_PORT`], on 127.0.0.1 only.
pub(crate) const LOOPBACK_ONLY_PORT: u16 = 8084;
/// What it says.
pub(crate) const BANNER: &str = "220 ready\r\n";

const PORTS: [u16; 4] = [HTTP1_PORT, HTTP2_PORT, BYTES_PORT, BANNER_PORT];

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Everything; ends with it.
pub(crate) struct Mesh {
    pub(crate) client: Member,
    pub(crate) server: Member,
    pub(crate) outside: Member,
    lab: Lab,
}

/// One pod.
pub(crate) struct Member {
    pod: mesh_netlab::Pod,
    apps: Option<(Tasks, JoinHandle<()>)>,
    proxy: Option<Proxy>,
}

struct Proxy {
    drain: Drain,
    metrics: mesh_runtime::metrics::Metrics,
    thread: Option<JoinHandle<()>>,
}

impl Mesh {
    pub(crate) fn new() -> Result<Self, Failed> {
        let lab = Lab::new(addresses(254))?;
        let pod = |name, host| lab.pod(name, addresses(host));
        let (client, server, outside) = (pod("client", 1)?, pod("server", 2)?, pod("outside", 3)?);
        let authority = Authority::new();
        let inbound = InboundPolicy { ports: [].into(), default: mesh_proto::inbound::PortPolicy::default() };
        let mut known = Vec::new();
        for (server_ip, outside_ip) in server.addresses().iter().zip(outside.addresses().iter()) {
            for port in PORTS {
                let meshed = Endpoint {
                    address: SocketAddr::new(server_ip, port),
                    identity: Some(identity("server")),
                    pod: None,
                };
                let plain = Endpoint { address: SocketAddr::new(outside_ip, port), identity: None, pod: None };
                known.push((SocketAddr::new(service_ip(server_ip), port), service(meshed.clone(), port)));
                let target = |endpoint| PodTarget { endpoint, protocol: Protocol::Detect };
                known.push((meshed.address, OutboundPolicy::Pod(target(meshed))));
                let outside = match port {
                    BANNER_PORT => OutboundPolicy::External,
                    _ => OutboundPolicy::Pod(target(plain)),
                };
                known.push((SocketAddr::new(outside_ip, port), outside));
            }
        }
        let proxy = |pod: &mesh_netlab::Pod, policies| -> Result<Proxy, Failed> {
            let proxy = pod.run(|| Proxy::start(pod, &authority, policies))??;
            let settings = Settings { exempt: Exempt::Mark(names::PROXY_MARK), ..Settings::default() };
            pod.run(|| nft::apply(&rules(&settings)))??;
            Ok(proxy)
        };
        let client_proxy = proxy(&client, Policies::fixed(Some(inbound.clone()), known.clone()))?;
        let server_proxy = proxy(&server, Policies::fixed(Some(inbound), known))?;
        Ok(Self {
            client: Member { pod: client, apps: None, proxy: Some(client_proxy) },
            server: Member { apps: Some(start_apps(&server)?), pod: server, proxy: Some(server_proxy) },
            outside: Member { apps: Some(start_apps(&outside)?), pod: outside, proxy: None },
            lab,
        })
    }

    pub(crate) fn has_v6(&self) -> bool {
        self.lab.has_v6()
    }

    pub(crate) fn families(&self) -> impl Iterator<Item = Family> {
        [Family::V4, Family::V6].into_iter().filter(|family| *family == Family::V4 || self.has_v6())
    }

    /// Cluster IP of the Service whose one endpoint is the server.
    pub(crate) fn service_ip(&self, family: Family) -> IpAddr {
        service_ip(self.server.ip(family))
    }
}

impl Member {
    pub(crate) fn ip(&self, family: Family) -> IpAddr {
        let mut addresses = self.pod.addresses().iter();
        addresses.find(|ip| ip.is_ipv4() == (family == Family::V4)).unwrap()
    }

    /// Runs `f` in the pod. A panic in it is one here.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.pod.run(f)
    }

    pub(crate) fn metrics(&self) -> String {
        self.proxy.as_ref().map(|proxy| proxy.metrics.encode()).unwrap_or_default()
    }

    /// Whether a series of `family` with both label texts is above zero; waits a little, it may be written after the answer.
    pub(crate) fn counts(&self, family: &str, one: &str, two: &str) -> bool {
        let deadline = std::time::SystemTime::now() + std::time::Duration::from_secs(10);
        loop {
            let text = self.metrics();
            let found = text.lines().any(|line| {
                line.starts_with(family) && line.contains(one) && line.contains(two) && !line.ends_with(" 0")
            });
            if found || std::time::SystemTime::now() > deadline {
                return found;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some((tasks, thread)) = self.apps.take() {
            tasks.token().cancel();
            let _ = thread.join();
        }
    }
}

impl Proxy {
    /// In the network of the calling thread.
    fn start(pod: &mesh_netlab::Pod, authority: &Authority, policies: Policies) -> io::Result<Self> {
        let own = identity(pod.name());
        let config = DataConfig {
            socket_mark: Some(names::PROXY_MARK),
            ..DataConfig::new(own.clone(), pod.addresses().iter().collect())
        };
        let (drain, metrics) = (Drain::new(), mesh_runtime::metrics::Metrics::new());
        let listeners = Listeners::bind(&config)?;
        let limits = Limits::new(&metrics, &config.limits);
        let shared = Shared {
            config: Arc::new(config),
            policies,
            credentials: authority.credentials(&own),
            observers: Observers::default(),
            metrics: Metrics::new(&metrics),
            inspect: Inspect::default(),
            limits,
            drain: drain.clone(),
        };
        let thread = Some(worker::spawn(0, shared, listeners)?);
        Ok(Self { drain, metrics, thread })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.drain.abort();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn addresses(host: u8) -> Addresses {
    Addresses { v4: Ipv4Addr::new(10, 0, 0, host), v6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into())) }
}

fn service_ip(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::new(10, 96, 0, 1).into() } else { Ipv6Addr::new(0xfd00, 96, 0, 0, 0, 0, 0, 1).into() }
}

fn service(endpoint: Endpoint, port: u16) -> OutboundPolicy {
    let service = ServicePort { namespace: "shop".into(), name: "server".into(), port };
    OutboundPolicy::Service(ServiceTarget {
        service: service.clone(),
        protocol: Protocol::Detect,
        routes: vec![],
        backends: vec![Backend { service, endpoints: vec![endpoint] }],
    })
}

/// Starts the applications in the pod's network. They listen on its own addresses, not on all.
fn start_apps(pod: &mesh_netlab::Pod) -> Result<(Tasks, JoinHandle<()>), Failed> {
    let tasks = Tasks::new();
    let own: Vec<IpAddr> = pod.addresses().iter().collect();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let tasks_ = tasks.clone();
    let thread = pod.run(move || {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for ip in own {
                    for port in PORTS {
                        listen(&tasks_, SocketAddr::new(ip, port)).await;
                    }
                }
                listen(&tasks_, SocketAddr::from(([127, 0, 0, 1], LOOPBACK_ONLY_PORT))).await;
                ready.send(()).unwrap();
                tasks_.cancelled().await;
            });
        })
    })?;
    is_ready.recv()?;
    Ok((tasks, thread))
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
