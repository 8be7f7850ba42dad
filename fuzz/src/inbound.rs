//! A real worker of the proxy with an application behind it: bytes go in by a socket, as a client outside the mesh sends them.

pub(crate) mod oracle;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, OnceLock},
    time::Duration,
};

use mesh_proto::{
    identity::Identity,
    inbound::{InboundPolicy, PortPolicy},
    workload::Protocol,
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
    tls::Credentials,
    worker::{self, Shared},
};

/// Longest until the proxy has ended a connection whose client is done: it waits for nobody then.
const PATIENCE: Duration = Duration::from_secs(10);

/// The proxy's inbound address; one worker for the whole run.
fn proxy() -> SocketAddr {
    static PROXY: OnceLock<SocketAddr> = OnceLock::new();
    *PROXY.get_or_init(|| Proxy::start(true, |application| oracle::serve(&application, |_| {})).address)
}

/// A worker of its own, with an application behind it.
pub(crate) struct Proxy {
    /// Its inbound listener.
    pub(crate) address: SocketAddr,
    /// Its application.
    pub(crate) application: SocketAddr,
    /// What it counts.
    pub(crate) metrics: mesh_runtime::metrics::Metrics,
}

impl Proxy {
    /// With `application` serving what comes to it, on a thread.
    pub(crate) fn start(direct: bool, application: impl FnOnce(TcpListener) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || application(listener));
        start(address, direct).expect("a worker starts")
    }
}

fn start(application: SocketAddr, direct: bool) -> std::io::Result<Proxy> {
    let identity: Identity = "spiffe://cluster.local/ns/shop/sa/web".parse().expect("it is an identity");
    let config = DataConfig {
        outbound_port: 0,
        inbound_port: 0,
        original_dst: OriginalDst::Fixed(application),
        direct,
        share_from: 0,
        ..DataConfig::new(identity.clone(), vec![application.ip()])
    };
    // A port that is free for IPv4 may be taken for IPv6.
    let listeners = std::iter::repeat_with(|| Listeners::bind(&config)).take(20).find_map(Result::ok);
    let listeners = listeners.ok_or(ErrorKind::AddrInUse)?;
    let port = listeners.inbound_addr()?.port();
    let default = PortPolicy { protocol: Protocol::Http1, ..PortPolicy::default() };
    let metrics = mesh_runtime::metrics::Metrics::new();
    let shared = Shared {
        limits: Limits::new(&metrics, &config.limits),
        config: Arc::new(config),
        policies: Policies::fixed(Some(InboundPolicy { ports: [].into(), default }), []),
        credentials: Credentials::new(identity),
        observers: Observers::default(),
        metrics: Metrics::new(&metrics),
        inspect: Inspect::default(),
        drain: Drain::new(),
    };
    worker::spawn(0, shared, listeners)?;
    Ok(Proxy { address: SocketAddr::new(application.ip(), port), application, metrics })
}

/// Says this, in pieces, ends, and gives what came back. Panics where the proxy does not end the connection then.
pub fn say(pieces: &[&[u8]]) -> Vec<u8> {
    say_to(proxy(), pieces)
}

/// The same, to this one.
pub(crate) fn say_to(proxy: SocketAddr, pieces: &[&[u8]]) -> Vec<u8> {
    let mut socket = TcpStream::connect(proxy).expect("the proxy listens");
    socket.set_nodelay(true).expect("it is a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    for piece in pieces {
        // It may have heard enough.
        if socket.write_all(piece).is_err() {
            break;
        }
    }
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the connection was not ended {PATIENCE:?} after its client: {}", String::from_utf8_lossy(&answer))
        }
        _ => answer,
    }
}
