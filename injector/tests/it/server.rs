//! The webhook over real TLS on loopback.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use mesh_injector::{
    app,
    bodies::MAX_BODY,
    certificate::{self, AUTHORITY_FILE, Certificate},
    config::Config,
    events::Events,
    namespaces::Namespaces,
    server::{Bound, Webhook},
};
use mesh_runtime::{tasks::Tasks, telemetry, tls};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::TlsConnector;

use crate::corpus::mesh;

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_mins(2);

struct Running {
    addr: SocketAddr,
    webhook: Webhook,
    tasks: Tasks,
    directory: TempDir,
}

async fn start() -> Running {
    start_and_tell(Events::nowhere()).await
}

async fn start_and_tell(events: Events) -> Running {
    let directory = tempfile::tempdir().unwrap();
    certificate::self_signed(&["localhost"]).unwrap().write_to(directory.path()).unwrap();
    let certificate = Certificate::default();
    certificate.load(directory.path()).unwrap();
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let tasks = Tasks::new();
    let running = Running {
        addr: bound.addr,
        webhook: Webhook::new(mesh(), Namespaces::Directory(manifests(directory.path()))),
        tasks: tasks.clone(),
        directory,
    };
    let mut webhook = running.webhook.clone();
    webhook.events = events;
    tasks.spawn("webhook", async move {
        let ending = Tasks::new();
        bound.run(webhook, certificate, ending.cancelled()).await;
    });
    running
}

/// A directory of manifests in which the namespace `shop` has opted in.
fn manifests(directory: &Path) -> PathBuf {
    let folder = directory.join("manifests");
    std::fs::create_dir(&folder).unwrap();
    let shop = "kind: Namespace\nmetadata: {name: shop, labels: {meshctl.dev/inject: enabled}}\n";
    std::fs::write(folder.join("shop.yaml"), shop).unwrap();
    folder
}

fn client_config(directory: &Path, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join(AUTHORITY_FILE)).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(tls::provider()).with_protocol_versions(versions).unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

async fn try_send(
    tasks: &Tasks,
    addr: SocketAddr,
    directory: &Path,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error>> {
    let connector = TlsConnector::from(Arc::new(client_config(directory, tls::TLS13)));
    let stream = TcpStream::connect(addr).await?;
    let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tasks.spawn("client", async move { drop(connection.await) });
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

impl Running {
    async fn send(&self, request: Request<Full<Bytes>>) -> (StatusCode, String) {
        let sent = try_send(&self.tasks, self.addr, self.directory.path(), request);
        let (status, body) = tokio::time::timeout(DEADLINE, sent).await.unwrap().unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&self, body: impl Into<Bytes>) -> (StatusCode, String) {
        self.send(request(Method::POST, "/inject", "application/json", body)).await
    }
}

fn request(method: Method, path: &str, content_type: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    request.header(header::CONTENT_TYPE, content_type).body(Full::new(body.into())).unwrap()
}

fn review(pod: &Value) -> String {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop",
        "operation": "CREATE", "object": pod, "dryRun": false,
    }})
    .to_string()
}

fn pod() -> Value {
    json!({"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "web"}]}})
}

#[tokio::test]
async fn a_valid_review_is_answered_with_a_patch_that_applies() {
    let running = start().await;
    let (status, body) = running.post(review(&pod())).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let patch = STANDARD.decode(body["response"]["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut patched = pod();
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched["spec"]["initContainers"][1]["name"], "mesh-redirect");
}

/// An API server that takes every event, and what was sent to it.
fn api_server() -> (kube::Client, tokio::sync::mpsc::UnboundedReceiver<(String, Value)>) {
    let (sender, sent) = tokio::sync::mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let sender = sender.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            let answer = kube::client::Body::from(serde_json::to_vec(&body).unwrap());
            sender.send((format!("{} {}", parts.method, parts.uri.path()), body)).unwrap();
            Ok::<_, Infallible>(Response::builder().status(201).body(answer).unwrap())
        }
    });
    (kube::Client::new(service, "default"), sent)
}

fn owned(owner: &str, annotations: &Value) -> Value {
    let reference =
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true});
    json!({
        "metadata": {"generateName": "web-", "annotations": annotations, "ownerReferences": [reference]},
        "spec": {"containers": [{"name": "web"}]},
    })
}

#[tokio::test]
async fn the_owner_of_a_pod_is_told_once_what_was_decided_and_nobody_on_a_dry_run() {
    let (client, mut sent) = api_server();
    let (events, writer) = Events::new(client);
    let running = start_and_tell(events).await;
    running.tasks.spawn("events", writer.run());
    let typo = json!({"meshctl.dev/lgo": "debug"});
    let mut host = owned("host-1", &json!({}));
    host["spec"]["hostNetwork"] = json!(true);
    for body in [
        review(&owned("dry-1", &json!({}))).replace("\"dryRun\":false", "\"dryRun\":true"),
        review(&pod()),
        review(&owned("web-1", &json!({}))),
        review(&owned("web-1", &json!({}))),
        review(&host),
        review(&owned("typo-1", &typo)),
    ] {
        assert_eq!(running.post(body).await.0, StatusCode::OK);
    }
    for (owner, kind, reason, note) in [
        ("web-1", "Normal", "injected", "sidecar added"),
        ("host-1", "Warning", "host-network", "no sidecar: the pod uses the node's network"),
        ("typo-1", "Warning", "injected", "sidecar added; annotation meshctl.dev/lgo"),
    ] {
        let (request, event) = tokio::time::timeout(DEADLINE, sent.recv()).await.unwrap().unwrap();
        assert_eq!(request, "POST /apis/events.k8s.io/v1/namespaces/shop/events");
        assert_eq!(event["regarding"]["name"], owner);
        assert_eq!((&event["type"], &event["reason"]), (&json!(kind), &json!(reason)), "{event}");
        assert!(event["note"].as_str().unwrap().starts_with(note), "{event}");
    }
    assert!(sent.try_recv().is_err(), "nothing else was said");
}

#[tokio::test]
async fn what_is_no_review_is_refused_and_the_webhook_goes_on() {
    let running = start().await;
    let deep = format!("{{\"request\":{}", "[".repeat(1_000_000));
    for (method, path, content_type, body, want) in [
        (Method::POST, "/inject", "application/json", "aaaaaa".to_owned(), 400),
        (Method::POST, "/inject", "application/json", String::new(), 400),
        (Method::POST, "/inject", "application/json", "{}".to_owned(), 400),
        (Method::POST, "/inject", "application/json", "\u{0}".to_owned(), 400),
        (Method::POST, "/inject", "application/json", deep, 400),
        (Method::POST, "/inject", "application/json", " ".repeat(MAX_BODY), 400),
        (Method::POST, "/inject", "application/json", " ".repeat(MAX_BODY + 1), 413),
        (Method::POST, "/inject", "application/json; charset=utf-8", "x".to_owned(), 400),
        (Method::POST, "/inject", "application/yaml", review(&pod()), 415),
        (Method::POST, "/inject", "", review(&pod()), 415),
        (Method::GET, "/inject", "application/json", String::new(), 405),
        (Method::PUT, "/inject", "application/json", review(&pod()), 405),
        (Method::POST, "/other", "application/json", review(&pod()), 404),
    ] {
        let shown = format!("{method} {path} {content_type} {:?}", body.chars().take(20).collect::<String>());
        let (status, text) = running.send(request(method, path, content_type, body)).await;
        assert_eq!(status.as_u16(), want, "{shown}: {text}");
        assert!(matches!(want, 404 | 405) || !text.trim().is_empty(), "{shown} says why");
    }
    assert_eq!(running.post(review(&pod())).await.0, StatusCode::OK);
    assert_eq!(running.webhook.injections.0.get_or_create(&injection("injected")).get(), 1);
    assert_eq!(running.webhook.injections.0.get_or_create(&injection("bad-request")).get(), 10);
}

fn injection(result: &'static str) -> mesh_injector::server::Injection {
    mesh_injector::server::Injection { result, reason: "" }
}

#[tokio::test]
async fn a_pod_whose_namespace_is_not_known_is_not_reviewed() {
    let running = start().await;
    std::fs::write(running.directory.path().join("manifests/other.yaml"), "kind: Namespace\n  x: [").unwrap();
    let other = review(&pod()).replace("\"shop\"", "\"other\"");
    let (status, text) = running.post(other).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(text.contains("other.yaml is not YAML"), "{text}");
    assert_eq!(running.post(review(&pod())).await.0, StatusCode::OK);
}

#[tokio::test]
async fn senders_that_never_end_keep_nobody_else_from_being_answered() {
    let running = start().await;
    let connector = TlsConnector::from(Arc::new(client_config(running.directory.path(), tls::TLS13)));
    let mut slow = Vec::new();
    for _ in 0..100 {
        let stream = TcpStream::connect(running.addr).await.unwrap();
        let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        let head = "POST /inject HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        stream.write_all(format!("{head}content-length: 1000\r\n\r\n{{").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        slow.push(stream);
    }
    let answered = tokio::time::timeout(Duration::from_secs(4), running.post(review(&pod())));
    assert_eq!(answered.await.expect("before the slow ones are given up").0, StatusCode::OK);
    drop(slow);
}

#[tokio::test]
async fn tls_12_and_a_foreign_authority_are_refused() {
    let running = start().await;
    let connect = async |config: ClientConfig| {
        let stream = TcpStream::connect(running.addr).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(drop)
    };
    assert!(connect(client_config(running.directory.path(), tls::TLS13)).await.is_ok());
    let foreign = tempfile::tempdir().unwrap();
    certificate::self_signed(&["localhost"]).unwrap().write_to(foreign.path()).unwrap();
    assert!(connect(client_config(foreign.path(), tls::TLS13)).await.is_err());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let old =
        ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&rustls::version::TLS12]);
    let old = old.unwrap().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let error = connect(old).await.unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn the_injector_follows_its_certificate_and_trust_bundle() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("roots.pem");
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        mesh: mesh(),
        namespaces: Namespaces::Directory(manifests(directory.path())),
        tls_dir: directory.path().to_owned(),
        trust_bundle_file: Some(bundle.clone()),
        webhook_addr: any,
        admin_addr: any,
        evict: false,
        linger: Duration::ZERO,
    };
    let injector = app::Bound::bind(config).await.unwrap();
    let (webhook_addr, admin_addr) = (injector.webhook_addr, injector.admin_addr);
    let log = telemetry::init("warn", telemetry::Format::Plain).unwrap();
    let tasks = Tasks::new();
    let ending = tasks.cancelled();
    tasks.spawn("injector", async move { injector.run(log, ending).await });
    assert_eq!(admin(&tasks, admin_addr, "/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);

    for _ in 0..2 {
        let made = certificate::self_signed(&["localhost"]).unwrap();
        std::fs::write(&bundle, &made.authority).unwrap();
        made.write_to(directory.path()).unwrap();
        let injected_bundle = async {
            loop {
                let request = request(Method::POST, "/inject", "application/json", review(&pod()));
                // Until the new certificate is in use, its authority does not vouch for the one that is.
                if let Ok((_, body)) = try_send(&tasks, webhook_addr, directory.path(), request).await {
                    let body: Value = serde_json::from_slice(&body).unwrap();
                    let patch = STANDARD.decode(body["response"]["patch"].as_str().unwrap()).unwrap();
                    if String::from_utf8(patch).unwrap().contains(&made.authority.replace('\n', "\\n")) {
                        break;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, injected_bundle).await.unwrap();
    }
    assert_eq!(admin(&tasks, admin_addr, "/ready").await.0, StatusCode::OK);
    let (_, metrics) = admin(&tasks, admin_addr, "/metrics").await;
    assert!(metrics.contains("injection_total{result=\"injected\",reason=\"\"}"), "{metrics}");
    assert!(tasks.shutdown(DEADLINE).await.is_clean());
}

#[tokio::test]
async fn an_injector_that_is_to_end_answers_those_who_are_still_sent_to_it() {
    let directory = tempfile::tempdir().unwrap();
    certificate::self_signed(&["localhost"]).unwrap().write_to(directory.path()).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        mesh: mesh(),
        namespaces: Namespaces::Directory(manifests(directory.path())),
        tls_dir: directory.path().to_owned(),
        trust_bundle_file: None,
        webhook_addr: any,
        admin_addr: any,
        evict: false,
        linger: Duration::from_hours(1),
    };
    let injector = app::Bound::bind(config).await.unwrap();
    let addr = injector.webhook_addr;
    let log = telemetry::init("warn", telemetry::Format::Plain).unwrap();
    let running = injector.run(log, std::future::ready(()));
    let tasks = Tasks::new();
    let asked =
        try_send(&tasks, addr, directory.path(), request(Method::POST, "/inject", "application/json", review(&pod())));
    tokio::select! {
        () = running => panic!("it ended at once"),
        answer = tokio::time::timeout(DEADLINE, asked) => assert_eq!(answer.unwrap().unwrap().0, StatusCode::OK),
    }
}

async fn admin(tasks: &Tasks, addr: SocketAddr, path: &str) -> (StatusCode, String) {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tasks.spawn("admin client", async move { drop(connection.await) });
    let response = sender.send_request(request(Method::GET, path, "text/plain", "")).await.unwrap();
    let status = response.status();
    (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}
