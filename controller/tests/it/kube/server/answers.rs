//! How the scripted API answers: as a real one does, unless it was told otherwise.

use std::{collections::BTreeMap, convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::{CONFIG_MAPS, KINDS, REVIEWS, Shared, State, recording::played};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(super) fn status_object(status: StatusCode) -> String {
    let message = format!("scripted {}", status.as_u16());
    json!({ "kind": "Status", "status": "Failure", "code": status.as_u16(), "message": message }).to_string()
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Query {
    watch: bool,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    next: usize,
    resource_version: u64,
    timeout_seconds: Option<u64>,
    allow_watch_bookmarks: bool,
    field_selector: String,
}

impl Query {
    fn parse(uri: &http::Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let object: serde_json::Map<String, Value> = pairs
            .map(|(key, value)| (key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
            .collect();
        Self::deserialize(Value::Object(object)).unwrap()
    }
}

pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let answer = found(Arc::clone(&shared), request).await;
    shared.answered.send_modify(|count| *count += 1);
    Ok(answer)
}

async fn found(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (request, body) = request.into_parts();
    let (path, query) = (request.uri.path().to_owned(), Query::parse(&request.uri));
    // Read, so that the connection can be used again.
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(request.headers["authorization"], "Bearer of-the-controller");
    let verb = match request.method {
        Method::GET if query.watch => "watch",
        Method::GET if query.next > 0 => "next",
        Method::GET if KINDS.contains(&path.as_str()) => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "replace",
        ref method => panic!("{method} is not served"),
    };
    let question = format!("{verb} {path}");
    let fault = {
        let mut state = shared.state.lock();
        let once = state.faults.get_mut(&question).and_then(Vec::pop);
        let fault = once.or_else(|| state.standing.get(&question).cloned());
        state.asked.push(question.clone());
        fault
    };
    if let Some((status, body)) = fault {
        return full(status, body);
    }
    if let Some(response) = played(&shared, &question) {
        return response;
    }
    match verb {
        "watch" => watched(shared, &path, &query),
        "list" | "next" => listed(&shared.state.lock(), &path, &query),
        "get" if path == CONFIG_MAPS => named(&shared.state.lock(), &query.field_selector),
        "get" => match shared.state.lock().stored.get(&path) {
            Some(object) => full(StatusCode::OK, object.to_string()),
            None => full(StatusCode::NOT_FOUND, status_object(StatusCode::NOT_FOUND)),
        },
        "replace" => replaced(&mut shared.state.lock(), &path, &serde_json::from_slice(&body).unwrap()),
        _ => created(&mut shared.state.lock(), &path, &serde_json::from_slice(&body).unwrap()),
    }
}

/// Objects of one name, of every namespace.
fn named(state: &State, selector: &str) -> Response<Body> {
    let name = selector.strip_prefix("metadata.name%3D").unwrap();
    let suffix = format!("/configmaps/{name}");
    let found: Vec<&Value> =
        state.stored.iter().filter(|(path, _)| path.ends_with(&suffix)).map(|(_, object)| object).collect();
    let items = if found.is_empty() { Value::Null } else { json!(found) };
    full(StatusCode::OK, json!({ "kind": "List", "metadata": { "resourceVersion": "1" }, "items": items }).to_string())
}

/// Replaces an object whose version the caller knows.
fn replaced(state: &mut State, path: &str, object: &Value) -> Response<Body> {
    state.version += 1;
    let version = state.version.to_string();
    match state.stored.get_mut(path) {
        Some(before) if before["metadata"]["resourceVersion"] == object["metadata"]["resourceVersion"] => {
            *before = object.clone();
            before["metadata"]["resourceVersion"] = version.into();
            full(StatusCode::OK, before.to_string())
        }
        Some(_) => full(StatusCode::CONFLICT, status_object(StatusCode::CONFLICT)),
        None => full(StatusCode::NOT_FOUND, status_object(StatusCode::NOT_FOUND)),
    }
}

fn created(state: &mut State, path: &str, object: &Value) -> Response<Body> {
    if path == REVIEWS {
        let mut review = object.clone();
        review["status"] = reviewed(state, &object["spec"]);
        return full(StatusCode::CREATED, review.to_string());
    }
    let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
    if state.stored.contains_key(&path) {
        return full(StatusCode::CONFLICT, status_object(StatusCode::CONFLICT));
    }
    state.version += 1;
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = state.version.to_string().into();
    state.stored.insert(path, object.clone());
    full(StatusCode::CREATED, object.to_string())
}

/// As a real one does: a token that it does not accept is no error of the review.
fn reviewed(state: &State, spec: &Value) -> Value {
    let token = spec["token"].as_str().unwrap();
    if let Some(status) = state.reviews.get(token) {
        return status.clone();
    }
    let parts: Vec<&str> = token.split(':').collect();
    let &["kube", namespace, account, pod] = parts.as_slice() else {
        return json!({ "user": {}, "error": "[invalid bearer token, Token has been invalidated]" });
    };
    json!({
        "authenticated": true,
        "audiences": spec["audiences"],
        "user": {
            "username": format!("system:serviceaccount:{namespace}:{account}"),
            "uid": "4c53b2a5-a2b0-4b4f-8d8d-0d4d2c3f8f0e",
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/credential-id": ["JTI=9d9f5a0e-9a3b-4a4e-8f6f-0c6a5f2f7f11"],
                "authentication.kubernetes.io/node-name": ["node-1"],
                "authentication.kubernetes.io/pod-name": [pod],
                "authentication.kubernetes.io/pod-uid": [format!("uid-{pod}")],
            },
        },
    })
}

fn listed(state: &State, path: &str, query: &Query) -> Response<Body> {
    let all: Vec<&Value> = state.objects.get(path).into_iter().flat_map(BTreeMap::values).collect();
    let size = query.limit.unwrap_or(usize::MAX).min(state.page.unwrap_or(usize::MAX));
    let page = &all[query.next.min(all.len())..query.next.saturating_add(size).min(all.len())];
    let after = query.next + page.len();
    let next = if after < all.len() { after.to_string() } else { String::new() };
    let version = state.version.to_string();
    // As a real one does: the items of a list do not say their kind.
    let items: Vec<Value> = page
        .iter()
        .map(|object| {
            let mut object = (*object).clone();
            object.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
            object
        })
        .collect();
    let items = if items.is_empty() { Value::Null } else { items.into() };
    full(
        StatusCode::OK,
        json!({ "kind": "List", "metadata": { "resourceVersion": version, "continue": next }, "items": items })
            .to_string(),
    )
}

fn watched(shared: Arc<Shared>, path: &str, query: &Query) -> Response<Body> {
    assert!(query.allow_watch_bookmarks);
    let end = Instant::now() + Duration::from_secs(query.timeout_seconds.unwrap());
    let (path, from, hangs) = (path.to_owned(), query.resource_version, false);
    let cuts = shared.state.lock().cuts(&path);
    if from < shared.state.lock().oldest {
        return full(StatusCode::OK, gone());
    }
    let changes = shared.changed.subscribe();
    let lines = futures_util::stream::unfold(
        (shared, changes, path, from, hangs),
        move |(shared, mut changes, path, from, mut hangs)| async move {
            loop {
                changes.mark_unchanged();
                hangs |= shared.state.lock().hung.contains(path.as_str());
                if hangs {
                    std::future::pending::<()>().await;
                }
                if from == u64::MAX || shared.state.lock().cuts(&path) != cuts {
                    return None;
                }
                let (lines, version) = shared.state.lock().since(&path, from);
                if !lines.is_empty() {
                    let frame = Ok::<_, io::Error>(Frame::data(Bytes::from(lines)));
                    return Some((frame, (shared, changes, path, version, hangs)));
                }
                if tokio::time::timeout_at(end, changes.changed()).await.is_err() {
                    return None;
                }
            }
        },
    );
    Response::new(BodyExt::boxed_unsync(StreamBody::new(lines)))
}

impl State {
    fn cuts(&self, path: &str) -> u64 {
        self.cuts.get(path).copied().unwrap_or_default()
    }

    /// What a watch from `from` is told now, and where it is then; a version that is too old ends it.
    fn since(&self, path: &str, from: u64) -> (String, u64) {
        if from < self.untold {
            return (gone(), u64::MAX);
        }
        let new = self.log.iter().filter(|(version, of, _)| *version > from && *of == path);
        let lines: String = new.map(|(_, _, line)| line.to_string() + "\n").collect();
        (lines, self.version)
    }
}

/// What a watch is told whose version is too old.
fn gone() -> String {
    let status: Value = serde_json::from_str(&status_object(StatusCode::GONE)).unwrap();
    json!({ "type": "ERROR", "object": status }).to_string() + "\n"
}

pub(super) fn full(status: StatusCode, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}
