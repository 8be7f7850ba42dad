//! A controller on loopback, a directory to write manifests into, and proxies that talk to it.

mod manifests;
mod proxy;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use mesh_controller::{
    Config, Controller, Source,
    ca::{store::Store, token::Minter},
    lease,
    source::kube::Pace,
};
use mesh_proto::{
    client::{CallError, Certified, Certify, ConfigClient, IdentityClient},
    config::{ControllerMessage, Hello, ProxyMessage},
    inbound::DefaultPolicy,
    trust::TrustBundle,
};
use mesh_runtime::{metrics::Metrics, readiness::Readiness, tasks::Tasks, tls};
use parking_lot::Mutex;
use rcgen::KeyPair;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{sync::mpsc, time::Instant};
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

use self::proxy::ControllerVerifier;
pub(crate) use self::{
    manifests::{pod, service},
    proxy::{Client, Proxy, csr, hello, identity, pod_claim},
};

/// Far more than anything here takes, also on a machine that does ten other things; a test that waits this long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// A tenth of what a real controller grants, and far longer than any test here stops reading without meaning to.
const SLOWEST_READER: Duration = Duration::from_secs(3);

/// A cluster's source that notices and tries again soon.
const PACE: Pace = Pace {
    watch: Duration::from_secs(2),
    grace: Duration::from_secs(1),
    answer: Duration::from_secs(5),
    first_retry: Duration::from_millis(20),
    longest_retry: Duration::from_millis(200),
    mirror: Duration::from_millis(200),
    bundles: Duration::from_millis(300),
    lease: lease::Pace {
        duration: Duration::from_secs(4),
        believed: Duration::from_secs(3),
        look: Duration::from_millis(200),
    },
};

/// Between two questions of [`until`].
const PAUSE: Duration = Duration::from_millis(5);

/// Asks again and again, about what nobody reports, until it is so; fails the test with the last answer when it takes too long.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(not_yet) => assert!(Instant::now() < deadline, "after {DEADLINE:?}: {not_yet}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub(crate) struct Mesh {
    pub(crate) addr: SocketAddr,
    pub(crate) minter: Minter,
    pub(crate) metrics: Metrics,
    roots: Vec<Bytes>,
    readiness: Readiness,
    tasks: Tasks,
    manifests: PathBuf,
    pub(crate) state: PathBuf,
    directory: Arc<tempfile::TempDir>,
    admin: Mutex<axum::Router>,
    in_cluster: bool,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl Mesh {
    /// Of a cluster, at a pace that a test can wait for; ready or not.
    pub(crate) async fn start_kube(kubeconfig: impl FnOnce(&Path) -> PathBuf) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let kubeconfig = kubeconfig(directory.path());
        Self::start_from(directory, Source::Kube, Some(kubeconfig), None).await
    }

    pub(crate) async fn start(manifests: &[(&str, &str)]) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        fs::create_dir(directory.path().join("manifests")).unwrap();
        for (name, text) in manifests {
            fs::write(directory.path().join("manifests").join(name), text).unwrap();
        }
        Self::start_in(directory, None).await
    }

    /// With a certificate authority that somebody else keeps.
    pub(crate) async fn start_with_ca(ca: PathBuf, manifests: &[(&str, &str)]) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        fs::create_dir(directory.path().join("manifests")).unwrap();
        for (name, text) in manifests {
            fs::write(directory.path().join("manifests").join(name), text).unwrap();
        }
        Self::start_in(directory, Some(ca)).await
    }

    /// The same state again, as after a crash.
    pub(crate) async fn restart(self) -> Self {
        let directory = Arc::clone(&self.directory);
        let tasks = self.tasks.clone();
        drop(self);
        assert!(tasks.shutdown(DEADLINE).await.is_clean());
        Self::start_in(directory, None).await
    }

    async fn start_in(directory: Arc<tempfile::TempDir>, ca: Option<PathBuf>) -> Self {
        let manifests = directory.path().join("manifests");
        let mesh = Self::start_from(directory, Source::Dir(manifests), None, ca).await;
        mesh.ready().await;
        mesh
    }

    /// Why a controller of a cluster does not start.
    pub(crate) async fn fail_to_start_kube(kubeconfig: impl FnOnce(&Path) -> PathBuf) -> String {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = kubeconfig(directory.path());
        let config = config(directory.path(), Source::Kube, Some(kubeconfig));
        let bound = match Controller::open(config, &Metrics::new(), &Readiness::new()).await {
            Ok(controller) => controller.bind(&Tasks::new()).await,
            Err(error) => Err(error),
        };
        match bound {
            Ok(_) => panic!("it starts"),
            Err(error) => error.to_string(),
        }
    }

    async fn start_from(
        directory: Arc<tempfile::TempDir>,
        source: Source,
        kubeconfig: Option<PathBuf>,
        ca: Option<PathBuf>,
    ) -> Self {
        let (tasks, metrics, readiness) = (Tasks::new(), Metrics::new(), Readiness::new());
        let (manifests, state) = (directory.path().join("manifests"), directory.path().join("state"));
        let bundle = directory.path().join("roots.pem");
        let in_cluster = source == Source::Kube;
        let config = Config { ca, ..config(directory.path(), source, kubeconfig) };
        let controller = Controller::open(config, &metrics, &readiness).await.unwrap();
        let (addr, admin) = (controller.addr, controller.admin());
        let bound = controller.bind(&tasks).await.unwrap();
        let unset = "mesh_controller_issuer_not_after_timestamp_seconds 0\n";
        assert!(!metrics.encode().contains(unset), "whoever reads the gauge first must not meet 1970");
        tasks.spawn("controller", async move { bound.run().await.unwrap() });
        let pem = fs::read(bundle).unwrap();
        let roots = <CertificateDer<'_> as rustls::pki_types::pem::PemObject>::pem_slice_iter(&pem);
        let roots = roots.map(|root| Bytes::copy_from_slice(&root.unwrap())).collect();
        let minter = Minter::open(&Store::open(&state).unwrap()).unwrap();
        let admin = Mutex::new(admin);
        Self { addr, minter, metrics, roots, readiness, tasks, manifests, state, directory, admin, in_cluster }
    }

    pub(crate) async fn ready(&self) {
        tokio::time::timeout(DEADLINE, self.readiness.ready()).await.unwrap();
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.readiness.is_ready()
    }

    /// What the admin port says is wrong.
    pub(crate) async fn problems(&self) -> String {
        self.page("/objects").await["problems"].to_string()
    }

    /// A page of the admin port.
    pub(crate) async fn page(&self, path: &str) -> serde_json::Value {
        let request = http::Request::get(path).extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
        let request = request.header("host", "localhost").body(axum::body::Body::empty()).unwrap();
        let admin = self.admin.lock().clone();
        let answer = admin.oneshot(request).await.unwrap();
        let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Waits until the admin port says that this is wrong.
    pub(crate) async fn problem(&self, expected: &str) {
        self.problems_until(expected, |problems| problems.contains(expected)).await;
    }

    /// Waits until it does not say that any more.
    pub(crate) async fn no_problem(&self, unexpected: &str) {
        self.problems_until(unexpected, |problems| !problems.contains(unexpected)).await;
    }

    /// Waits until nothing is wrong.
    pub(crate) async fn no_problems(&self) {
        self.problems_until("nothing is wrong", |problems| problems == "{}").await;
    }

    async fn problems_until(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        until(async || {
            let problems = self.problems().await;
            if wanted(&problems) { Ok(()) } else { Err(format!("{what}: {problems}")) }
        })
        .await;
    }

    pub(crate) fn roots(&self) -> &[Bytes] {
        &self.roots
    }

    /// Replaces a manifest in one step, as editors and kubelets do.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let draft = self.manifests.join(format!(".{name}"));
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.manifests.join(name)).unwrap();
    }

    /// Where the manifests are.
    pub(crate) fn manifests(&self) -> &Path {
        &self.manifests
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.manifests.join(name)).unwrap();
    }

    pub(crate) fn token(&self, namespace: &str, account: &str, pod: &str) -> String {
        if self.in_cluster {
            return format!("kube:{namespace}:{account}:{pod}");
        }
        self.join_token(namespace, account, pod)
    }

    pub(crate) fn join_token(&self, namespace: &str, account: &str, pod: &str) -> String {
        let identity = identity(namespace, account);
        self.minter.mint(&identity, pod_claim(namespace, pod), Duration::from_mins(1)).unwrap()
    }

    /// A connection from `source`, with a client certificate or without.
    pub(crate) async fn channel(&self, source: &str, client: Option<&Client>) -> Channel {
        self.try_channel(source, client).await.unwrap()
    }

    pub(crate) async fn try_channel(
        &self,
        source: &str,
        client: Option<&Client>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut roots = RootCertStore::empty();
        for root in &self.roots {
            roots.add(root.to_vec().into()).unwrap();
        }
        let verifier = Arc::new(ControllerVerifier(roots));
        let config = ClientConfig::builder_with_provider(tls::provider()).with_protocol_versions(tls::TLS13).unwrap();
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match client {
            Some(client) => config.with_client_auth_cert(client.chain.clone(), client.key.clone_key()).unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (addr, source): (SocketAddr, IpAddr) = (self.addr, source.parse().unwrap());
        let connect = tower::service_fn(move |_: http::Uri| {
            let connector = connector.clone();
            async move {
                let socket = tokio::net::TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(source, 0))?;
                let tcp = socket.connect(addr).await?;
                let name = ServerName::try_from("controller").unwrap();
                connector.connect(name, tcp).await.map(TokioIo::new)
            }
        });
        // The smallest window: whoever does not read is noticed soon.
        let endpoint = Endpoint::from_static("http://controller").initial_stream_window_size(65_535);
        endpoint.connect_with_connector(connect).await
    }

    /// A certificate for a pod, got with a token.
    pub(crate) async fn certify(&self, namespace: &str, account: &str, pod: &str) -> Client {
        let identity = identity(namespace, account);
        let key = KeyPair::generate().unwrap();
        let token = self.token(namespace, account, pod);
        let request = Certify { token, csr: csr(&key, &[identity.as_str()]), identity };
        let certified = self.call_certify(request).await.unwrap();
        Client::new(certified, &key)
    }

    pub(crate) async fn call_certify(&self, request: Certify) -> Result<Certified, CallError> {
        let channel = self.channel("127.0.0.1", None).await;
        IdentityClient::new(channel).certify(request).await
    }

    /// A proxy that has connected and been welcomed.
    pub(crate) async fn proxy(&self, namespace: &str, account: &str, pod: &str, source: &str) -> Proxy {
        let client = self.certify(namespace, account, pod).await;
        self.hello(&client, hello(namespace, pod), source).await.unwrap()
    }

    /// From now on these roots are trusted here.
    pub(crate) fn trust(&mut self, bundle: &TrustBundle) {
        self.roots.clone_from(&bundle.roots);
    }

    /// Whether a client with this certificate is let in.
    pub(crate) async fn lets_in(&self, client: &Client, hello: Hello, source: &str) -> bool {
        let Ok(channel) = self.try_channel(source, Some(client)).await else { return false };
        let (send, messages) = mpsc::channel(1);
        send.send(ProxyMessage::Hello(hello)).await.unwrap();
        let mut client = ConfigClient::new(channel);
        tokio::time::timeout(DEADLINE, client.connect(messages)).await.expect("an answer").is_ok()
    }

    pub(crate) async fn hello(&self, client: &Client, hello: Hello, source: &str) -> Result<Proxy, CallError> {
        let channel = self.channel(source, Some(client)).await;
        let (send, messages) = mpsc::channel(64);
        send.send(ProxyMessage::Hello(hello)).await.unwrap();
        let stream = ConfigClient::new(channel).connect(messages).await?;
        let mut proxy = Proxy { send, stream };
        assert!(matches!(proxy.next().await, ControllerMessage::Welcome { .. }));
        Ok(proxy)
    }
}

fn config(directory: &Path, source: Source, kubeconfig: Option<PathBuf>) -> Config {
    Config {
        source,
        kubeconfig,
        pace: PACE,
        state_dir: directory.join("state"),
        ca: None,
        trust_domain: "cluster.local".into(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        default_policy: DefaultPolicy::Allow,
        leaf_lifetime: Duration::from_hours(1),
        trust_bundle_out: Some(directory.join("roots.pem")),
        slowest_reader: SLOWEST_READER,
    }
}
