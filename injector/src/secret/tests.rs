//! Against an API server of a few lines that keeps a Secret and a webhook configuration, with their versions.

use std::{collections::VecDeque, convert::Infallible, fs, sync::Arc};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::Value;

use super::*;

#[derive(Default)]
struct Kept {
    version: u64,
    secret: Option<Value>,
    configuration: Option<Value>,
    /// Answers that come instead: method, part of the path, status.
    refuse: VecDeque<(Method, &'static str, u16)>,
    asked: Vec<String>,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Kept>>);

impl Server {
    fn with_configuration() -> Self {
        let server = Self::default();
        let entry = |name: &str| json!({"name": name, "clientConfig": {"service": {"name": "mesh-injector", "namespace": "mesh-system"}}, "admissionReviewVersions": ["v1"], "sideEffects": "NoneOnDryRun"});
        server.0.lock().configuration = Some(json!({
            "metadata": {"name": "mesh-injector", "resourceVersion": "c0"},
            "webhooks": [entry("namespace.inject.meshctl.dev"), entry("pod.inject.meshctl.dev")],
        }));
        server
    }

    fn keeper(&self, directory: &tempfile::TempDir) -> Keeper {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (status, answer) = server.answer(&parts.method, parts.uri.path(), body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, Infallible>(Response::builder().status(status).body(answer).unwrap())
            }
        });
        Keeper::new(Client::new(service, "default"), directory.path().to_owned())
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let kept = &mut *self.0.lock();
        kept.asked.push(format!("{method} {path}"));
        let status = |code: u16| {
            // The client knows by the reason that an object is not there.
            let reason = if code == 404 { "NotFound" } else { "" };
            let text = format!("status {code}");
            (
                code,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": text, "reason": reason, "code": code}),
            )
        };
        if let Some(at) = kept.refuse.iter().position(|(verb, part, _)| verb == method && path.contains(part)) {
            return status(kept.refuse.remove(at).unwrap().2);
        }
        kept.version += 1;
        let version = kept.version.to_string();
        let of_secret = path.contains("secrets");
        let slot = if of_secret { &mut kept.secret } else { &mut kept.configuration };
        let given = body.pointer("/metadata/resourceVersion").cloned();
        match (method.as_str(), slot) {
            ("GET", Some(object)) => (200, object.clone()),
            ("POST", slot @ None) => {
                let object = slot.insert(body);
                object["metadata"]["resourceVersion"] = version.into();
                (201, object.clone())
            }
            ("POST", Some(_)) => status(409),
            (_, None) => status(404),
            (_, Some(object)) if given.as_ref() != Some(&object["metadata"]["resourceVersion"]) => status(409),
            ("PUT", Some(object)) => {
                *object = body;
                object["metadata"]["resourceVersion"] = version.into();
                (200, object.clone())
            }
            (_, Some(object)) => {
                for change in body["webhooks"].as_array().unwrap() {
                    let entries = object["webhooks"].as_array_mut().unwrap();
                    let entry = entries.iter_mut().find(|entry| entry["name"] == change["name"]).unwrap();
                    entry["clientConfig"]["caBundle"] = change["clientConfig"]["caBundle"].clone();
                }
                object["metadata"]["resourceVersion"] = version.into();
                (200, object.clone())
            }
        }
    }

    fn secret(&self, key: &str) -> String {
        let bytes: ByteString =
            serde_json::from_value(self.0.lock().secret.as_ref().unwrap()["data"][key].clone()).unwrap();
        String::from_utf8(bytes.0).unwrap()
    }

    fn bundles(&self) -> Vec<Option<String>> {
        let configuration = self.0.lock().configuration.clone().unwrap();
        let configuration: MutatingWebhookConfiguration = serde_json::from_value(configuration).unwrap();
        let entries = configuration.webhooks.into_iter().flatten();
        entries.map(|entry| Some(String::from_utf8(entry.client_config.ca_bundle?.0).unwrap())).collect()
    }

    fn writes(&self) -> usize {
        self.0.lock().asked.iter().filter(|line| !line.starts_with("GET")).count()
    }
}

fn served(directory: &tempfile::TempDir) -> String {
    fs::read_to_string(directory.path().join(CERTIFICATE_FILE)).unwrap()
}

fn in_days(days: u64) -> SystemTime {
    SystemTime::now() + Duration::from_hours(days * 24)
}

#[tokio::test]
async fn the_first_injector_makes_the_secret_and_the_others_take_it() {
    let server = Server::with_configuration();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut keeper = server.keeper(&first);
    keeper.step(in_days(0)).await.unwrap();
    assert_eq!(served(&first), server.secret(CERTIFICATE_FILE));
    assert_eq!(server.bundles(), vec![Some(server.secret(AUTHORITY_FILE)); 2]);
    let writes = server.writes();
    keeper.step(in_days(1)).await.unwrap();
    assert_eq!(server.writes(), writes, "what is alike is left alone");

    // Another one that found no Secret when it looked.
    server.0.lock().refuse.push_back((Method::GET, "secrets", 404));
    server.keeper(&second).step(in_days(0)).await.unwrap();
    assert_eq!(served(&second), served(&first));
    assert!(certificate::Certificate::default().load(second.path()).unwrap());
}

#[tokio::test]
async fn a_certificate_is_replaced_before_its_end_and_both_authorities_are_trusted() {
    let server = Server::with_configuration();
    let directory = tempfile::tempdir().unwrap();
    let mut keeper = server.keeper(&directory);
    keeper.step(in_days(0)).await.unwrap();
    let (old, authority) = (served(&directory), server.secret(AUTHORITY_FILE));
    keeper.step(in_days(59)).await.unwrap();
    assert_eq!(served(&directory), old);

    // It is not served until the API server trusts it.
    server.0.lock().refuse.push_back((Method::PATCH, "mutatingwebhook", 500));
    keeper.step(in_days(61)).await.unwrap_err();
    assert_ne!(server.secret(CERTIFICATE_FILE), old);
    assert_eq!(served(&directory), old);
    keeper.step(in_days(0)).await.unwrap();
    assert_eq!(served(&directory), server.secret(CERTIFICATE_FILE));
    let bundle = server.bundles().pop().unwrap().unwrap();
    assert!(bundle.ends_with(&authority) && bundle.len() > authority.len(), "{bundle}");
    let count = |bundle: &str| CertificateDer::pem_slice_iter(bundle.as_bytes()).map(Result::unwrap).count();
    assert_eq!(count(&bundle), 2);
    keeper.step(in_days(61)).await.unwrap();
    assert_eq!(count(&server.secret(AUTHORITY_FILE)), 2, "the bundle does not grow with time");
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_taken_as_it_is_and_one_of_ours_that_is_broken_is_replaced() {
    let server = Server::with_configuration();
    let directory = tempfile::tempdir().unwrap();
    let mut theirs = object(&certificate::self_signed(&["x"]).unwrap(), Some("7".into()));
    theirs.metadata.labels = None;
    server.0.lock().secret = Some(serde_json::to_value(&theirs).unwrap());
    let mut keeper = server.keeper(&directory);
    keeper.step(in_days(400)).await.unwrap();
    assert_eq!(served(&directory), server.secret(CERTIFICATE_FILE));
    assert_eq!(server.bundles(), vec![Some(server.secret(AUTHORITY_FILE)); 2]);

    let told = server.bundles();
    theirs.data.as_mut().unwrap().remove(AUTHORITY_FILE);
    server.0.lock().secret = Some(serde_json::to_value(&theirs).unwrap());
    keeper.step(in_days(0)).await.unwrap();
    assert_eq!(server.bundles(), told, "without an authority the configuration is theirs");

    theirs.data.as_mut().unwrap().remove(KEY_FILE);
    server.0.lock().secret = Some(serde_json::to_value(&theirs).unwrap());
    let error = keeper.step(in_days(0)).await.unwrap_err().to_string();
    assert!(error.contains("mesh-injector-webhook-tls has no tls.key"), "{error}");

    let mut ours = object(&certificate::self_signed(&["x"]).unwrap(), Some("8".into()));
    ours.data.as_mut().unwrap().insert(CERTIFICATE_FILE.into(), ByteString(b"garbage".to_vec()));
    server.0.lock().secret = Some(serde_json::to_value(&ours).unwrap());
    keeper.step(in_days(0)).await.unwrap();
    assert!(certificate::Certificate::default().load(directory.path()).unwrap());
}

#[tokio::test]
async fn the_first_certificate_is_served_even_where_the_api_server_cannot_be_told() {
    let server = Server::default();
    let directory = tempfile::tempdir().unwrap();
    let error = server.keeper(&directory).step(in_days(0)).await.unwrap_err().to_string();
    assert!(
        error.contains("no MutatingWebhookConfiguration mesh-injector") && error.contains("meshctl install"),
        "{error}"
    );
    assert_eq!(served(&directory), server.secret(CERTIFICATE_FILE));

    let server = Server::with_configuration();
    server.0.lock().refuse.push_back((Method::POST, "secrets", 403));
    let error = server.keeper(&directory).step(in_days(0)).await.unwrap_err().to_string();
    assert!(
        error.starts_with("failed to create the Secret mesh-injector-webhook-tls: status 403; allow it"),
        "{error}"
    );
}

#[tokio::test]
async fn an_older_view_never_undoes_what_another_injector_told() {
    let server = Server::with_configuration();
    let directory = tempfile::tempdir().unwrap();
    let keeper = server.keeper(&directory);
    let before: MutatingWebhookConfiguration =
        serde_json::from_value(server.0.lock().configuration.clone().unwrap()).unwrap();
    keeper.tell(&before, "new").await.unwrap();
    let error = keeper.tell(&before, "old").await.unwrap_err();
    assert!(
        matches!(&error, KeepError::Api { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 409))
    );
    assert_eq!(server.bundles(), vec![Some("new".to_owned()); 2]);
}
