//! The control side of a whole proxy against a scripted controller: certificate, stream, readiness, drain.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use mesh_proto::{
    admin,
    client::TapClient,
    config::{Key, ProxyMessage, Value},
    names,
    outbound::OutboundPolicy,
    outcome::Outcome,
    tap::{Direction, TapEvent, TapFilter},
    trust::TrustBundle,
    workload::Protocol,
};
use mesh_proxy::{
    app::App,
    config::{Config, DataConfig, env},
    drain::Drain,
    identity::Schedule,
    policy::Policies,
    tap::Hub,
    tls::{Alpn, Credentials, peer_identity},
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
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{
    authority::{Authority, identity},
    support::{
        SOON, allow,
        controller::{CONTROLLER, Controller, Signs},
    },
};

/// A whole proxy; it ends with the value.
struct Proxy {
    admin: SocketAddr,
    drain: Drain,
    credentials: Credentials,
    policies: Policies,
    tap: Hub,
    readiness: mesh_runtime::readiness::Readiness,
    signals: mpsc::UnboundedSender<Signal>,
    tasks: Tasks,
    dir: tempfile::TempDir,
}

impl Proxy {
    async fn start(authority: &Authority, controller: SocketAddr) -> Self {
        Self::start_with(authority, controller, Schedule::default()).await
    }

    async fn start_with(authority: &Authority, controller: SocketAddr, schedule: Schedule) -> Self {
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
    async fn ended(&self) {
        let stopped = self.tasks.shutdown(SOON).await;
        assert!(stopped.is_clean(), "{stopped}");
    }

    async fn get(&self, path: &str) -> String {
        ask(self.admin, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
    }

    /// Waits until a line of the metrics begins so.
    async fn counted(&self, line: &str) {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let page = self.get("/metrics").await;
            if page.lines().any(|known| known.starts_with(line)) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{line}\nnever was in\n{page}");
            tokio::task::yield_now().await;
        }
    }

    async fn certified(&self) {
        tokio::time::timeout(SOON, self.credentials.until_certified()).await.expect("a certificate comes");
    }
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn config(dir: &Path, authority: &Authority, controller: SocketAddr) -> Config {
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

fn inbound() -> Value {
    Value::Inbound(allow(Protocol::Detect))
}

fn destination(last: u8) -> SocketAddr {
    ([10, 96, 0, last], 80).into()
}

#[tokio::test]
async fn a_proxy_is_ready_when_it_holds_its_certificate_and_its_inbound_policy() {
    let authority = Arc::new(Authority::new());
    let mut controller = Controller::start(&authority).await;
    *controller.signs.lock() = Signs::Not(Outcome::TokenInvalid);
    let proxy = Proxy::start(&authority, controller.address).await;
    assert_eq!(controller.token().await, "first");
    assert_eq!(proxy.readiness.pending(), ["identity", "inbound policy"]);
    assert!(proxy.get("/ready").await.starts_with("HTTP/1.1 503"));
    assert!(proxy.get("/live").await.starts_with("HTTP/1.1 200"));

    *controller.signs.lock() = Signs::For(Duration::from_hours(24));
    let mut session = controller.session().await;
    assert_eq!(session.identity, identity("web"));
    assert_eq!(proxy.readiness.pending(), ["inbound policy"]);
    session.welcome().await;
    session.taken(Key::Inbound, 1, inbound()).await;
    tokio::time::timeout(SOON, proxy.readiness.ready()).await.expect("ready");
    assert!(proxy.get("/ready").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_refused_token_is_counted_by_its_code_and_read_anew_for_the_next_attempt() {
    let authority = Arc::new(Authority::new());
    let mut controller = Controller::start(&authority).await;
    *controller.signs.lock() = Signs::Not(Outcome::TokenExpired);
    let proxy = Proxy::start(&authority, controller.address).await;
    assert_eq!(controller.token().await, "first");
    proxy.counted("identity_cert_failures_total{code=\"token-expired\"} ").await;
    std::fs::write(proxy.dir.path().join("token"), "second").unwrap();
    *controller.signs.lock() = Signs::For(Duration::from_hours(24));
    while controller.token().await != "second" {}
    proxy.certified().await;
    proxy.counted("identity_cert_refreshes_total 1").await;
}

#[tokio::test]
async fn a_token_goes_to_nobody_but_the_controller() {
    let authority = Arc::new(Authority::new());
    let stranger = Authority::new();
    let day = Duration::from_hours(24);
    let expired = |params: &mut rcgen::CertificateParams| {
        params.not_after = (std::time::SystemTime::now() - day).into();
    };
    for leaf in [
        authority.issue("spiffe://cluster.local/ns/mesh-system/sa/mesh-injector", |_| {}),
        authority.issue("spiffe://other/ns/mesh-system/sa/mesh-controller", |_| {}),
        authority.issue(CONTROLLER, expired),
        stranger.issue(CONTROLLER, |_| {}),
    ] {
        let mut controller = Controller::start_at("127.0.0.1:0".parse().unwrap(), &authority, leaf).await;
        let proxy = Proxy::start(&authority, controller.address).await;
        proxy.counted("identity_cert_failures_total{code=\"controller-not-proved\"} ").await;
        assert!(controller.tokens.try_recv().is_err());
        assert!(proxy.credentials.facts().is_none());
    }
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_not_used() {
    let authority = Arc::new(Authority::new());
    let controller = Controller::start(&authority).await;
    *controller.signs.lock() = Signs::SomebodyElse(authority.clone());
    let proxy = Proxy::start(&authority, controller.address).await;
    proxy.counted("identity_cert_failures_total{code=\"certificate-unusable\"} ").await;
    assert!(proxy.credentials.client(Alpn::H2).is_err());
}

#[tokio::test]
async fn a_renewal_breaks_no_open_connection() {
    let authority = Arc::new(Authority::new());
    let controller = Controller::start(&authority).await;
    *controller.signs.lock() = Signs::For(Duration::from_mins(1));
    let soon = Schedule { after: 0.005, jitter: 0.0, at_least: Duration::ZERO };
    let proxy = Proxy::start_with(&authority, controller.address, soon).await;
    proxy.certified().await;
    let peer = authority.credentials(&identity("peer"));
    let (mut client, mut server) = connect(&peer, &proxy.credentials).await;
    let first = proxy.credentials.facts().unwrap().serial;
    let mut changes = proxy.credentials.changes();
    while proxy.credentials.facts().unwrap().serial == first {
        tokio::time::timeout(SOON, changes.changed()).await.expect("a renewal").unwrap();
    }
    client.write_all(b"still").await.unwrap();
    let mut still = [0; 5];
    server.read_exact(&mut still).await.unwrap();
    server.write_all(b"there").await.unwrap();
    client.read_exact(&mut still).await.unwrap();
    assert_eq!(&still, b"there");
    let (client, _server) = connect(&peer, &proxy.credentials).await;
    assert_eq!(peer_identity(client.get_ref().1.peer_certificates()), Ok(identity("web")));
}

#[tokio::test]
async fn an_expired_certificate_serves_nobody() {
    let authority = Arc::new(Authority::new());
    let credentials = Credentials::new(identity("web"));
    let (chain, key) = authority.issue(identity("web").as_str(), |params| {
        params.not_after = (std::time::SystemTime::now() + Duration::from_secs(2)).into();
    });
    credentials.install(chain, key, &authority.bundle()).unwrap();
    let deadline = tokio::time::Instant::now() + SOON;
    while credentials.server().is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "it expired long ago");
        tokio::task::yield_now().await;
    }
    assert!(credentials.client(Alpn::Tcp).is_err());
    assert!(credentials.facts().is_some(), "people can still see it");
}

type Tls<T> = (tokio_rustls::client::TlsStream<T>, tokio_rustls::server::TlsStream<T>);

async fn connect(client: &Credentials, server: &Credentials) -> Tls<tokio::io::DuplexStream> {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let connector = TlsConnector::from(client.client(Alpn::Tcp).unwrap());
    let acceptor = TlsAcceptor::from(server.server().unwrap());
    tokio::try_join!(connector.connect(client.server_name(), near), acceptor.accept(far)).unwrap()
}

#[tokio::test]
async fn a_bad_update_is_rejected_by_name_and_the_last_good_one_stays() {
    let authority = Arc::new(Authority::new());
    let mut controller = Controller::start(&authority).await;
    let proxy = Proxy::start(&authority, controller.address).await;
    let mut session = controller.session().await;
    session.welcome().await;
    session.taken(Key::TrustBundle, 1, Value::TrustBundle(authority.bundle())).await;
    let foreign = TrustBundle { trust_domain: "other".into(), ..Authority::new().bundle() };
    let garbage = TrustBundle { roots: vec![b"no certificate".to_vec().into()], ..authority.bundle() };
    for (version, bundle, why) in [(2, foreign, "trust domain"), (3, garbage, "root 0")] {
        session.update(Key::TrustBundle, version, Value::TrustBundle(bundle)).await;
        let ProxyMessage::Reject { key, version: rejected, reason } = session.said().await else {
            panic!("version {version} was not rejected");
        };
        assert_eq!((key, rejected), (Key::TrustBundle, version));
        assert!(reason.contains(why), "{reason}");
    }
    proxy.counted("policy_rejected_total{kind=\"trust-bundle\"} 2").await;
    let peer = authority.credentials(&identity("peer"));
    connect(&peer, &proxy.credentials).await;
}

#[tokio::test]
async fn a_new_root_is_trusted_at_once_and_a_withdrawn_one_no_more() {
    let (old, new) = (Arc::new(Authority::new()), Authority::new());
    let mut controller = Controller::start(&old).await;
    let proxy = Proxy::start(&old, controller.address).await;
    let mut session = controller.session().await;
    session.welcome().await;
    let mut both = old.bundle();
    both.roots.extend(new.bundle().roots);
    session.taken(Key::TrustBundle, 1, Value::TrustBundle(both.clone())).await;
    let peer = Credentials::new(identity("peer"));
    let (chain, key) = new.leaf(&identity("peer"));
    peer.install(chain, key, &both).unwrap();
    connect(&peer, &proxy.credentials).await;
    session.taken(Key::TrustBundle, 2, Value::TrustBundle(new.bundle())).await;
    let kept = std::fs::read_to_string(proxy.dir.path().join(names::TRUST_BUNDLE_KEY)).unwrap();
    assert_eq!(kept.matches("BEGIN").count(), 1, "the container's next life starts with the new root alone");
    let peer = old.credentials(&identity("peer"));
    let (near, far) = tokio::io::duplex(16 * 1024);
    let connector = TlsConnector::from(peer.client(Alpn::Tcp).unwrap());
    let acceptor = TlsAcceptor::from(proxy.credentials.server().unwrap());
    let (_, refused) = tokio::join!(connector.connect(peer.server_name(), near), acceptor.accept(far));
    assert!(refused.is_err());
}

#[tokio::test]
async fn while_the_controller_is_away_known_destinations_serve_and_new_ones_are_refused() {
    let authority = Arc::new(Authority::new());
    let mut controller = Controller::start(&authority).await;
    let proxy = Proxy::start(&authority, controller.address).await;
    let mut session = controller.session().await;
    session.welcome().await;
    session.taken(Key::Inbound, 1, inbound()).await;
    let known = Key::Outbound(destination(1));
    let answer = async {
        assert_eq!(session.said().await, ProxyMessage::Subscribe(known));
        session.taken(known, 1, Value::Outbound(OutboundPolicy::External)).await;
    };
    let (policy, ()) = tokio::join!(proxy.policies.outbound(destination(1)), answer);
    assert_eq!(**policy.unwrap().borrow(), OutboundPolicy::External);
    proxy.counted("controller_connected 1").await;

    let address = controller.address;
    drop(session);
    controller.stop().await;
    proxy.counted("controller_connected 0").await;
    assert!(proxy.policies.outbound(destination(1)).await.is_ok());
    assert!(proxy.policies.outbound(destination(2)).await.is_err());
    assert!(proxy.policies.inbound().borrow().is_some());
    assert!(proxy.policies.age() > Duration::ZERO);

    let mut controller = Controller::start_at(address, &authority, authority.issue(CONTROLLER, |_| {})).await;
    let mut session = controller.session().await;
    session.welcome().await;
    let mut asked = [session.said().await, session.said().await].map(|message| match message {
        ProxyMessage::Subscribe(key) => key,
        other => panic!("{other:?}"),
    });
    asked.sort();
    assert_eq!(asked, [known, Key::Outbound(destination(2))]);
    session.taken(Key::Outbound(destination(2)), 1, Value::Outbound(OutboundPolicy::External)).await;
    assert!(proxy.policies.outbound(destination(2)).await.is_ok());
}

#[tokio::test]
async fn a_drain_is_told_to_the_controller_and_ends_when_nothing_is_left() {
    let authority = Arc::new(Authority::new());
    let mut controller = Controller::start(&authority).await;
    let proxy = Proxy::start(&authority, controller.address).await;
    let mut session = controller.session().await;
    session.welcome().await;
    session.taken(Key::Inbound, 1, inbound()).await;
    let connection = proxy.drain.guard();
    proxy.signals.send(Signal::Drain).unwrap();
    assert_eq!(session.said().await, ProxyMessage::DrainStarted);
    assert!(proxy.get("/live").await.starts_with("HTTP/1.1 200"), "it serves on");
    drop(connection);
    proxy.ended().await;
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_connections() {
    let authority = Arc::new(Authority::new());
    let controller = Controller::start(&authority).await;
    let proxy = Proxy::start(&authority, controller.address).await;
    let _connection = proxy.drain.guard();
    proxy.signals.send(Signal::Drain).unwrap();
    tokio::time::timeout(SOON, proxy.drain.started()).await.unwrap();
    proxy.signals.send(Signal::Abort).unwrap();
    proxy.ended().await;
}

#[tokio::test]
async fn the_configuration_page_tells_certificate_roots_and_what_is_known() {
    let authority = Arc::new(Authority::new());
    let mut controller = Controller::start(&authority).await;
    let proxy = Proxy::start(&authority, controller.address).await;
    let mut session = controller.session().await;
    session.welcome().await;
    session.taken(Key::Inbound, 7, inbound()).await;
    assert_eq!(pages(&proxy, &mut session).await, 1);
    let page = proxy.get("/config").await;
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let page: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(page["identity"], identity("web").as_str());
    assert_eq!(page["certificate"]["serial"], proxy.credentials.facts().unwrap().serial);
    assert!(page["certificate"]["notAfter"].as_str().unwrap().ends_with('Z'));
    assert_eq!(page["trustBundle"]["trustDomain"], "cluster.local");
    assert_eq!(page["trustBundle"]["roots"], 1);
    let page: admin::Config = serde_json::from_value(page).unwrap();
    let inbound = page.inbound.unwrap();
    assert_eq!((inbound.version, inbound.default.default_policy.as_str()), (7, "allow"));
    assert_eq!((page.pod.as_str(), page.targets, page.draining), ("shop/web-1", 1, false));
    let source = |name: &str| page.settings.iter().find(|setting| setting.name == name).unwrap().source.as_str();
    assert_eq!((source(names::ENV_POD_NAME), source(names::ENV_LOG)), ("environment", "default"));
    assert!(page.controller.connected);
    assert!(!body.contains("PRIVATE") && !body.contains("first"), "no key and no token");
}

/// What the other two pages say of one destination; how many there are.
async fn pages(proxy: &Proxy, session: &mut crate::support::controller::Session) -> usize {
    let known = Key::Outbound(destination(1));
    let policy = crate::support::service(Protocol::Http1, vec![crate::support::meshed(destination(9), "server")]);
    let answer = async {
        assert_eq!(session.said().await, ProxyMessage::Subscribe(known));
        session.taken(known, 3, Value::Outbound(policy)).await;
    };
    let (known, ()) = tokio::join!(proxy.policies.outbound(destination(1)), answer);
    known.unwrap();
    let body = |answer: String| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    let endpoints: admin::Endpoints = serde_json::from_str(&body(proxy.get(admin::ENDPOINTS).await)).unwrap();
    let target = &endpoints.items[0];
    assert_eq!((target.kind.as_str(), target.name.as_deref(), target.version), ("service", Some("shop/web:80"), 3));
    let endpoint = &target.backends[0].endpoints[0];
    assert_eq!((endpoint.address, endpoint.identity.as_deref()), (destination(9), Some(identity("server").as_str())));
    assert!(endpoint.load.is_none(), "it was never used");
    let connections: admin::Connections = serde_json::from_str(&body(proxy.get(admin::CONNECTIONS).await)).unwrap();
    assert!(connections.items.is_empty());
    endpoints.items.len()
}

#[tokio::test]
async fn a_change_needs_a_post_the_header_and_a_host_of_localhost() {
    let authority = Arc::new(Authority::new());
    let controller = Controller::start(&authority).await;
    let proxy = Proxy::start(&authority, controller.address).await;
    let request = |method: &str, host: &str, header: &str| {
        format!("{method} /drain HTTP/1.1\r\nhost: {host}\r\n{header}content-length: 0\r\nconnection: close\r\n\r\n")
    };
    for (method, host, header, status) in [
        ("POST", "localhost", "", "403"),
        ("POST", "evil.example", "mesh-admin: 1\r\n", "403"),
        ("GET", "localhost", "mesh-admin: 1\r\n", "405"),
    ] {
        let answer = ask(proxy.admin, &request(method, host, header)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{method} {host} {header}: {answer}");
        assert!(!proxy.drain.is_draining());
    }
    for path in [admin::CONFIG, admin::ENDPOINTS, admin::CONNECTIONS, "/log-level"] {
        let forged = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
        assert!(ask(proxy.admin, &forged).await.starts_with("HTTP/1.1 403"), "{path}");
    }
    assert!(proxy.get("/nonsense").await.starts_with("HTTP/1.1 404"));
    let answer = ask(proxy.admin, &request("POST", "localhost", "mesh-admin: 1\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(proxy.drain.is_draining());
}

#[tokio::test]
async fn the_drain_command_asks_the_running_proxy() {
    let authority = Arc::new(Authority::new());
    let controller = Controller::start(&authority).await;
    let proxy = Proxy::start(&authority, controller.address).await;
    let port = proxy.admin.port().to_string();
    let run = move || Command::new(env!("CARGO_BIN_EXE_mesh-proxy")).args(["drain", "--port", &port]).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(proxy.drain.is_draining());
}

#[test]
fn a_proxy_with_a_bad_environment_names_every_mistake_and_ends() {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
        .arg("run")
        .env_clear()
        .env(names::ENV_POD_IPS, "nowhere")
        .env(names::ENV_WORKERS, "many")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let missing = [names::ENV_POD_NAMESPACE, names::ENV_POD_NAME, names::ENV_CONTROLLER_ADDR, names::ENV_TRUST_BUNDLE];
    for variable in missing {
        assert!(text.contains(&format!("{variable}: is not set")), "{variable}: {text}");
    }
    for wrong in ["MESH_POD_IPS=\"nowhere\"", "MESH_WORKERS=\"many\""] {
        assert!(text.contains(wrong), "{wrong}: {text}");
    }
}

#[tokio::test]
async fn a_tap_is_opened_on_localhost_and_for_no_other_host() {
    let authority = Arc::new(Authority::new());
    let controller = Controller::start(&authority).await;
    let proxy = Proxy::start(&authority, controller.address).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", proxy.admin)).unwrap();
    let watch = async |endpoint: tonic::transport::Endpoint| {
        TapClient::new(endpoint.connect().await.unwrap()).watch(TapFilter::default()).await
    };
    let mut forged = watch(endpoint.clone().origin("http://evil.example".parse().unwrap())).await.unwrap();
    assert!(forged.next().await.is_err());
    assert!(!proxy.tap.is_active());
    let mut events = watch(endpoint).await.unwrap();
    assert!(proxy.tap.is_active());
    proxy.tap.publish(event);
    assert_eq!(events.next().await.unwrap(), Some(event()));
}

fn event() -> TapEvent {
    TapEvent {
        direction: Direction::Inbound,
        started_us: 1,
        latency_us: 2,
        answered_us: None,
        source: destination(1),
        destination: destination(2),
        source_identity: Some(identity("web")),
        destination_identity: None,
        destination_pod: None,
        service: None,
        tls: true,
        outcome: String::new(),
        bytes_in: 3,
        bytes_out: 4,
        request: None,
        dropped: 0,
        route: String::new(),
    }
}
