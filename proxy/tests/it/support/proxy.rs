//! A whole proxy in this process, both sides of it, against a scripted controller.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use mesh_proto::{config::Value, names, workload::Protocol};
use mesh_proxy::{
    app::App,
    config::{Config, DataConfig, env},
    drain::Drain,
    identity::Schedule,
    policy::Policies,
    tap::Hub,
    tls::Credentials,
};
use mesh_runtime::{
    shutdown::Signal,
    tasks::Tasks,
    telemetry::{self, Format},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};

use super::{SOON, allow, controller::Controller, until};
use crate::authority::Authority;

/// A proxy that asks a controller.
pub(crate) async fn start() -> (Arc<Authority>, Controller, Proxy) {
    let authority = Arc::new(Authority::new());
    let controller = Controller::start(&authority).await;
    let proxy = Proxy::start(&authority, controller.address).await;
    (authority, controller, proxy)
}

/// A whole proxy; it ends with the value.
pub(crate) struct Proxy {
    pub(crate) admin: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) credentials: Credentials,
    pub(crate) policies: Policies,
    pub(crate) tap: Hub,
    pub(crate) readiness: mesh_runtime::readiness::Readiness,
    pub(crate) signals: mpsc::UnboundedSender<Signal>,
    tasks: Tasks,
    pub(crate) dir: tempfile::TempDir,
}

impl Proxy {
    pub(crate) async fn start(authority: &Authority, controller: SocketAddr) -> Self {
        Self::start_with(authority, controller, Schedule::default()).await
    }

    pub(crate) async fn start_with(authority: &Authority, controller: SocketAddr, schedule: Schedule) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "first\n").unwrap();
        let config = config(dir.path(), authority, controller);
        let log = telemetry::init("off", Format::Plain).unwrap();
        let app = App::start(config, schedule, log).await.unwrap();
        let (signals, mut received) = mpsc::unbounded_channel();
        let proxy = Self {
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, app.admin.port())),
            drain: app.drain.clone(),
            credentials: app.credentials.clone(),
            policies: app.policies.clone(),
            tap: app.tap.clone(),
            readiness: app.readiness.clone(),
            signals,
            tasks: Tasks::new(),
            dir,
        };
        let run = app.run(async move || received.recv().await.unwrap_or(Signal::Abort));
        proxy.tasks.spawn("proxy", run);
        proxy
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&self) {
        let stopped = self.tasks.shutdown(SOON).await;
        assert!(stopped.is_clean(), "{stopped}");
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        ask(self.admin, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
    }

    /// Waits until a line of the metrics begins so.
    pub(crate) async fn counted(&self, line: &str) {
        until(async || {
            let page = self.get("/metrics").await;
            let is_there = page.lines().any(|known| known.starts_with(line));
            is_there.then_some(()).ok_or_else(|| format!("{line}\nnot in\n{page}"))
        })
        .await;
    }

    pub(crate) async fn certified(&self) {
        tokio::time::timeout(SOON, self.credentials.until_certified()).await.expect("a certificate comes");
    }
}

pub(crate) async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

pub(crate) fn config(dir: &Path, authority: &Authority, controller: SocketAddr) -> Config {
    let environment: BTreeMap<&str, String> = [
        (names::ENV_POD_NAMESPACE, "shop".to_owned()),
        (names::ENV_POD_NAME, "web-1".to_owned()),
        (names::ENV_POD_UID, "uid-1".to_owned()),
        (names::ENV_POD_IPS, "127.0.0.1".to_owned()),
        (names::ENV_SERVICE_ACCOUNT, "web".to_owned()),
        (names::ENV_CONTROLLER_ADDR, controller.to_string()),
        (names::ENV_TOKEN_FILE, dir.join("token").display().to_string()),
        (names::ENV_STATE_DIR, dir.display().to_string()),
        (names::ENV_TRUST_BUNDLE, authority.pem()),
    ]
    .into();
    let config = env::parse(&environment).unwrap();
    let data = DataConfig { outbound_port: 0, inbound_port: 0, admin_port: 0, ..(*config.data).clone() };
    Config { data: Arc::new(data), ..config }
}

pub(crate) fn inbound() -> Value {
    Value::Inbound(allow(Protocol::Detect))
}

pub(crate) fn destination(last: u8) -> SocketAddr {
    ([10, 96, 0, last], 80).into()
}
