//! The playground as a [`super::Cluster`]: HTTP/1.1 over the supervisor's Unix socket.
//!
//! Its other side is `playground::control`. It works on a current-thread runtime and starts no thread, so that a
//! command may still join a user namespace after it asked.

use std::{io, path::PathBuf};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use mesh_runtime::tasks::Tasks;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{ByteStream, ClusterError};
use crate::playground::paths::RuntimeDir;

/// The name under which [`Client::connect`] asks for raw bytes.
pub(crate) const UPGRADE_PROTOCOL: &str = "bytes";
/// Largest answer that is read: the whole playground's objects are far below.
const ANSWER_LIMIT: usize = 16 << 20;

/// Speaks to the supervisor. Cheap to clone; each call opens its own connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
    tasks: Tasks,
}

impl Client {
    /// The playground of the calling user, running or not.
    pub(crate) fn of_this_user() -> Result<Self, ClusterError> {
        let dir = RuntimeDir::of_this_user().map_err(|error| ClusterError::Socket {
            path: PathBuf::from("playground"),
            reason: format!("{error:#}"),
        })?;
        Ok(Self::at(dir.socket()))
    }

    /// The playground behind this socket.
    pub(crate) fn at(socket: PathBuf) -> Self {
        Self { socket, tasks: Tasks::new() }
    }

    /// The process id of the supervisor, as this process sees it: the owner of all the playground's namespaces.
    pub(crate) async fn supervisor_pid(&self) -> Result<i32, ClusterError> {
        let stream = self.dial().await?;
        let credentials = stream.peer_cred().map_err(|error| self.socket_error(&error))?;
        credentials.pid().ok_or_else(|| self.socket_error(&io::Error::other("it tells no process id")))
    }

    /// All objects of a kind (`pods`, `services`, `namespaces`, …).
    pub(crate) async fn objects<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, ClusterError> {
        self.get(&format!("/v1/objects/{kind}")).await
    }

    /// GET, with a JSON answer.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClusterError> {
        let body = self.body(Method::GET, path).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ClusterError::Answer { what: path.to_owned(), reason: error.to_string() })
    }

    /// GET, with a text answer.
    pub(crate) async fn text(&self, path: &str) -> Result<String, ClusterError> {
        Ok(String::from_utf8_lossy(&self.body(Method::GET, path).await?).into_owned())
    }

    /// Asks the supervisor to end everything; it answers before it does.
    pub(crate) async fn stop(&self) -> Result<(), ClusterError> {
        self.body(Method::POST, "/v1/stop").await.map(drop)
    }

    /// Opens raw bytes to a port of a pod.
    pub(crate) async fn connect(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> Result<Box<dyn ByteStream>, ClusterError> {
        let path = format!("/v1/connect/{namespace}/{pod}/{port}");
        let answer = self.request(Method::POST, &path).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(path, answer).await);
        }
        let upgraded = hyper::upgrade::on(answer).await.map_err(|error| ClusterError::Answer {
            what: path,
            reason: format!("the connection ended before it was open: {error}"),
        })?;
        Ok(Box::new(TokioIo::new(upgraded)))
    }

    async fn body(&self, method: Method, path: &str) -> Result<Bytes, ClusterError> {
        let answer = self.request(method, path).await?;
        if answer.status() != StatusCode::OK {
            return Err(refused(path.to_owned(), answer).await);
        }
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|error| ClusterError::Answer { what: path.to_owned(), reason: error.to_string() })?;
        Ok(body.to_bytes())
    }

    async fn request(&self, method: Method, path: &str) -> Result<http::Response<Incoming>, ClusterError> {
        let failed = |reason: String| ClusterError::Answer { what: path.to_owned(), reason };
        let stream = self.dial().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        // Ends with the answer's body, or with the upgraded stream.
        self.tasks.spawn("playground connection", async move {
            let _ = connection.with_upgrades().await;
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "playground")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, UPGRADE_PROTOCOL)
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(error.to_string()))?;
        sender.send_request(request).await.map_err(|error| failed(error.to_string()))
    }

    async fn dial(&self) -> Result<UnixStream, ClusterError> {
        UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClusterError::NotRunning(self.socket.clone()),
            _ => self.socket_error(&error),
        })
    }

    fn socket_error(&self, error: &io::Error) -> ClusterError {
        ClusterError::Socket { path: self.socket.clone(), reason: error.to_string() }
    }
}

/// The supervisor's own words, clipped.
async fn refused(what: String, answer: http::Response<Incoming>) -> ClusterError {
    let status = answer.status();
    let text = match Limited::new(answer.into_body(), 4096).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => error.to_string(),
    };
    ClusterError::Answer { what, reason: format!("{status}: {text}") }
}
