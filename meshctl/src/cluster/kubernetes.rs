//! Kubernetes as a [`super::Cluster`]: lists of the API server, and port-forwards by WebSocket.
//!
//! Reads kubeconfigs as kubectl does. A user who may only see one namespace gets that namespace where all were meant and
//! not insisted on, so that every command works with namespaced rights.

mod kubeconfig;

use std::time::Duration;

use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client as Kube, client::UpgradeConnectionError};
use mesh_runtime::tls;
use serde::{Deserialize, de::DeserializeOwned};

use super::{ByteStream, ClusterError};
use crate::cli::Globals;

/// Items of one page of a list.
const PAGE: usize = 500;
/// Pages that are read; a cluster of a million pods has half as many.
const MOST_PAGES: usize = 4_000;

/// Speaks to an API server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    kube: Kube,
    server: String,
    /// The namespace that was asked for, else that of the context.
    pub(super) namespace: String,
    /// All namespaces were asked for by name: then less is an error.
    insists: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// A page of a list.
#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMeta,
    // An empty list is `null` in some answers.
    items: Option<Vec<T>>,
}

#[derive(Deserialize, Default)]
struct PageMeta {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

impl Client {
    /// For the context that the flags name. Connects to nothing yet, but may run the program that a kubeconfig names for
    /// credentials.
    pub(crate) async fn new(globals: &Globals) -> Result<Self, ClusterError> {
        tls::install_default();
        let mut config = kubeconfig::read(globals).await?;
        if globals.as_user.is_some() {
            config.auth_info.impersonate.clone_from(&globals.as_user);
            config.auth_info.impersonate_groups = Some(globals.as_group.clone()).filter(|groups| !groups.is_empty());
        }
        config.connect_timeout = Some(globals.request_timeout);
        // A port-forward is read for as long as it lasts; questions have their own deadline.
        config.read_timeout = None;
        config.write_timeout = Some(Duration::from_secs(30));
        let server = config.cluster_url.to_string();
        let namespace = globals.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let kube = Kube::try_from(config);
        let kube = kube.map_err(|error| ClusterError::Kubeconfig { reason: chain(&error), fix: None })?;
        Ok(Self { kube, server, namespace, insists: globals.all_namespaces })
    }

    /// The same, but less than what is asked for is an error.
    pub(super) fn insisting(&self) -> Self {
        Self { insists: true, ..self.clone() }
    }

    /// Sends an object; returns what comes back.
    pub(super) async fn send(
        &self,
        method: http::Method,
        path: &str,
        content_type: &str,
        object: &serde_json::Value,
    ) -> Result<serde_json::Value, ClusterError> {
        let failed = |error: kube::Error| self.failed(&format!("{method} {path}"), &error);
        let request = Request::builder().method(&method).uri(path).header(http::header::CONTENT_TYPE, content_type);
        let request = request.body(object.to_string().into_bytes());
        let request = request.map_err(|error| failed(kube::Error::HttpError(error)))?;
        self.kube.request(request).await.map_err(failed)
    }

    /// All objects of a kind, in one namespace or in all.
    pub(crate) async fn objects<T: DeserializeOwned>(
        &self,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<Vec<T>, ClusterError> {
        let answer = self.list(kind, &path(kind, namespace)).await;
        match answer {
            Err(ClusterError::Forbidden { .. }) if namespace.is_none() && !self.insists => {
                let narrower = if kind == "namespaces" {
                    self.get(&format!("{}/{}", path(kind, None), self.namespace)).await.map(|one| vec![one])
                } else {
                    self.list(kind, &path(kind, Some(&self.namespace))).await
                };
                // Of two refusals the first names what was wanted.
                narrower.or(answer)
            }
            answer => answer,
        }
    }

    async fn list<T: DeserializeOwned>(&self, kind: &str, path: &str) -> Result<Vec<T>, ClusterError> {
        let mut items = Vec::new();
        let mut next = String::new();
        for _ in 0..MOST_PAGES {
            let mut url = format!("{path}?limit={PAGE}");
            if !next.is_empty() {
                // Tokens are URL-safe base64.
                url.push_str(&format!("&continue={next}"));
            }
            let page: Page<T> = self.get(&url).await?;
            items.extend(page.items.unwrap_or_default());
            next = page.metadata.next.unwrap_or_default();
            if next.is_empty() {
                return Ok(items);
            }
        }
        Err(ClusterError::Answer { what: format!("list {kind}"), reason: "the list does not end".to_owned() })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClusterError> {
        let failed = |error: kube::Error| self.failed(&format!("GET {path}"), &error);
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|error| failed(kube::Error::HttpError(error)))?;
        self.kube.request(request).await.map_err(failed)
    }

    /// Opens raw bytes to a port on the loopback of a pod.
    pub(crate) async fn connect(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> Result<Box<dyn ByteStream>, ClusterError> {
        let what = format!("port-forward to {namespace}/{pod}:{port}");
        let pods: Api<Pod> = Api::namespaced(self.kube.clone(), namespace);
        let failed = |error: kube::Error| match error {
            // A refused upgrade does not carry the answer's text.
            kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(StatusCode::FORBIDDEN)) => {
                let right = r#"this user cannot get resource "pods/portforward" in API group """#;
                ClusterError::Forbidden {
                    what: what.clone(),
                    reason: format!("{right} in the namespace {namespace:?}"),
                }
            }
            error => self.failed(&what, &error),
        };
        let mut forward = pods.portforward(pod, &[port]).await.map_err(failed)?;
        let stream = forward.take_stream(port);
        let stream = stream.ok_or_else(|| ClusterError::Answer { what, reason: "it opened no stream".to_owned() })?;
        Ok(Box::new(stream))
    }

    fn failed(&self, what: &str, error: &kube::Error) -> ClusterError {
        let (what, reason) = (what.to_owned(), chain(error));
        match error {
            kube::Error::Api(status)
                if matches!(
                    StatusCode::from_u16(status.code),
                    Ok(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                ) =>
            {
                ClusterError::Forbidden { what, reason: status.message.clone() }
            }
            kube::Error::Api(status) if status.code == 404 => {
                ClusterError::NotFound { what, reason: status.message.clone() }
            }
            kube::Error::Api(status) => ClusterError::Answer { what, reason: status.message.clone() },
            kube::Error::Auth(_) => ClusterError::Kubeconfig { reason, fix: None },
            kube::Error::UpgradeConnection(_) => ClusterError::Answer { what, reason },
            _ => {
                let server = self.server.clone();
                match untrusted(error) {
                    Some(reason) => ClusterError::Untrusted { server, reason },
                    None => ClusterError::NoAnswer { server, reason },
                }
            }
        }
    }
}

/// What is wrong with the certificate of whoever answered, if it is that.
fn untrusted(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(rustls::Error::InvalidCertificate(reason)) = error.downcast_ref() {
            return Some(reason.to_string());
        }
        // An I/O error is transparent to what it wraps.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = wrapped.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    None
}

/// An error with its causes, each once: libraries of errors repeat them.
fn chain(error: &dyn std::error::Error) -> String {
    // Layers of kube that say only that they are layers.
    let mut text = error.to_string().trim_start_matches("ServiceError: ").to_owned();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(&format!(": {next}"));
        }
        cause = error.source();
    }
    text
}

/// Where a kind is listed.
fn path(kind: &str, namespace: Option<&str>) -> String {
    let group = match kind {
        "mutatingwebhookconfigurations" => "/apis/admissionregistration.k8s.io/v1",
        _ => "/api/v1",
    };
    match namespace {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{kind}"),
        None => format!("{group}/{kind}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn whoever_cannot_prove_to_be_the_api_server_is_told_from_one_that_is_away() {
        let certificate = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = io::Error::other(io::Error::other(certificate));
        assert!(untrusted(&wrapped).is_some_and(|reason| reason.contains("UnknownIssuer")));
        for away in [io::Error::from(io::ErrorKind::ConnectionRefused), io::Error::other(rustls::Error::DecryptError)] {
            assert_eq!(untrusted(&away), None, "{away}");
        }
    }
}
