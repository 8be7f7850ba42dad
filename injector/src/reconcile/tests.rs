//! Against an API server of a few lines that has pods and namespaces, and notes what is written.

use std::convert::Infallible;

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

/// Namespaces `shop` (labelled) and `other`, and these pods. Evictions from a namespace `guarded` are refused.
#[derive(Clone)]
struct Server {
    pods: Vec<Value>,
    written: mpsc::UnboundedSender<String>,
}

impl Server {
    fn with(pods: Vec<Value>) -> (Client, mpsc::UnboundedReceiver<String>) {
        let (written, log) = mpsc::unbounded_channel();
        let server = Self { pods, written };
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
                let query = parts.uri.query().unwrap_or_default();
                let (status, answer) = server.answer(&parts.method, parts.uri.path(), query, body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, Infallible>(Response::builder().status(status).body(answer).unwrap())
            }
        });
        (Client::new(service, "default"), log)
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: Value) -> (u16, Value) {
        let status = |code: u16, reason: &str| {
            (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}))
        };
        if method == Method::POST {
            let event = body.pointer("/note").map(|note| format!(" {} {note}", body["metadata"]["name"]));
            self.written.send(format!("{path}{}", event.unwrap_or_default())).unwrap();
            return match () {
                () if path.contains("pods/guarded") => status(429, "TooManyRequests"),
                () if path.ends_with("/eviction") => (201, json!({"status": "Success"})),
                () => (201, body),
            };
        }
        let labelled = ["shop"];
        let list = |items: Vec<&Value>| (200, json!({"metadata": {}, "items": items}));
        let namespace = |name: &str| {
            let labels = if labelled.contains(&name) { json!({"meshctl.dev/inject": "enabled"}) } else { json!({}) };
            json!({"metadata": {"name": name, "labels": labels}})
        };
        let label =
            |pod: &Value| pod["metadata"]["labels"]["meshctl.dev/inject"].as_str().unwrap_or_default().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').skip(2).collect();
        match parts[..] {
            ["pods"] => {
                assert!(query.contains("meshctl.dev%2Finject%3Denabled"), "{query}");
                list(self.pods.iter().filter(|pod| label(pod) == "enabled").collect())
            }
            ["namespaces"] => list(vec![&namespace("shop")]),
            ["namespaces", name] => (200, namespace(name)),
            ["namespaces", of, "pods"] => {
                assert!(query.contains("inject%21%3Ddisabled"), "{query}");
                let here = self.pods.iter().filter(|pod| pod["metadata"]["namespace"] == of);
                list(here.filter(|pod| label(pod) != "disabled").collect())
            }
            ["namespaces", of, "pods", name] => {
                let mut pods = self.pods.iter();
                let found = pods.find(|pod| pod["metadata"]["name"] == name && pod["metadata"]["namespace"] == of);
                found.map_or_else(|| status(404, "NotFound"), |pod| (200, pod.clone()))
            }
            _ => panic!("nobody asks for {path}"),
        }
    }
}

fn pod(namespace: &str, name: &str, more: &Value) -> Value {
    let uid = format!("{namespace}-db");
    let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": uid, "controller": true}]);
    let mut pod = json!({
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"), "ownerReferences": owner},
        "spec": {"containers": [{"name": "app"}]},
    });
    json_patch::merge(&mut pod, more);
    pod
}

fn labelled(value: &str) -> Value {
    json!({"metadata": {"labels": {"meshctl.dev/inject": value}}})
}

fn pods() -> Vec<Value> {
    vec![
        pod("shop", "db-0", &json!({})),
        pod("shop", "db-1", &json!({})),
        pod(
            "shop",
            "guarded-0",
            &json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "y", "uid": "y"}]}}),
        ),
        pod("shop", "bare", &json!({"metadata": {"ownerReferences": null}})),
        pod("shop", "injected", &json!({"metadata": {"annotations": {"meshctl.dev/proxy-version": "0.1.0"}}})),
        pod("shop", "ends", &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        pod("shop", "done", &json!({"status": {"phase": "Succeeded"}})),
        pod("shop", "host", &json!({"spec": {"hostNetwork": true}})),
        pod("shop", "refuses", &labelled("disabled")),
        pod("other", "asks", &labelled("enabled")),
        pod("other", "does-not", &json!({})),
    ]
}

fn all(log: &mut mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| log.try_recv().ok()).collect()
}

#[tokio::test]
async fn pods_that_should_have_a_sidecar_are_counted_and_told_and_left_alone() {
    let (client, mut log) = Server::with(pods());
    let (events, writer) = Events::new(client.clone());
    let counts = Counts::default();
    Reconciler::new(client, events, counts.clone(), false).look().await.unwrap();
    assert_eq!(counts.uninjected.get(), 5);
    // All events are handed in; the writer ends with them.
    writer.run().await;
    let written = all(&mut log);
    let told: Vec<_> = written.iter().map(|line| line.split(' ').nth(1).unwrap().trim_matches('"')).collect();
    assert_eq!(
        told,
        ["asks", "bare", "db-0", "db-1", "guarded-0"].map(|name| format!("mesh-injector-uid-{name}")),
        "one name for one pod, whichever injector writes it"
    );
    assert!(written[2].starts_with("/apis/events.k8s.io/v1/namespaces/shop/events"), "{}", written[2]);
    assert!(written[2].contains("kubectl -n shop rollout restart statefulset/db"), "{}", written[2]);
}

#[tokio::test]
async fn where_told_to_it_evicts_one_pod_of_a_workload_and_not_the_next_one_at_once() {
    let (client, mut log) = Server::with(pods());
    let counts = Counts::default();
    let mut reconciler = Reconciler::new(client, Events::nowhere(), counts.clone(), true);
    for _ in 0..2 {
        reconciler.look().await.unwrap();
    }
    let evictions = ["other/pods/asks", "shop/pods/db-0", "shop/pods/guarded-0"];
    assert_eq!(
        all(&mut log),
        evictions.map(|pod| format!("/api/v1/namespaces/{pod}/eviction")),
        "one of each workload"
    );
    assert_eq!(counts.evicted.get(), 2, "those within their budget");
}
