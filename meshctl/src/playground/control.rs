//! The control socket: what `meshctl … --playground` asks the supervisor, over HTTP/1.1 on a Unix socket that only this
//! user can open. Its other side is [`crate::cluster::playground`].

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener},
};
use tokio_util::sync::CancellationToken;

use super::{kubelet::Kubelet, network::dial_inside};
use crate::cluster::playground::UPGRADE_PROTOCOL;

/// A listener on a pod's loopback accepts at once or not at all.
const DIAL: Duration = Duration::from_secs(2);

/// The served socket.
pub(crate) struct Control {
    stop: CancellationToken,
}

#[derive(Clone)]
struct Shared {
    kubelet: Kubelet,
    stop: CancellationToken,
}

impl Control {
    /// Takes the socket and serves it until the playground ends.
    pub(crate) fn bind(socket: PathBuf, kubelet: Kubelet) -> anyhow::Result<Self> {
        // One that a killed playground left behind: nobody answers there, the launcher has asked.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove the old socket")?,
            _ => {}
        }
        let listener = UnixListener::bind(&socket).with_context(|| format!("listen on {}", socket.display()))?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).context("close the socket to others")?;
        let stop = CancellationToken::new();
        let tasks = kubelet.tasks.clone();
        let router = router(Shared { kubelet, stop: stop.clone() });
        let cancelled = tasks.cancelled();
        tasks.spawn("control socket", async move {
            // An accept error is retried within; there is no other.
            let _ = axum::serve(listener, router).with_graceful_shutdown(cancelled).await;
        });
        Ok(Self { stop })
    }

    /// Waits until somebody asks for the end.
    pub(crate) async fn stopped(&mut self) {
        self.stop.cancelled().await;
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/objects/{kind}", get(objects))
        .route("/v1/logs/{namespace}/{pod}", get(logs))
        .route("/v1/sandbox/{namespace}/{pod}", get(sandbox))
        .route("/v1/connect/{namespace}/{pod}/{port}", post(connect))
        .route("/v1/stop", post(stop))
        .with_state(shared)
}

async fn status(State(shared): State<Shared>) -> Response {
    let (ready, pods) = shared.kubelet.store.counts();
    Json(json!({"ready": ready, "pods": pods, "version": env!("CARGO_PKG_VERSION")})).into_response()
}

async fn objects(State(shared): State<Shared>, Path(kind): Path<String>) -> Response {
    match shared.kubelet.store.list(&kind) {
        Some(list) => Json(list).into_response(),
        None => refuse(StatusCode::NOT_FOUND, format!("the playground has no {kind}")),
    }
}

async fn logs(State(shared): State<Shared>, Path((namespace, pod)): Path<(String, String)>) -> Response {
    let key = format!("{namespace}/{pod}");
    let logs = &shared.kubelet.logs;
    let all: Vec<_> = logs
        .containers(&key)
        .into_iter()
        .map(|container| json!({"text": logs.text(&key, &container), "container": container}))
        .collect();
    Json(all).into_response()
}

async fn sandbox(State(shared): State<Shared>, Path((namespace, pod)): Path<(String, String)>) -> Response {
    match shared.kubelet.sandboxes.lock().get(&format!("{namespace}/{pod}")) {
        Some(sandbox) => {
            let (network, mounts) = sandbox.descriptors();
            Json(json!({"network": network, "mounts": mounts})).into_response()
        }
        None => no_pod(&namespace, &pod),
    }
}

async fn connect(
    State(shared): State<Shared>,
    Path((namespace, pod, port)): Path<(String, String, u16)>,
    mut request: Request,
) -> Response {
    let Some(sandbox) = shared.kubelet.sandboxes.lock().get(&format!("{namespace}/{pod}")).map(Arc::clone) else {
        return no_pod(&namespace, &pod);
    };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return refuse(StatusCode::BAD_REQUEST, format!("ask with `upgrade: {UPGRADE_PROTOCOL}`"));
    };
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let dialled = tokio::task::spawn_blocking(move || {
        let stream = dial_inside(&sandbox.pod, to, DIAL)?;
        stream.set_nonblocking(true)?;
        io::Result::Ok(stream)
    });
    let mut stream = match dialled.await.map_err(io::Error::other).flatten().and_then(TcpStream::from_std) {
        Ok(stream) => stream,
        Err(error) => {
            return refuse(
                StatusCode::BAD_GATEWAY,
                format!("connect to port {port} in pod {namespace}/{pod}: {error}"),
            );
        }
    };
    let cancelled = shared.kubelet.tasks.cancelled();
    shared.kubelet.tasks.spawn("port", async move {
        let copy = async {
            if let Ok(upgraded) = upgrade.await {
                // Either end may leave when it likes.
                let _ = copy_bidirectional(&mut TokioIo::new(upgraded), &mut stream).await;
            }
        };
        tokio::select! {
            () = copy => {}
            () = cancelled => {}
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(UPGRADE_PROTOCOL));
    response
}

async fn stop(State(shared): State<Shared>) -> Response {
    shared.stop.cancel();
    "stopping\n".into_response()
}

fn no_pod(namespace: &str, pod: &str) -> Response {
    refuse(StatusCode::NOT_FOUND, format!("no pod {namespace}/{pod} runs"))
}

fn refuse(status: StatusCode, reason: String) -> Response {
    (status, reason).into_response()
}
