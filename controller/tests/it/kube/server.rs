//! A Kubernetes API as far as a controller asks: lists in pages, watches with bookmarks, and every way to fail.

mod answers;
mod recording;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Debug,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::StatusCode;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout_at},
};

pub(crate) use self::recording::Exchange;
use self::{
    answers::{answer, status_object},
    recording::Recording,
};
use crate::support::DEADLINE;

const NAMESPACES: &str = "/api/v1/namespaces";
pub(crate) const PODS: &str = "/api/v1/pods";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub(crate) const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
pub(crate) const POLICIES: &str = "/apis/meshctl.dev/v1alpha1/authorizationpolicies";

const KINDS: [&str; 6] = [NAMESPACES, PODS, SERVICES, SLICES, ROUTES, POLICIES];
const CONFIG_MAPS: &str = "/api/v1/configmaps";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// The server. Dropped, it is gone with all its connections.
pub(crate) struct ApiServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    running: Mutex<Option<AbortHandle>>,
    owner: Mutex<JoinSet<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Counts changes of the state, for open watches.
    changed: watch::Sender<u64>,
    /// Counts what was asked, and answered or about to be.
    answered: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By the path of the kind, then by `namespace/name`.
    objects: BTreeMap<&'static str, BTreeMap<String, Value>>,
    /// What watches are told: version, path, line.
    log: Vec<(u64, &'static str, Value)>,
    /// A watch that is asked for from before this version gets 410.
    oldest: u64,
    /// So do watches that are open and not further than this.
    untold: u64,
    /// Objects per page, if less than what is asked for.
    page: Option<usize>,
    /// Answers instead of the real one, by verb and path: how often, and with what.
    faults: HashMap<String, Vec<(StatusCode, String)>>,
    /// Like faults, until told otherwise.
    standing: HashMap<String, (StatusCode, String)>,
    /// Watches of these kinds accept and then say nothing, ever.
    hung: HashSet<&'static str>,
    /// How often the watches of these kinds were cut.
    cuts: HashMap<&'static str, u64>,
    /// Objects that are read and made one by one, by path.
    stored: BTreeMap<String, Value>,
    /// What is found out about a token, other than what it says itself.
    reviews: HashMap<String, Value>,
    /// What is answered as it was once.
    recording: Recording,
    /// What was asked, as `verb path`.
    asked: Vec<String>,
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            answered: watch::Sender::new(0),
        });
        let server = Self { addr, shared, running: Mutex::default(), owner: Mutex::default() };
        server.serve(listener);
        server
    }

    /// Answers as it was once; watches say nothing yet.
    pub(crate) fn play(&self, exchanges: Vec<Exchange>) {
        self.shared.state.lock().recording = Recording::new(exchanges);
    }

    /// Lets the watches of what is played say what they have.
    pub(crate) fn play_watches(&self) {
        self.change(|state| state.recording.release());
    }

    /// Closes the port and every connection.
    pub(crate) fn stop(&self) {
        self.running.lock().take().unwrap().abort();
    }

    /// After [`ApiServer::stop`], on the same port.
    pub(crate) async fn resume(&self) {
        let deadline = Instant::now() + DEADLINE;
        let listener = loop {
            match TcpListener::bind(self.addr).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::task::yield_now().await;
        };
        self.serve(listener);
    }

    fn serve(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let running = self.owner.lock().spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = hyper::service::service_fn(move |request| answer(Arc::clone(&shared), request));
                    // A client that hangs up is none of the server's business.
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
                });
            }
        });
        *self.running.lock() = Some(running);
    }

    /// Writes a kubeconfig that leads here.
    pub(crate) fn kubeconfig(&self, directory: &Path) -> PathBuf {
        let path = directory.join("kubeconfig");
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{}", self.addr) } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "users": [{ "name": "test", "user": { "token": "of-the-controller" } }],
        });
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    /// Creates or changes the objects of a manifest; watches are told.
    pub(crate) fn put(&self, manifest: &str) {
        for (path, key, mut object) in objects(manifest) {
            self.change(|state| {
                state.version += 1;
                object["metadata"]["resourceVersion"] = state.version.to_string().into();
                let before = state.objects.entry(path).or_default().insert(key, object.clone());
                let what = if before.is_some() { "MODIFIED" } else { "ADDED" };
                state.log.push((state.version, path, json!({ "type": what, "object": object })));
            });
        }
    }

    /// Deletes an object; watches are told.
    pub(crate) fn delete(&self, path: &'static str, key: &str) {
        self.change(|state| {
            state.version += 1;
            let mut object = state.objects.get_mut(path).unwrap().remove(key).unwrap();
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.log.push((state.version, path, json!({ "type": "DELETED", "object": object })));
        });
    }

    /// Forgets history: whoever watches is told that its version is too old, and so is who asks for a watch from it.
    pub(crate) fn compact(&self) {
        self.change(|state| {
            state.version += 1;
            (state.oldest, state.untold) = (state.version, state.version);
        });
    }

    /// Forgets history up to now; open watches are not told, because they are told everything.
    pub(crate) fn compact_before_now(&self) {
        let mut state = self.shared.state.lock();
        state.oldest = state.version;
    }

    /// Ends the open watches of a kind.
    pub(crate) fn cut(&self, path: &'static str) {
        self.change(|state| *state.cuts.entry(path).or_default() += 1);
    }

    /// Deletes an object and forgets history: nobody is ever told.
    pub(crate) fn delete_untold(&self, path: &'static str, key: &str) {
        self.change(|state| {
            state.objects.get_mut(path).unwrap().remove(key).unwrap();
            state.version += 1;
            (state.oldest, state.untold) = (state.version, state.version);
        });
    }

    /// Tells every watch of a kind how far it is, without an event.
    pub(crate) fn bookmark(&self, path: &'static str) {
        self.change(|state| {
            state.version += 1;
            let bookmark = json!({ "kind": "Any", "metadata": { "resourceVersion": state.version.to_string() } });
            state.log.push((state.version, path, json!({ "type": "BOOKMARK", "object": bookmark })));
        });
    }

    /// Pages of at most this many objects.
    pub(crate) fn page(&self, objects: usize) {
        self.shared.state.lock().page = Some(objects);
    }

    /// Answers the next questions, e.g. `list /api/v1/pods`, with these, in order; then as it should.
    pub(crate) fn fail(&self, question: &str, answers: &[StatusCode]) {
        let answers = answers.iter().rev().map(|status| (*status, status_object(*status))).collect();
        self.shared.state.lock().faults.insert(question.to_owned(), answers);
    }

    /// Answers a question with this from now on.
    pub(crate) fn refuse(&self, question: &str, status: StatusCode, body: &str) {
        self.shared.state.lock().standing.insert(question.to_owned(), (status, body.to_owned()));
    }

    /// Answers it as it should again.
    pub(crate) fn allow(&self, question: &str) {
        self.shared.state.lock().standing.remove(question).unwrap();
    }

    /// Open watches of the kind, and those asked for from now on, say nothing more and never end.
    pub(crate) fn hang(&self, path: &'static str) {
        self.change(|state| {
            state.hung.insert(path);
        });
    }

    /// Watches asked for from now on are served again; those that hang stay as they are.
    pub(crate) fn recover(&self, path: &'static str) {
        self.shared.state.lock().hung.remove(path);
    }

    /// What a review of a token finds. Without this, `kube:NAMESPACE:ACCOUNT:POD` is what it says.
    pub(crate) fn review(&self, token: &str, status: Value) {
        self.shared.state.lock().reviews.insert(token.to_owned(), status);
    }

    /// An object that is read and made one by one.
    pub(crate) fn stored(&self, path: &str) -> Option<Value> {
        self.shared.state.lock().stored.get(path).cloned()
    }

    /// Puts one there.
    pub(crate) fn store(&self, path: &str, object: Value) {
        self.shared.state.lock().stored.insert(path.to_owned(), object);
    }

    /// Takes one away.
    pub(crate) fn unstore(&self, path: &str) {
        self.shared.state.lock().stored.remove(path).unwrap();
    }

    /// Waits until something was asked `times` times since the start.
    pub(crate) async fn asked(&self, question: &str, times: usize) {
        let enough = || (self.count(question) >= times).then_some(()).ok_or_else(|| self.count(question));
        self.until(&format!("{question} was asked {times} times"), enough).await;
    }

    /// Waits until what was asked of it has led to this; else says what is there instead.
    pub(crate) async fn until<T, E: Debug>(&self, what: &str, mut wanted: impl FnMut() -> Result<T, E>) -> T {
        let mut answered = self.shared.answered.subscribe();
        let deadline = Instant::now() + DEADLINE;
        loop {
            match wanted() {
                Ok(found) => return found,
                Err(instead) => {
                    let changed = timeout_at(deadline, answered.changed()).await;
                    assert!(changed.is_ok(), "{what}: {instead:?}");
                }
            }
        }
    }

    /// How often something was asked.
    pub(crate) fn count(&self, question: &str) -> usize {
        self.shared.state.lock().asked.iter().filter(|asked| *asked == question).count()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock());
        self.shared.changed.send_modify(|count| *count += 1);
    }
}

/// The objects of a manifest, with where they are kept. Uids are made up where there are none.
fn objects(manifest: &str) -> Vec<(&'static str, String, Value)> {
    let documents = manifest.split("\n---").filter(|document| !document.trim().is_empty());
    documents
        .map(|document| {
            let mut object: Value = serde_saphyr::from_str(document).unwrap();
            let path = match object["kind"].as_str().unwrap() {
                "Namespace" => NAMESPACES,
                "Pod" => PODS,
                "Service" => SERVICES,
                "EndpointSlice" => SLICES,
                "HTTPRoute" => ROUTES,
                "AuthorizationPolicy" => POLICIES,
                kind => panic!("{kind} is not served"),
            };
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            let key = format!("{namespace}/{name}");
            if object["metadata"]["uid"].is_null() {
                object["metadata"]["uid"] = format!("uid-{name}").into();
            }
            (path, key, object)
        })
        .collect()
}
