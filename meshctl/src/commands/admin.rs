//! Talks to the loopback admin listener of a pod's proxy, through whatever the cluster offers to reach it.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_proto::{client::TapClient, names};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    cluster::{Cluster, PodInfo},
    failure::{Exit, Failure},
};

/// Longest answer that is read: metrics of a busy proxy are far below it.
const BODY_LIMIT: usize = 16 << 20;

/// The body of `GET path`.
pub(crate) async fn get(cluster: &Cluster, pod: &PodInfo, path: &str) -> Result<String, Failure> {
    get_at(cluster, pod, names::PORT_PROXY_ADMIN, path).await
}

/// The body of `GET path` at an admin port of a pod: [`names::PORT_PROXY_ADMIN`] or [`names::PORT_ADMIN`].
pub(crate) async fn get_at(cluster: &Cluster, pod: &PodInfo, port: u16, path: &str) -> Result<String, Failure> {
    let started = Instant::now();
    let limit = cluster.limit();
    let answer = tokio::time::timeout(limit, get_slowly(cluster, pod, port, path)).await;
    let pod = format!("{}/{}", pod.namespace, pod.name);
    let took = started.elapsed();
    if let Ok(answer) = answer {
        tracing::debug!(%pod, port, path, ?took, ok = answer.is_ok(), "asked a pod");
        return answer;
    }
    tracing::debug!(%pod, port, path, ?took, "a pod did not answer in time");
    Err(Failure::new(Exit::TimedOut, format!("timed out: {path} at port {port} did not answer within {limit:?}"))
        .fix("--request-timeout gives it longer"))
}

async fn get_slowly(cluster: &Cluster, pod: &PodInfo, port: u16, path: &str) -> Result<String, Failure> {
    let failed = |act: &str, error: &dyn std::fmt::Display| {
        Failure::new(Exit::Unreachable, format!("{act} {path} at port {port}: {error}"))
    };
    let stream = cluster.connect(pod, port).await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed("ask for", &error))?;
    let request = http::Request::get(path)
        .header(http::header::HOST, "localhost")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| failed("ask for", &error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| failed("ask for", &error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_LIMIT)
            .collect()
            .await
            .map_err(|error| failed("read", &error))?
            .to_bytes();
        if !status.is_success() {
            return Err(failed("ask for", &format!("status {status}")));
        }
        String::from_utf8(body.into()).map_err(|error| failed("read", &error))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    // The connection must be driven while we wait; once the answer is here it may end.
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(failed("ask for", &error)),
        },
    }
}

/// A tap client on one proxy.
pub(crate) async fn tap(cluster: &Cluster, pod: &PodInfo) -> Result<TapClient, Failure> {
    let stream = cluster.connect(pod, names::PORT_PROXY_ADMIN).await?;
    let mut stream = Some(stream);
    // The address is never dialled: the one connection is already there.
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take();
        async move { stream.map(TokioIo::new).ok_or_else(|| std::io::Error::other("the connection to the proxy has ended")) }
    });
    let channel: Channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .map_err(|error| Failure::new(Exit::Unreachable, format!("tap the proxy: {error}")))?;
    Ok(TapClient::new(channel))
}
