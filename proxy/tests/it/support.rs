//! Pods for tests: workers with their credentials, and applications.

pub(crate) mod collector;
pub(crate) mod controller;
pub(crate) mod proxy;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use mesh_proto::{
    endpoint::Endpoint,
    inbound::{InboundPolicy, PortPolicy},
    outbound::{Backend, OutboundPolicy, ServiceTarget},
    workload::{Protocol, ServicePort},
};
use mesh_proxy::{
    config::{DataConfig, OriginalDst},
    drain::Drain,
    inspect::Inspect,
    limits::Limits,
    listen::Listeners,
    metrics::Metrics,
    observers::Observers,
    policy::Policies,
    tap,
    tls::Credentials,
    trace::Traces,
    worker::{self, Shared},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::matrix::stage;
pub(crate) use crate::{
    authority::{Authority, identity},
    matrix::stage::{SOON, soon, until},
};

/// Where clients believe to connect to; nothing is there.
pub(crate) const SERVICE: &str = "10.96.0.1:80";

/// A running worker.
pub(crate) struct Pod {
    pub(crate) outbound: SocketAddr,
    pub(crate) inbound: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) tap: tap::Hub,
    pub(crate) inspect: Inspect,
    metrics: mesh_runtime::metrics::Metrics,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.drain.abort();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("a worker panicked");
        }
    }
}

impl Pod {
    pub(crate) fn start(config: DataConfig, policies: Policies, credentials: Credentials) -> Self {
        Self::start_with(config, policies, credentials, None)
    }

    fn start_with(config: DataConfig, policies: Policies, credentials: Credentials, traces: Option<Traces>) -> Self {
        // The port that is free for IPv4 may be taken for IPv6, by a test beside this one.
        let listeners = std::iter::repeat_with(|| Listeners::bind(&config)).take(20).find_map(Result::ok).unwrap();
        let outbound = listeners.outbound_addrs().unwrap()[0];
        let inbound = SocketAddr::from(([127, 0, 0, 1], listeners.inbound_addr().unwrap().port()));
        let (metrics, drain, tap) = (mesh_runtime::metrics::Metrics::new(), Drain::new(), tap::Hub::new());
        let inspect = Inspect::default();
        let limits = Limits::new(&metrics, &config.limits);
        let shared = Shared {
            config: Arc::new(config),
            policies,
            credentials,
            observers: Observers { tap: tap.clone(), traces, ..Observers::default() },
            metrics: Metrics::new(&metrics),
            inspect: inspect.clone(),
            limits,
            drain: drain.clone(),
        };
        let thread = Some(worker::spawn(0, shared, listeners).unwrap());
        Self { outbound, inbound, drain, tap, inspect, metrics, thread }
    }

    /// Whether a metric stands there with this value; waits for it, because it may be written after the answer.
    pub(crate) async fn counted(&self, line: &str) {
        counted(&self.metrics, line).await;
    }

    /// Counted by code.
    pub(crate) async fn ended_with(&self, direction: &str, code: &str) {
        self.counted(&format!("mesh_error_total{{direction=\"{direction}\",code=\"{code}\"}} 1")).await;
    }

    pub(crate) fn metrics(&self) -> String {
        self.metrics.encode()
    }
}

/// Waits until a metric stands there with this value.
pub(crate) async fn counted(metrics: &mesh_runtime::metrics::Metrics, line: &str) {
    until(async || {
        let text = metrics.encode();
        let is_there = text.lines().any(|known| known == line);
        is_there.then_some(()).ok_or_else(|| format!("{line}\nnot in\n{text}"))
    })
    .await;
}

/// Settings of a pod whose connections all go to `destination`. Its ports are free ones.
pub(crate) fn config(name: &str, pod_ip: &str, destination: SocketAddr) -> DataConfig {
    DataConfig {
        outbound_port: 0,
        inbound_port: 0,
        original_dst: OriginalDst::Fixed(destination),
        share_from: 0,
        ..DataConfig::new(identity(name), vec![pod_ip.parse::<IpAddr>().unwrap()])
    }
}

/// Everyone may; the port speaks `protocol`.
pub(crate) fn allow(protocol: Protocol) -> InboundPolicy {
    let port = PortPolicy { protocol, ..PortPolicy::default() };
    InboundPolicy { ports: [].into(), default: port }
}

/// A meshed pod `server` in front of `app`, at the same address.
pub(crate) fn server(authority: &Authority, app: SocketAddr, policy: Option<InboundPolicy>) -> Pod {
    let id = identity("server");
    let config = config("server", &app.ip().to_string(), app);
    let mut pod = Pod::start(config, Policies::fixed(policy, []), authority.credentials(&id));
    pod.inbound.set_ip(app.ip());
    pod
}

/// The same, traced.
pub(crate) fn server_with(
    authority: &Authority,
    app: SocketAddr,
    policy: Option<InboundPolicy>,
    traces: Traces,
) -> Pod {
    let credentials = authority.credentials(&identity("server"));
    Pod::start_with(config("server", "127.0.0.1", app), Policies::fixed(policy, []), credentials, Some(traces))
}

/// A meshed pod `client` whose [`SERVICE`] has these endpoints.
pub(crate) fn client(authority: &Authority, protocol: Protocol, endpoints: Vec<Endpoint>) -> Pod {
    let destination = SERVICE.parse().unwrap();
    let policies = Policies::fixed(None, [(destination, service(protocol, endpoints))]);
    Pod::start(config("client", "10.9.9.9", destination), policies, authority.credentials(&identity("client")))
}

/// The same, traced.
pub(crate) fn client_with(authority: &Authority, protocol: Protocol, endpoints: Vec<Endpoint>, traces: Traces) -> Pod {
    let destination = SERVICE.parse().unwrap();
    let policies = Policies::fixed(None, [(destination, service(protocol, endpoints))]);
    let credentials = authority.credentials(&identity("client"));
    Pod::start_with(config("client", "10.9.9.9", destination), policies, credentials, Some(traces))
}

pub(crate) fn service(protocol: Protocol, endpoints: Vec<Endpoint>) -> OutboundPolicy {
    let service = ServicePort { namespace: "shop".into(), name: "web".into(), port: 80 };
    OutboundPolicy::Service(ServiceTarget {
        service: service.clone(),
        protocol,
        routes: vec![],
        backends: vec![Backend { service, endpoints }],
    })
}

/// Meshed as `name`.
pub(crate) fn meshed(address: SocketAddr, name: &str) -> Endpoint {
    Endpoint { address, identity: Some(identity(name)), pod: None }
}

/// Not meshed.
pub(crate) fn plain(address: SocketAddr) -> Endpoint {
    Endpoint { address, identity: None, pod: None }
}

/// Loopback addresses of the families that this machine has.
pub(crate) fn families() -> Vec<IpAddr> {
    let all = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    all.into_iter().filter(|ip| std::net::TcpListener::bind((*ip, 0)).is_ok()).collect()
}

/// Client and server pod with an application behind, both for `protocol`, all at the address of the application.
pub(crate) struct Pair {
    pub(crate) client: Pod,
    pub(crate) server: Pod,
}

pub(crate) fn pair(app: SocketAddr, protocol: Protocol) -> Pair {
    let authority = Authority::new();
    let server = server(&authority, app, Some(allow(protocol)));
    let mut client = client(&authority, protocol, vec![meshed(server.inbound, "server")]);
    client.outbound.set_ip(app.ip());
    Pair { client, server }
}

/// An application on loopback; it ends with this value.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    _running: stage::App,
}

impl App {
    /// Runs `serve` for every connection.
    pub(crate) async fn new<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), _running: stage::App::on(listener, serve) }
    }
}

/// Answers every request without a body with `ok`.
pub(crate) async fn answering() -> App {
    App::new(|mut socket| async move {
        let mut read = Vec::new();
        while socket.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
            if read.ends_with(b"\r\n\r\n") {
                read.clear();
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await
}

/// Nobody listens there.
pub(crate) async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Sends `text` and reads until the other side ends.
pub(crate) async fn exchange(address: SocketAddr, text: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon(socket.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}
